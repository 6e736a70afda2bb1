//! Where values go besides the twin.

use std::collections::BTreeSet;

use kubeedge_core::{device::PropertyInstance, mapper::Sample, names::PropertyName, service::Causes};

use super::{DeviceTask, now};
use crate::{
    convert,
    push::{Pushed, Way, fields_that_count},
};

impl DeviceTask {
    /// Finds the ways of properties that are new or changed.
    pub(super) fn find_ways(&mut self) {
        let mut nobody = BTreeSet::new();
        let mut found = Vec::new();
        for (name, property) in &self.properties {
            if property.ways.is_none() {
                found.push((name.clone(), self.ways_of(&property.spec, &mut nobody)));
            }
        }
        for (name, ways) in found {
            if let Some(property) = self.properties.get_mut(&name) {
                property.ways = Some(ways);
            }
        }
        for field in nobody {
            tracing::warn!(device = %self.instance.id, "pushMethod.{field} is not carried out by this mapper");
        }
    }

    fn ways_of(&self, spec: &PropertyInstance, nobody: &mut BTreeSet<&'static str>) -> Vec<Way> {
        let Some(method) = &spec.push else { return Vec::new() };
        let config = &self.shared.config;
        let mut ways = Vec::new();
        for field in fields_that_count(method) {
            let Some(publisher) = config.publishers.iter().find(|publisher| publisher.field() == field) else {
                nobody.insert(field);
                continue;
            };
            match publisher.target(method) {
                Ok(target) => ways.push(self.shared.targets.way(target, config.call_timeout, config.backoff)),
                Err(error) => {
                    let property = &spec.visitor.property;
                    tracing::warn!(device = %self.instance.id, %property, error = %Causes(&error), "values are not pushed");
                }
            }
        }
        ways
    }

    pub(super) fn push(&mut self, name: &PropertyName, sample: &Sample) {
        let Some(property) = self.properties.get_mut(name) else { return };
        let is_pushed = property.ways.as_ref().is_some_and(|ways| !ways.is_empty());
        if !is_pushed || !property.is_push_due(now()) {
            return;
        }
        let Ok(value) = convert::to_text(&sample.value, property.spec.visitor.value_type) else { return };
        let value = Pushed { device: self.instance.id.clone(), property: name.clone(), value, at: sample.at };
        for way in property.ways.iter().flatten() {
            way.offer(value.clone());
        }
    }
}
