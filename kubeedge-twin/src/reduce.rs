//! The pure reducer: a twin and a change give the next twin, and what there is to tell about it.

mod step;
mod sync;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kubeedge_core::{
    device::DeviceState,
    names::{PropertyName, UnixMillis},
    twin::{Delta, TwinError, TwinPatch, TwinProperty, TwinVersion},
};

use self::step::{Side, Step};
use crate::{
    state::{SpecProperty, TwinState},
    value,
};

/// How old `last_online` may become before a repeated report of the same state is stored and told again.
pub const LAST_ONLINE_REFRESH: Duration = Duration::from_secs(60);

/// Something that happens to a twin.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A mapper tells values of the device. A value that is known already changes nothing; a property that is not there
    /// is created, first value included; `None` removes the value.
    Report(TwinPatch),
    /// Somebody on the node wants values. As for [`Change::Report`].
    Desire(TwinPatch),
    /// An application's `twin/update`. Every value counts as a change, even the same one, as upstream has it; `None`
    /// deletes the property if it is optional.
    Update(BTreeMap<PropertyName, Option<PropertyUpdate>>),
    /// The cloud's `twin/cloud_updated`: versions decide, per property and side.
    ///
    /// A side is accepted if neither of its two versions is older than the stored one. Syncs whose versions follow one
    /// another may arrive in any order and as often as they like: values and versions end the same. Deletion is the
    /// acceptance of "no value" on both sides.
    CloudSync(BTreeMap<PropertyName, PropertySync>),
    /// All properties of the Device object. A desired value that the spec did not say last time becomes the desired
    /// value; one that it only repeats overwrites nothing. What the spec takes back is taken back if nobody has
    /// changed it since.
    Spec(BTreeMap<PropertyName, SpecProperty>),
    /// A mapper tells the state of the device. The same state again changes nothing, except that `last_online` is
    /// brought up to date every [`LAST_ONLINE_REFRESH`].
    ReportState(DeviceState),
    /// An application's `state/update`. Every one counts.
    UpdateState(DeviceState),
}

/// What an application wants of one property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyUpdate {
    /// New desired value.
    pub desired: Option<String>,
    /// New reported value.
    pub reported: Option<String>,
    /// Type of a property that is not there yet; of others it is ignored.
    pub value_type: Option<String>,
    /// `false` makes the property one that cannot be deleted over MQTT, for good.
    pub optional: Option<bool>,
}

/// What the cloud says of one property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertySync {
    /// Desired value.
    pub desired: SyncedValue,
    /// Reported value.
    pub reported: SyncedValue,
    /// Type of a property that is not there yet.
    pub value_type: Option<String>,
    /// `false` makes the property one that cannot be deleted over MQTT.
    pub optional: Option<bool>,
    /// The property is deleted. Without a version, a side is deleted whatever its version is.
    pub deleted: bool,
}

/// A value with the version that the cloud gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncedValue {
    /// The value; without one the side is not touched.
    pub value: Option<String>,
    /// Its version; without one the value is not accepted.
    pub version: Option<TwinVersion>,
}

/// A change that is refused as a whole: the twin stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The name cannot be the key of a twin.
    #[error("property {property:?} has a name that cannot be a key of a twin")]
    Key {
        /// The name.
        property: String,
    },
    /// No value can have this type.
    #[error("property {property:?} has type {word:?}, which is none")]
    Type {
        /// The property.
        property: String,
        /// The type.
        word: String,
    },
    /// The value is not one of its type, too long or not printable.
    #[error("property {property:?}: {reason}")]
    Value {
        /// The property.
        property: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The state is not a short printable word.
    #[error("state {word:?} is not a short printable word")]
    State {
        /// The state.
        word: String,
    },
    /// The twin would have too many properties.
    #[error("the twin would have {count} properties")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The twin would become too large.
    #[error("the twin would have {bytes} bytes of names and values")]
    TooLarge {
        /// How large.
        bytes: usize,
    },
}

