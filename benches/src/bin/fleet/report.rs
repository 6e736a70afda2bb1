//! What is told at the end of a scenario.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// Figures by name, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(String, Value)>);

impl Report {
    pub(crate) fn new(scenario: &str, label: &str) -> Self {
        let report = Self::default().with("scenario", scenario);
        if label.is_empty() { report } else { report.with("label", label) }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // Numbers and maps with text keys: this cannot fail.
        self.0.push((name.to_owned(), serde_json::to_value(value).unwrap_or_default()));
        self
    }

    /// A fraction, with two digits.
    pub(crate) fn number(self, name: &str, value: f64) -> Self {
        self.with(name, (value * 100.0).round() / 100.0)
    }

    /// The line for programs to standard output, the table for people to standard error.
    pub(crate) fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
        for (name, value) in &self.0 {
            match value {
                Value::Object(members) => {
                    let members: Vec<_> = members.iter().map(|(name, value)| format!("{name} {value}")).collect();
                    eprintln!("  {name:<24} {}", members.join(", "));
                }
                value => eprintln!("  {name:<24} {value}"),
            }
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
