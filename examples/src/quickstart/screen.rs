//! What the tour prints.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Prints lines, coloured on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    terminal: bool,
}

impl Screen {
    /// The screen of this process.
    pub fn stdout() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A step that was seen to work, and how long it took.
    pub fn step(self, number: usize, what: &str, took: Duration) {
        self.clear_live();
        let number = self.paint("1;32", &format!("[{number}]"));
        let took = self.paint("2", &format!("({:.2} s)", took.as_secs_f64()));
        line(&format!("{number} {what} {took}"));
    }

    /// A line that explains the step above it.
    pub fn note(self, text: &str) {
        self.clear_live();
        line(&format!("    {text}"));
    }

    /// A line in bold.
    pub fn title(self, text: &str) {
        line(&self.paint("1", text));
    }

    /// What went wrong.
    pub fn failure(self, text: &str) {
        self.clear_live();
        line(&self.paint("1;31", text));
    }

    /// A line that the next one replaces; only on a terminal.
    pub fn live(self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K    {}", self.paint("36", text));
            let _ = std::io::stdout().flush();
        }
    }

    fn clear_live(self) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
    }

    /// Rows of two columns.
    pub fn table(self, rows: &[(&str, String)]) {
        let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
        for (left, right) in rows {
            let pad = " ".repeat(width - left.chars().count());
            line(&format!("  {}{pad}  {right}", self.paint("36", left)));
        }
    }
}

/// A terminal that went away is no reason to stop.
fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Draws `values` as bars between the least and the greatest of them.
pub(super) fn sparkline(values: &[f64]) -> String {
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    let span = (most - least).max(0.1);
    let bar = |value: &f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let level = ((value - least) / span * 7.0).round().clamp(0.0, 7.0) as usize;
        BARS[level]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn a_rising_value_is_a_rising_line() {
        assert_eq!(sparkline(&[10.0, 20.0, 80.0]), "▁▂█");
        assert_eq!(sparkline(&[5.0, 5.0]), "▁▁", "a constant is flat");
        assert_eq!(sparkline(&[]), "");
    }
}
