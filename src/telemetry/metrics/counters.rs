//! Counters told apart by one label that has few values.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

type Label = [(&'static str, &'static str); 1];

/// A family of counters with one label; clones share the same numbers.
#[derive(Debug, Clone)]
pub struct Counters {
    label: &'static str,
    family: Family<Label, Counter>,
}

impl Counters {
    /// Registers the family. The `values` that are known beforehand are shown from the start, so that
    /// the first one counted is seen as an increase.
    pub fn register(
        registry: &mut Registry,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let it = Self {
            label,
            family: Family::default(),
        };
        for value in values {
            let _ = it.of(value);
        }
        // The encoder appends `_total`.
        registry.register(name, help, it.family.clone());
        it
    }

    /// The counter of a value, for who counts often and looks it up once.
    #[must_use]
    pub fn of(&self, value: &'static str) -> Counter {
        self.family.get_or_create_owned(&[(self.label, value)])
    }

    /// Counts one of `value`.
    pub fn inc(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }
}
