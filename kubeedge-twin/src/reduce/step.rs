//! One change on its way through a twin.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use kubeedge_core::{
    device::DeviceState,
    names::{PropertyName, UnixMillis},
    twin::{TwinPatch, TwinProperty, TwinValue, TwinVersion},
};

use super::{LAST_ONLINE_REFRESH, PropertyUpdate, Reduced, Rejected, Transition, Written, delta};
use crate::{
    state::{SpecProperty, Tombstone, TwinState},
    value::{
        DEFAULT_TYPE, DELETED_TYPE, MAX_PROPERTIES, MAX_TOMBSTONES, MAX_TWIN_LEN, check_key, check_state, check_type,
        check_value,
    },
};

/// The two values of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Desired,
    Reported,
}

impl Side {
    pub(super) fn value(self, property: &TwinProperty) -> Option<&TwinValue> {
        match self {
            Self::Desired => property.desired.as_ref(),
            Self::Reported => property.reported.as_ref(),
        }
    }

    pub(super) fn version(self, property: &TwinProperty) -> TwinVersion {
        match self {
            Self::Desired => property.desired_version,
            Self::Reported => property.reported_version,
        }
    }

    pub(super) fn version_when_deleted(self, tombstone: &Tombstone) -> TwinVersion {
        match self {
            Self::Desired => tombstone.desired_version,
            Self::Reported => tombstone.reported_version,
        }
    }

    pub(super) fn set(self, property: &mut TwinProperty, value: Option<TwinValue>, version: TwinVersion) {
        match self {
            Self::Desired => (property.desired, property.desired_version) = (value, version),
            Self::Reported => (property.reported, property.reported_version) = (value, version),
        }
    }

    fn mark(self, written: &mut Written) {
        match self {
            Self::Desired => written.desired = true,
            Self::Reported => written.reported = true,
        }
    }
}

/// Who raises a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Edge,
    Cloud,
}

fn raised(version: TwinVersion, by: By) -> TwinVersion {
    match by {
        By::Edge => TwinVersion { edge: version.edge.saturating_add(1), ..version },
        By::Cloud => TwinVersion { cloud: version.cloud.saturating_add(1), ..version },
    }
}

pub(super) struct Step<'a> {
    before: &'a TwinState,
    pub(super) twin: Cow<'a, TwinState>,
    pub(super) now: UnixMillis,
    changed: BTreeSet<PropertyName>,
    pub(super) written: BTreeMap<PropertyName, Written>,
    refused: Vec<Rejected>,
    pub(super) tell_twin: bool,
    tell_state: bool,
}

impl<'a> Step<'a> {
    pub(super) fn new(before: &'a TwinState, now: UnixMillis) -> Self {
        Self {
            before,
            twin: Cow::Borrowed(before),
            now,
            changed: BTreeSet::new(),
            written: BTreeMap::new(),
            refused: Vec::new(),
            tell_twin: false,
            tell_state: false,
        }
    }

