//! Changes by the cloud, decided by versions.

use std::collections::BTreeMap;

use kubeedge_core::{
    names::PropertyName,
    twin::{TwinValue, TwinVersion},
};

use super::{
    PropertySync, Rejected, SyncedValue,
    step::{Side, Step},
};
use crate::{
    state::Tombstone,
    value::{check_key, check_type, check_value},
};

/// Whether `offered` may replace `stored`: neither counter may go back.
///
/// Upstream: `edge/pkg/devicetwin/dtmanager/twin.go` (`dealVersion`).
fn accepts(stored: TwinVersion, offered: TwinVersion) -> bool {
    offered.cloud >= stored.cloud && offered.edge >= stored.edge
}

impl Step<'_> {
    pub(super) fn sync(&mut self, sync: BTreeMap<PropertyName, PropertySync>) -> Result<(), Rejected> {
        for (name, sync) in sync {
            check_key(name.as_str())?;
            let given = sync.value_type.as_deref();
            check_type(name.as_str(), given.unwrap_or_default())?;
            if sync.deleted {
                self.sync_deletion(&name, &sync);
                continue;
            }
            for value in [&sync.desired.value, &sync.reported.value].into_iter().flatten() {
                check_value(name.as_str(), self.type_of(&name, given), value)?;
            }
            let desired = self.sync_side(Side::Desired, &name, given, sync.desired);
            let reported = self.sync_side(Side::Reported, &name, given, sync.reported);
            if desired && reported {
                self.forbid_deletion(&name, sync.optional);
            }
        }
        Ok(())
    }

    fn stored_version(&self, side: Side, name: &PropertyName) -> Option<TwinVersion> {
        let living = self.twin.properties.get(name).map(|property| side.version(property));
        living.or_else(|| self.twin.deleted.get(name).map(|tombstone| side.version_when_deleted(tombstone)))
    }

    /// Whether the side is as the cloud says, or the cloud says nothing of it.
    fn sync_side(&mut self, side: Side, name: &PropertyName, given: Option<&str>, offered: SyncedValue) -> bool {
        let Some(value) = offered.value else { return true };
        let stored = self.stored_version(side, name);
        let version = match (stored, offered.version) {
            (stored, Some(version)) if accepts(stored.unwrap_or_default(), version) => version,
            // Nothing is known of the property and nothing comes to be known.
            (None, None) => return false,
            // The cloud's is older than the edge's: the edge tells its own.
            _ => {
                self.tell_twin = true;
                return false;
            }
        };
        let known = self.twin.properties.get(name);
        let same = known.and_then(|property| side.value(property)).is_some_and(|known| known.value == value);
        if same && stored == Some(version) {
            return true;
        }
        let at = self.now;
        side.set(self.property_mut(name, given), Some(TwinValue { value, at }), version);
        self.touch(name);
        true
    }

    /// Deletes each side that is not newer; the property goes when nothing is left of it.
    fn sync_deletion(&mut self, name: &PropertyName, sync: &PropertySync) {
        let mut versions = [TwinVersion::default(); 2];
        let mut deletes = [true; 2];
        let sides = [(Side::Desired, sync.desired.version), (Side::Reported, sync.reported.version)];
        for (index, (side, offered)) in sides.into_iter().enumerate() {
            let stored = self.stored_version(side, name).unwrap_or_default();
            let offered = offered.unwrap_or(stored);
            deletes[index] = accepts(stored, offered);
            versions[index] = if deletes[index] { offered } else { stored };
        }
        let [desired, reported] = versions;
        if let Some(property) = self.twin.properties.get(name) {
            let remains = |side: Side, deletes: bool| !deletes && side.value(property).is_some();
            if remains(Side::Desired, deletes[0]) || remains(Side::Reported, deletes[1]) {
                self.tell_twin = true;
                for (index, side) in [Side::Desired, Side::Reported].into_iter().enumerate() {
                    let known = self.twin.properties.get(name).map(|known| (side.value(known), side.version(known)));
                    if deletes[index] && known != Some((None, versions[index])) {
                        side.set(self.property_mut(name, None), None, versions[index]);
                        self.touch(name);
                    }
                }
                return;
            }
            self.twin.to_mut().properties.remove(name);
        } else if self.twin.deleted.get(name).is_some_and(|Tombstone { desired_version, reported_version, .. }| {
            (*desired_version, *reported_version) == (desired, reported)
        }) {
            self.tell_twin |= deletes != [true; 2];
            return;
        }
        self.bury(name, desired, reported);
    }
}
