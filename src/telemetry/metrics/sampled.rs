//! Numbers that are read when somebody asks for them, and kept nowhere.
//!
//! What is read must be at hand: a scrape waits for nothing and asks no actor.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// One number of a [`Sampled`] family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// It goes up and down.
    Gauge(f64),
    /// It only goes up.
    Counter(f64),
}

/// What a family is called, and what it says.
pub type Named = (&'static str, &'static str);

/// Reads some families at once.
struct Sampled<F>(F);

impl<F> fmt::Debug for Sampled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampled")
    }
}

impl<F> Collector for Sampled<F>
where
    F: Fn() -> Vec<(Named, Sample)> + Send + Sync + 'static,
{
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        for ((name, help), sample) in (self.0)() {
            // As the registry writes those that it keeps.
            let help = format!("{help}.");
            match sample {
                Sample::Gauge(value) => {
                    let family = to.encode_descriptor(name, &help, None, MetricType::Gauge)?;
                    ConstGauge::new(value).encode(family)?;
                }
                Sample::Counter(value) => {
                    let family = to.encode_descriptor(name, &help, None, MetricType::Counter)?;
                    ConstCounter::new(value).encode(family)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads one family that has a label.
struct Labelled<F> {
    named: Named,
    label: &'static str,
    sample: F,
}

impl<F> fmt::Debug for Labelled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labelled({})", self.named.0)
    }
}

impl<F> Collector for Labelled<F>
where
    F: Fn() -> Vec<(&'static str, f64)> + Send + Sync + 'static,
{
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let (name, help) = self.named;
        let help = format!("{help}.");
        let mut family = to.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (value, number) in (self.sample)() {
            let labels = [(self.label, value)];
            ConstGauge::new(number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Adds families that `sample` reads together; one that has nothing to say leaves its family out.
pub fn sampled(
    registry: &mut Registry,
    sample: impl Fn() -> Vec<(Named, Sample)> + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Sampled(sample)));
}

/// Adds a gauge that `sample` reads.
pub fn sampled_gauge(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    sample: impl Fn() -> f64 + Send + Sync + 'static,
) {
    sampled(registry, move || {
        vec![((name, help), Sample::Gauge(sample()))]
    });
}

/// Adds a family of gauges with one label that `sample` reads.
pub fn sampled_gauges(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    sample: impl Fn() -> Vec<(&'static str, f64)> + Send + Sync + 'static,
) {
    let named = (name, help);
    registry.register_collector(Box::new(Labelled {
        named,
        label,
        sample,
    }));
}