    pub(super) fn patch(&mut self, side: Side, patch: TwinPatch) -> Result<(), Rejected> {
        for (name, change) in patch {
            check_key(name.as_str())?;
            let known = self.twin.properties.get(&name).and_then(|property| side.value(property));
            match change {
                Some(change) => {
                    let given = change.value_type.as_deref();
                    check_type(name.as_str(), given.unwrap_or_default())?;
                    // What is known has passed already, so an unchanged report costs no more than this comparison.
                    if known.is_some_and(|known| known.value == change.value) {
                        continue;
                    }
                    check_value(name.as_str(), self.type_of(&name, given), &change.value)?;
                    self.write(side, &name, given, Some(change.value), By::Edge);
                }
                None if known.is_some() => self.write(side, &name, None, None, By::Edge),
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn update(&mut self, update: BTreeMap<PropertyName, Option<PropertyUpdate>>) -> Result<(), Rejected> {
        for (name, update) in update {
            check_key(name.as_str())?;
            match update {
                Some(update) => self.update_property(&name, update)?,
                None => match self.twin.properties.get(&name) {
                    Some(property) if property.optional => self.delete(&name),
                    Some(_) => {}
                    // Asked about and not there: upstream answers with a document that says so.
                    None => {
                        self.mention(&name);
                    }
                },
            }
        }
        Ok(())
    }

    fn update_property(&mut self, name: &PropertyName, update: PropertyUpdate) -> Result<(), Rejected> {
        let given = update.value_type.as_deref();
        check_type(name.as_str(), given.unwrap_or_default())?;
        for value in [&update.desired, &update.reported].into_iter().flatten() {
            check_value(name.as_str(), self.type_of(name, given), value)?;
        }
        self.mention(name);
        if !self.twin.properties.contains_key(name) && given != Some(DELETED_TYPE) {
            self.property_mut(name, given);
            self.touch(name);
        }
        for (side, value) in [(Side::Desired, update.desired), (Side::Reported, update.reported)] {
            if value.is_some() {
                self.write(side, name, given, value, By::Edge);
            }
        }
        self.forbid_deletion(name, update.optional);
        Ok(())
    }

    pub(super) fn spec(&mut self, spec: BTreeMap<PropertyName, SpecProperty>) {
        let mut applied = BTreeMap::new();
        for (name, mut said) in spec {
            if let Err(rejected) = check_key(name.as_str()) {
                self.refused.push(rejected);
                continue;
            }
            let before = self.before.spec.get(&name).and_then(|said| said.desired.as_deref());
            if let Some(property) = self.twin.properties.get(&name)
                && property.value_type != said.value_type
            {
                self.property_mut(&name, None).value_type.clone_from(&said.value_type);
                self.touch(&name);
            }
            if said.desired.as_deref() != before {
                match &said.desired {
                    Some(desired) => match check_value(name.as_str(), &said.value_type, desired) {
                        Ok(()) => self.follow_spec(&name, &said.value_type, desired),
                        Err(rejected) => {
                            self.refused.push(rejected);
                            said.desired = before.map(str::to_owned);
                        }
                    },
                    None => self.take_back(&name, before),
                }
            }
            applied.insert(name, said);
        }
        for (name, said) in self.before.spec.iter().filter(|(name, _)| !applied.contains_key(*name)) {
            self.take_back(name, said.desired.as_deref());
        }
        if applied != self.before.spec {
            self.twin.to_mut().spec = applied;
        }
    }

    fn follow_spec(&mut self, name: &PropertyName, value_type: &str, desired: &str) {
        let known = self.twin.properties.get(name).and_then(|property| property.desired.as_ref());
        if known.is_none_or(|known| known.value != desired) {
            self.write(Side::Desired, name, Some(value_type), Some(desired.to_owned()), By::Cloud);
            value_type.clone_into(&mut self.property_mut(name, None).value_type);
        }
    }

    /// The spec no longer wants `said`. Somebody else's wish stands.
    fn take_back(&mut self, name: &PropertyName, said: Option<&str>) {
        let known = self.twin.properties.get(name).and_then(|property| property.desired.as_ref());
        if known.is_some_and(|known| said == Some(known.value.as_str())) {
            self.write(Side::Desired, name, None, None, By::Cloud);
        }
    }

    pub(super) fn state(&mut self, state: DeviceState, always: bool) -> Result<(), Rejected> {
        check_state(state.as_str())?;
        let reachable = state.is_reachable();
        let known = self.before.state.as_ref() == Some(&state);
        let refresh = i64::try_from(LAST_ONLINE_REFRESH.as_millis()).unwrap_or(i64::MAX);
        // A clock that was set back counts as old, or the time would stand still until it has caught up.
        let fresh = |seen: UnixMillis| (0..refresh).contains(&self.now.0.saturating_sub(seen.0));
        if !always && known && (!reachable || self.before.last_online.is_some_and(fresh)) {
            return Ok(());
        }
        let twin = self.twin.to_mut();
        twin.state = Some(state);
        twin.last_online = reachable.then_some(self.now);
        self.tell_state = true;
        Ok(())
    }

    /// The type of `name`: what the device model declares, else what the property has, else what its writer says.
    pub(super) fn type_of<'b>(&'b self, name: &PropertyName, given: Option<&'b str>) -> &'b str {
        let declared = self.twin.spec.get(name).map(|said| said.value_type.as_str());
        let existing = || self.twin.properties.get(name).map(|property| property.value_type.as_str());
        let given = given.filter(|word| !word.is_empty() && *word != DELETED_TYPE);
        declared.or_else(existing).or(given).unwrap_or(DEFAULT_TYPE)
    }

    /// The property, created or brought back to life if it is not there.
    pub(super) fn property_mut(&mut self, name: &PropertyName, given: Option<&str>) -> &mut TwinProperty {
        let value_type = self.type_of(name, given).to_owned();
        let TwinState { properties, deleted, .. } = self.twin.to_mut();
        properties.entry(name.clone()).or_insert_with(|| {
            let Tombstone { desired_version, reported_version, .. } = deleted.remove(name).unwrap_or_default();
            TwinProperty {
                desired: None,
                reported: None,
                value_type,
                optional: true,
                desired_version,
                reported_version,
            }
        })
    }

    pub(super) fn forbid_deletion(&mut self, name: &PropertyName, optional: Option<bool>) {
        if optional == Some(false) && self.twin.properties.get(name).is_some_and(|property| property.optional) {
            self.property_mut(name, None).optional = false;
            self.touch(name);
        }
    }

    fn write(&mut self, side: Side, name: &PropertyName, given: Option<&str>, value: Option<String>, by: By) {
        let at = self.now;
        let property = self.property_mut(name, given);
        let version = raised(side.version(property), by);
        side.set(property, value.map(|value| TwinValue { value, at }), version);
        side.mark(self.mention(name));
        self.touch(name);
    }

    fn delete(&mut self, name: &PropertyName) {
        let Some(property) = self.twin.to_mut().properties.remove(name) else { return };
        let buried = |side: Side| match (side.value(&property), side.version(&property)) {
            (None, never) if never == TwinVersion::default() => never,
            (_, version) => raised(version, By::Edge),
        };
        self.bury(name, buried(Side::Desired), buried(Side::Reported));
    }

    /// Leaves a tombstone for a property that is gone from the twin.
    pub(super) fn bury(&mut self, name: &PropertyName, desired_version: TwinVersion, reported_version: TwinVersion) {
        let tombstone = Tombstone { desired_version, reported_version, at: self.now };
        let deleted = &mut self.twin.to_mut().deleted;
        deleted.insert(name.clone(), tombstone);
        while deleted.len() > MAX_TOMBSTONES {
            let oldest = deleted.iter().min_by_key(|(_, tombstone)| tombstone.at).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| deleted.remove(&oldest));
        }
        self.mention(name).deleted = true;
        self.touch(name);
    }

    /// The change is about `name`, whether it writes something or not.
    pub(super) fn mention(&mut self, name: &PropertyName) -> &mut Written {
        self.written.entry(name.clone()).or_default()
    }

    /// The property is not what it was.
    pub(super) fn touch(&mut self, name: &PropertyName) {
        self.mention(name);
        self.changed.insert(name.clone());
        self.tell_twin = true;
    }

    pub(super) fn finish(self) -> Result<Reduced<'a>, Rejected> {
        if let Cow::Owned(twin) = &self.twin {
            // A twin that is too large already (limits may shrink) can still be changed, as long as it does not grow.
            let (count, bytes) = (twin.properties.len(), size(twin));
            if count > MAX_PROPERTIES && count > self.before.properties.len() {
                return Err(Rejected::TooMany { count });
            }
            if bytes > MAX_TWIN_LEN && bytes > size(self.before) {
                return Err(Rejected::TooLarge { bytes });
            }
        }
        let transition = |name: &PropertyName| Transition {
            last: self.before.properties.get(name).cloned(),
            current: self.twin.properties.get(name).cloned(),
        };
        Ok(Reduced {
            document: self.written.keys().map(|name| (name.clone(), transition(name))).collect(),
            delta: delta(&self.twin),
            changed: self.changed,
            written: self.written,
            refused: self.refused,
            tell_twin: self.tell_twin,
            tell_state: self.tell_state,
            twin: self.twin,
        })
    }
}

fn size(twin: &TwinState) -> usize {
    let value = |value: &Option<TwinValue>| value.as_ref().map_or(0, |value| value.value.len());
    let properties = twin.properties.iter();
    properties.map(|(name, property)| name.as_str().len() + value(&property.desired) + value(&property.reported)).sum()
}
