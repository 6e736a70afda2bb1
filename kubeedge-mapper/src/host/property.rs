use kubeedge_core::device::{AccessMode, PropertyInstance};

use super::wish::Wish;

/// What a device task knows of a property.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) spec: PropertyInstance,
    pub(super) wish: Wish,
    /// Failed reads in a row: those that work are read first.
    pub(super) failures: u32,
    complaint: Option<String>,
}

impl Property {
    pub(super) fn new(spec: PropertyInstance) -> Self {
        Self { spec, wish: Wish::new(), failures: 0, complaint: None }
    }

    /// The property as it is specified now; what is known of it is kept if it is found at the same place.
    pub(super) fn respecified(mut self, spec: &PropertyInstance) -> Self {
        if self.spec.visitor != spec.visitor {
            return Self::new(spec.clone());
        }
        if (&self.spec.minimum, &self.spec.maximum, self.spec.access) != (&spec.minimum, &spec.maximum, spec.access) {
            // What was refused may be allowed now.
            self.wish.doubt();
        }
        self.spec = spec.clone();
        self
    }

    pub(super) fn is_writable(&self) -> bool {
        self.spec.access == AccessMode::ReadWrite
    }

    /// Whether `complaint` is news, and worth a line in the log.
    pub(super) fn complain(&mut self, complaint: String) -> bool {
        if self.complaint.as_ref() == Some(&complaint) {
            return false;
        }
        self.complaint = Some(complaint);
        true
    }

    pub(super) fn all_well(&mut self) {
        self.failures = 0;
        self.complaint = None;
    }
}
