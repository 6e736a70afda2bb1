#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::dmi::tests::fake::device;

/// A mapper as the Go framework makes it: a device that it knows is not changed by being registered again.
#[derive(Debug, Default)]
struct Framework {
    models: BTreeMap<ModelId, wire::DeviceModel>,
    /// With the model that they were started with.
    devices: BTreeMap<DeviceId, (wire::Device, wire::DeviceModel)>,
}

impl Framework {
    fn perform(&mut self, call: &Call) -> Result<(), ()> {
        match call.clone() {
            Call::CreateModel(id, _, model) => drop(self.models.insert(id, model)),
            Call::UpdateModel(id, _, model) => *self.models.get_mut(&id).ok_or(())? = model,
            Call::RemoveModel(id) => drop(self.models.remove(&id)),
            Call::Register(id, next, device) => {
                if !self.devices.contains_key(&id) {
                    let model = self.models.get(&next.model).ok_or(())?.clone();
                    self.devices.insert(id, (device, model));
                }
            }
            Call::Update(id, next, device) => {
                let model = self.models.get(&next.model).ok_or(())?.clone();
                self.devices.insert(id, (device, model));
            }
            Call::Remove(id) => drop(self.devices.remove(&id).ok_or(())?),
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// The answer is lost, the call is not.
    Unheard,
    /// The call is lost.
    Lost,
    /// The record of the call is all that is left.
    Restart,
}

#[derive(Clone, Debug)]
enum Event {
    Set(u8, u32, u8),
    Remove(u8),
    Calls(Vec<Fate>),
}

fn event() -> impl Strategy<Value = Event> {
    let fate =
        prop_oneof![4 => Just(Fate::Done), 1 => Just(Fate::Unheard), 1 => Just(Fate::Lost), 1 => Just(Fate::Restart)];
    prop_oneof![
        (0..3_u8, 0..3_u32, 0..2_u8).prop_map(|(name, address, model)| Event::Set(name, address, model)),
        (0..3_u8).prop_map(Event::Remove),
        prop::collection::vec(fate, 1..6).prop_map(Event::Calls),
    ]
}

/// What is left of it in the store.
fn reloaded(told: &Told) -> Told {
    let mut loaded = Told::default();
    for (id, device) in &told.devices {
        let has = match device.has {
            Has::Surely(Some(digest)) => Has::Surely(Some(digest)),
            _ => Has::Perhaps(None),
        };
        loaded.models.insert(device.model.clone(), None);
        loaded.devices.insert(id.clone(), ToldDevice { has, model: device.model.clone() });
    }
    loaded
}

fn wanted(name: u8, address: u32, model: u8) -> (DeviceId, Wanted) {
    let mut device = device(&format!("d{name}"), "modbus", address);
    let mut spec = kubeedge_core::device::DeviceModelSpec::clone(&device.model);
    spec.properties[0].maximum = format!("{model}");
    device.model = spec.into();
    (device.id.clone(), Wanted::new(&device).unwrap())
}

proptest! {
    /// All devices have one model here: it is as the device that was set last has it.
    #[test]
    fn a_mapper_ends_with_what_there_is_whatever_was_lost(events in prop::collection::vec(event(), 0..24)) {
        let (mut told, mut mapper, mut all) = (Told::default(), Framework::default(), BTreeMap::new());
        let quiet = vec![Fate::Done; 64];
        for event in events.into_iter().chain([Event::Calls(quiet)]) {
            match event {
                Event::Set(name, address, model) => {
                    for (_, of) in all.values_mut() {
                        *of = model;
                    }
                    all.insert(name, (address, model));
                }
                Event::Remove(name) => drop(all.remove(&name)),
                Event::Calls(fates) => {
                    let there: BTreeMap<_, _> = all.iter().map(|(name, (address, model))| wanted(*name, *address, *model)).collect();
                    let there = there.iter().map(|(id, wanted)| (id.clone(), wanted)).collect();
                    for fate in fates {
                        let Some(call) = calls(&told, &there, true).next() else { break };
                        let before = told.begin(&call);
                        match fate {
                            Fate::Done => match mapper.perform(&call) {
                                Ok(()) => told.finish(call),
                                // A removal of what is not there is done.
                                Err(()) if matches!(call, Call::Remove(_)) => told.finish(call),
                                Err(()) => told.refuse(&call, before),
                            },
                            Fate::Unheard => drop(mapper.perform(&call)),
                            Fate::Lost => {}
                            Fate::Restart => {
                                let _ = mapper.perform(&call);
                                told = reloaded(&told);
                            }
                        }
                    }
                }
            }
        }
        let there: BTreeMap<_, _> = all.iter().map(|(name, (address, model))| wanted(*name, *address, *model)).collect();
        let expected: BTreeMap<_, _> =
            there.iter().map(|(id, wanted)| (id.clone(), (wanted.device.clone(), wanted.model.clone()))).collect();
        prop_assert_eq!(mapper.devices, expected);
        let there = there.iter().map(|(id, wanted)| (id.clone(), wanted)).collect();
        prop_assert_eq!(calls(&told, &there, true).count(), 0, "it comes to rest");
    }
}

#[test]
fn models_come_before_their_devices_and_go_after_them() {
    let (id, thing) = wanted(0, 1, 0);
    let there = BTreeMap::from([(id.clone(), &thing)]);
    let (mut told, mut said) = (Told::default(), Vec::new());
    for wanted in [&there, &BTreeMap::new()] {
        loop {
            let Some(call) = calls(&told, wanted, true).next() else { break };
            told.begin(&call);
            said.push(call.clone());
            told.finish(call);
        }
    }
    assert!(matches!(said[..], [Call::CreateModel(..), Call::Register(..), Call::Remove(_), Call::RemoveModel(_)]));
}

#[test]
fn nothing_is_removed_before_all_is_known() {
    let (id, thing) = wanted(0, 1, 0);
    let mut told = Told::default();
    told.models.insert(thing.model_id.clone(), None);
    told.devices.insert(id, ToldDevice { has: Has::Surely(Some(thing.digest)), model: thing.model_id.clone() });
    assert_eq!(calls(&told, &BTreeMap::new(), false).next(), None);
    assert!(matches!(calls(&told, &BTreeMap::new(), true).next(), Some(Call::Remove(_))));
}
