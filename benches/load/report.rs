//! What is printed: medians, spreads, and the table.

use std::{fmt::Write as _, time::Duration};

/// The figures of one side of a line, one a round.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Rates, or whatever the line measures.
    pub values: Vec<f64>,
    /// CPU time of the server for one operation, in µs.
    pub cpu_us: Vec<f64>,
}

impl Figures {
    /// Adds a round: so many operations in so long, for so many seconds of CPU.
    pub fn add(&mut self, round: &Round) {
        self.values.push(round.rate());
        self.cpu_us
            .push(round.cpu * 1e6 / round.count.max(1) as f64);
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    fn show(&self, unit: &str) -> String {
        if self.values.is_empty() {
            return "–".to_owned();
        }
        let spread = |of: &[f64]| {
            let low = of.iter().copied().fold(f64::INFINITY, f64::min);
            let high = of.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!("{}–{}", show(low), show(high))
        };
        let mut text = format!(
            "**{}**{unit} ({})",
            show(self.median()),
            spread(&self.values)
        );
        if !self.cpu_us.is_empty() {
            let _ = write!(text, ", {} µs CPU", show(median(&self.cpu_us)));
        }
        text
    }
}

/// One side of a line in one round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Operations that were done.
    pub count: u64,
    /// In how long.
    pub took: Duration,
    /// CPU time that the server used for them, in seconds.
    pub cpu: f64,
}

impl Round {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Waiting times of single operations.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<u32>);

impl Times {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// All of another's.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The value in ms that this part of them is not above.
    pub fn part(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let at = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
        self.0
            .get(at)
            .map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
    }

    /// For people.
    pub fn show(&mut self) -> String {
        format!(
            "P50 {:.1} ms, P99 {:.1} ms",
            self.part(0.5),
            self.part(0.99)
        )
    }
}

/// A line of the table.
#[derive(Debug, Default)]
pub struct Line {
    /// What is measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Ours.
    pub ours: Figures,
    /// What it is compared with, if anything.
    pub reference: Option<(String, Figures)>,
    /// What it should be.
    pub goal: String,
    /// Whether it is.
    pub met: Option<bool>,
    /// More about it.
    pub notes: Vec<String>,
}

impl Line {
    /// Ours as a part of the reference, of the medians of both.
    pub fn ratio(&self) -> f64 {
        let (_, reference) = self
            .reference
            .as_ref()
            .map_or(("", None), |(n, f)| (n, Some(f)));
        reference.map_or(f64::NAN, |it| self.ours.median() / it.median())
    }

    /// As a row of the table.
    pub fn row(&self) -> String {
        let (reference, ratio) = match &self.reference {
            None => ("–".to_owned(), "–".to_owned()),
            Some((name, figures)) => {
                let ratio = format!("{:.2}", self.ratio());
                (format!("{name}: {}", figures.show(self.unit)), ratio)
            }
        };
        let goal = match self.met {
            None => self.goal.clone(),
            Some(true) => format!("{}: met", self.goal),
            Some(false) => format!("{}: **missed**", self.goal),
        };
        let mut ours = self.ours.show(self.unit);
        for note in &self.notes {
            let _ = write!(ours, "; {note}");
        }
        format!(
            "| {} | {ours} | {reference} | {ratio} | {goal} |",
            self.name
        )
    }
}

/// The middle one; of an even number the lower.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// A number with three digits that mean something, and commas.
pub fn show(number: f64) -> String {
    if !number.is_finite() {
        return "?".to_owned();
    }
    if number.abs() < 100.0 {
        let digits = if number.abs() < 1.0 {
            3
        } else if number.abs() < 10.0 {
            2
        } else {
            1
        };
        return format!("{number:.digits$}");
    }
    let whole = (number.round() as i64).to_string();
    let mut text = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
