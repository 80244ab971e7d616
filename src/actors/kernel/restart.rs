//! When a failed actor is made anew, and when it is left alone for a while. A pure core.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The numbers by which an actor is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait before the first restart; doubled for each further failure within `window`.
    pub first_delay: Duration,
    /// The longest such wait.
    pub max_delay: Duration,
    /// Failures within `window` after which it is quarantined.
    pub budget: usize,
    /// See `budget`.
    pub window: Duration,
    /// The first quarantine; each further one is twice as long. `None`: never quarantined.
    pub quarantine: Option<Duration>,
    /// The longest quarantine.
    pub max_quarantine: Duration,
}

impl RestartPolicy {
    /// For actors of one user or device: more than 5 failures in 30 s and it rests 60 s, then twice
    /// as long, up to 10 minutes.
    pub const ENTITY: Self = Self {
        first_delay: Duration::from_millis(20),
        max_delay: Duration::from_secs(2),
        budget: 5,
        window: Duration::from_secs(30),
        quarantine: Some(Duration::from_mins(1)),
        max_quarantine: Duration::from_mins(10),
    };

    /// For actors that the whole node needs: tried again for ever, at most 5 s apart.
    pub const ROOT: Self = Self {
        max_delay: Duration::from_secs(5),
        quarantine: None,
        ..Self::ENTITY
    };
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Make it anew after this wait.
    Restart(Duration),
    /// Leave it alone for this long, then make it anew on trial.
    Quarantine(Duration),
}

/// Remembers an actor's failures; outlives the actor.
#[derive(Debug)]
pub struct RestartBudget {
    policy: RestartPolicy,
    failures: VecDeque<Instant>,
    /// The last quarantine's end and length: a failure soon after it makes the next one longer.
    last_quarantine: Option<(Instant, Duration)>,
}

impl RestartBudget {
    /// Without failures.
    #[must_use]
    pub const fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            failures: VecDeque::new(),
            last_quarantine: None,
        }
    }

    /// Failures within the window before `now`.
    #[must_use]
    pub fn recent(&self, now: Instant) -> usize {
        let window = self.policy.window;
        self.failures
            .iter()
            .filter(|at| now.saturating_duration_since(**at) < window)
            .count()
    }

    /// The actor failed at `now`.
    #[must_use]
    pub fn failed(&mut self, now: Instant) -> Verdict {
        let window = self.policy.window;
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= window)
        {
            self.failures.pop_front();
        }
        if let Some(first) = self.policy.quarantine {
            // On trial: the first failure within a window after a quarantine starts the next one.
            let on_trial = self.last_quarantine.filter(|(end, _)| now < *end + window);
            if on_trial.is_some() || self.failures.len() > self.policy.budget {
                let length = self.next_quarantine(now, first);
                self.failures.clear();
                self.last_quarantine = Some((now + length, length));
                return Verdict::Quarantine(length);
            }
        }
        // At least one failure is in the list.
        let doublings = u32::try_from(self.failures.len() - 1)
            .unwrap_or(u32::MAX)
            .min(16);
        Verdict::Restart((self.policy.first_delay * (1 << doublings)).min(self.policy.max_delay))
    }

    /// Twice the last quarantine, unless the actor held longer than the longest one since.
    fn next_quarantine(&self, now: Instant, first: Duration) -> Duration {
        match self.last_quarantine {
            Some((end, length)) if now < end + self.policy.max_quarantine => {
                (length * 2).min(self.policy.max_quarantine)
            }
            _ => first,
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start for made-up times")]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_restart_is_within_100_ms_and_waits_double() {
        let mut budget = RestartBudget::new(RestartPolicy::ENTITY);
        let now = Instant::now();
        let waits: Vec<_> = (0..5).map(|i| budget.failed(now + SEC * i)).collect();
        let expected = [20, 40, 80, 160, 320].map(|ms| Verdict::Restart(Duration::from_millis(ms)));
        assert_eq!(waits, expected);
    }

    #[test]
    fn the_sixth_failure_in_30_s_quarantines_for_60_s_then_doubles_to_10_minutes() {
        let mut budget = RestartBudget::new(RestartPolicy::ENTITY);
        let mut now = Instant::now();
        for _ in 0..5 {
            assert!(matches!(budget.failed(now), Verdict::Restart(_)));
        }
        for length in [60, 120, 240, 480, 600, 600] {
            assert_eq!(budget.failed(now), Verdict::Quarantine(SEC * length));
            now += SEC * length + SEC;
        }
    }

    #[test]
    fn failures_far_apart_are_forgiven() {
        let mut budget = RestartBudget::new(RestartPolicy::ENTITY);
        let now = Instant::now();
        for i in 0..100 {
            assert_eq!(
                budget.failed(now + SEC * 31 * i),
                Verdict::Restart(Duration::from_millis(20))
            );
        }
    }

    #[test]
    fn after_a_long_good_time_quarantine_starts_short_again() {
        let mut budget = RestartBudget::new(RestartPolicy::ENTITY);
        let mut now = Instant::now();
        for _ in 0..6 {
            let _ = budget.failed(now);
        }
        now += SEC * (60 + 601);
        for _ in 0..5 {
            assert!(matches!(budget.failed(now), Verdict::Restart(_)));
        }
        assert_eq!(budget.failed(now), Verdict::Quarantine(SEC * 60));
    }

    #[test]
    fn root_actors_are_tried_for_ever_at_most_5_s_apart() {
        let mut budget = RestartBudget::new(RestartPolicy::ROOT);
        let now = Instant::now();
        for _ in 0..50 {
            assert!(matches!(budget.failed(now), Verdict::Restart(wait) if wait <= SEC * 5));
        }
    }
}