impl Rejected {
    /// The reason in the words of the MQTT wire, upstream's where it has one.
    pub fn reason(&self) -> String {
        match self {
            Self::Key { .. } => "The key of twin must only include upper or lowercase letters, number, english, and \
                                 special letter - _ . , : / @ # and the length of key should be less than 128 bytes"
                .into(),
            Self::Type { .. } => "the value type is not allowed".into(),
            Self::Value { reason, .. } => (*reason).into(),
            Self::State { .. } | Self::TooMany { .. } | Self::TooLarge { .. } => self.to_string(),
        }
    }
}

impl From<Rejected> for TwinError {
    fn from(rejected: Rejected) -> Self {
        let reason = rejected.reason();
        let property = match rejected {
            Rejected::Key { property } | Rejected::Type { property, .. } | Rejected::Value { property, .. } => property,
            Rejected::State { .. } => "state".into(),
            Rejected::TooMany { .. } | Rejected::TooLarge { .. } => "twin".into(),
        };
        Self::Invalid { property, reason }
    }
}

/// Which values of a property a change wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The desired one.
    pub desired: bool,
    /// The reported one.
    pub reported: bool,
    /// The property was deleted.
    pub deleted: bool,
}

/// A property before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before; `None` if it was not there.
    pub last: Option<TwinProperty>,
    /// After; `None` if it is not there.
    pub current: Option<TwinProperty>,
}

/// The effects of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduced<'a> {
    /// The next twin; borrowed if there is nothing to store.
    pub twin: Cow<'a, TwinState>,
    /// Properties whose values or type are no longer what they were.
    pub changed: BTreeSet<PropertyName>,
    /// Properties that the change was about, with the values that it wrote.
    pub written: BTreeMap<PropertyName, Written>,
    /// Last and current state of what the change was about.
    pub document: BTreeMap<PropertyName, Transition>,
    /// Desired values that the device has not reached.
    pub delta: Delta,
    /// Parts that were left out, of changes whose other parts must not suffer for it ([`Change::Spec`]).
    pub refused: Vec<Rejected>,
    /// The cloud has to be told the values of the twin: they changed, or the cloud's were older.
    pub tell_twin: bool,
    /// The cloud has to be told the state of the device.
    pub tell_state: bool,
}

impl Reduced<'_> {
    /// Whether there is something to store.
    pub fn is_changed(&self) -> bool {
        matches!(self.twin, Cow::Owned(_))
    }
}

/// Applies `change`, which happens at `now`, to `twin`.
///
/// Values written at the node are stamped with `now`, whatever their writer says, and raise the edge's version by one;
/// values of the spec raise the cloud's.
///
/// # Errors
/// [`Rejected`] if any part of the change is not acceptable; then nothing of it is done.
///
/// Upstream: `edge/pkg/devicetwin/dtmanager/twin.go`.
pub fn reduce(twin: &TwinState, change: Change, now: UnixMillis) -> Result<Reduced<'_>, Rejected> {
    let mut step = Step::new(twin, now);
    match change {
        Change::Report(patch) => step.patch(Side::Reported, patch)?,
        Change::Desire(patch) => step.patch(Side::Desired, patch)?,
        Change::Update(update) => step.update(update)?,
        Change::CloudSync(sync) => step.sync(sync)?,
        Change::Spec(spec) => step.spec(spec),
        Change::ReportState(state) => step.state(state, false)?,
        Change::UpdateState(state) => step.state(state, true)?,
    }
    step.finish()
}

/// The desired values that the device has not reached. Numbers are compared as numbers, all else as text.
pub fn delta(twin: &TwinState) -> Delta {
    let missing = |property: &TwinProperty| {
        let desired = property.desired.as_ref().filter(|desired| !desired.value.is_empty())?;
        let reached = property
            .reported
            .as_ref()
            .is_some_and(|reported| value::agree(&property.value_type, &desired.value, &reported.value));
        (!reached).then(|| desired.value.clone())
    };
    twin.properties.iter().filter_map(|(name, property)| Some((name.clone(), missing(property)?))).collect()
}
