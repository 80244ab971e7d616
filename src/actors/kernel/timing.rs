//! How long things take, counted in buckets of atomics: cheap to add to from any thread, and readable
//! by the program itself.
//!
//! Owns the bounds. The registry of metrics shows a coarser set of them under names and bounds that
//! do not change; the inspector reads percentiles from all.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// The first bound, in nanoseconds; each further one is twice as long, up to 10.5 s.
const FIRST: u64 = 625;
/// How many bounds there are.
const BOUNDS: usize = 25;
/// 10 µs: the first bound that metrics show.
const SHOWN_FROM: usize = 4;
/// Metrics show every second bound.
const SHOWN_STEP: usize = 2;

/// Of the tells that find others waiting one in so many is timed, and stands for all of them.
const SAMPLE: u32 = 16;

thread_local! {
    static SAMPLER: Cell<u32> = const { Cell::new(1) };
}

/// How many tells this one stands for in the times; none if it is not timed. One that finds nothing
/// waiting stands for itself: what is rare is not left to chance.
pub(super) fn stands_for(alone: bool) -> Option<u32> {
    if alone {
        return Some(1);
    }
    // Spread evenly without a pattern that senders could be in step with.
    let next = SAMPLER.get().wrapping_mul(1_664_525);
    let next = next.wrapping_add(1_013_904_223);
    SAMPLER.set(next);
    (next < u32::MAX / SAMPLE).then_some(SAMPLE)
}

/// Times by their length. Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Timing(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// What is beyond the last bound is in the last one.
    counts: [AtomicU64; BOUNDS + 1],
    nanos: AtomicU64,
}

/// What a [`Timing`] had counted at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed([u64; BOUNDS + 1]);

const fn bound(at: usize) -> u64 {
    FIRST << at
}

/// A time in nanoseconds, without the 128 bits that the standard library counts them in.
pub(super) fn nanos(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(time.subsec_nanos()))
}

/// The bucket of a time: the first whose bound is not below it.
fn bucket(nanos: u64) -> usize {
    let units = nanos.div_ceil(FIRST).max(1);
    let at = (u64::BITS - (units - 1).leading_zeros()) as usize;
    at.min(BOUNDS)
}

impl Timing {
    /// So many things took so long each.
    pub(super) fn observe(&self, took: Duration, many: u32) {
        let (nanos, many) = (nanos(took), u64::from(many));
        self.0.counts[bucket(nanos)].fetch_add(many, Relaxed);
        self.0.nanos.fetch_add(nanos.saturating_mul(many), Relaxed);
    }

    /// What was counted so far.
    pub(super) fn so_far(&self) -> Timed {
        Timed(std::array::from_fn(|at| self.0.counts[at].load(Relaxed)))
    }
}

impl Timed {
    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_sub(earlier.0[at])
        }))
    }

    /// A time that `per_mille` of all stayed within, up to twice too long; none where nothing was
    /// counted. The longest bound stands for all beyond it.
    #[must_use]
    pub fn within(&self, per_mille: u64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let wanted = (all * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let at = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(bound(at.min(BOUNDS - 1))))
    }
}

impl EncodeMetric for Timing {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Timed(counts) = self.so_far();
        let mut shown: Vec<(f64, u64)> = Vec::new();
        let mut begin = 0;
        for at in (SHOWN_FROM..BOUNDS).step_by(SHOWN_STEP) {
            let count = counts[begin..=at].iter().sum();
            shown.push((bound(at) as f64 / 1e9, count));
            begin = at + 1;
        }
        shown.push((f64::INFINITY, counts[begin..].iter().sum()));
        let sum = self.0.nanos.load(Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &shown, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn a_time_is_within_its_bound_and_beyond_the_one_before() {
        for nanos in [1, 624, 625, 626, 1250, 1251, 10_000, 10_001, 1 << 33] {
            let at = bucket(nanos);
            assert!(nanos <= bound(at), "{nanos}");
            assert!(at == 0 || nanos > bound(at - 1), "{nanos}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }

    #[test]
    fn percentiles_are_of_what_was_counted_between() {
        let timing = Timing::default();
        assert_eq!(timing.so_far().within(500), None);
        timing.observe(Duration::from_secs(100), 1);
        let before = timing.so_far();
        timing.observe(Duration::from_micros(9), 98);
        timing.observe(Duration::from_millis(3), 1);
        timing.observe(Duration::from_millis(3), 1);
        let since = timing.so_far().since(&before);
        assert_eq!(since.within(500), Some(Duration::from_micros(10)));
        assert_eq!(since.within(990), Some(Duration::from_micros(5120)));
        let longest = before.within(500).unwrap();
        assert!(longest > Duration::from_secs(10), "{longest:?}");
    }

    #[test]
    fn what_waits_is_timed_one_in_sixteen_and_stands_for_all() {
        assert_eq!(stands_for(true), Some(1));
        let sampled: u32 = (0..160_000).filter_map(|_| stands_for(false)).sum();
        assert!((150_000..170_000).contains(&sampled), "{sampled}");
        // Also of every second and every sixteenth, whose senders may be in step.
        for step in [2, 16] {
            let each = (0..160_000).map(|_| stands_for(false)).step_by(step);
            let sampled = u32::try_from(each.flatten().count() * 16 * step).unwrap();
            assert!((120_000..200_000).contains(&sampled), "{step}: {sampled}");
        }
    }

    #[test]
    fn metrics_show_the_bounds_that_they_always_had() {
        let timing = Timing::default();
        for micros in [1, 10, 11, 40, 41] {
            timing.observe(Duration::from_micros(micros), 1);
        }
        timing.observe(Duration::from_secs(20), 1);
        let mut registry = Registry::default();
        registry.register("t", "T", timing);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "t_count 6\n",
            "t_bucket{le=\"0.00001\"} 2\n",
            "t_bucket{le=\"0.00004\"} 4\n",
            "t_bucket{le=\"0.00016\"} 5\n",
            "t_bucket{le=\"10.48576\"} 5\n",
            "t_bucket{le=\"+Inf\"} 6\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert_eq!(text.matches("t_bucket").count(), 12);
    }
}
