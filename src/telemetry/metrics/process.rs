//! What operators expect to know of a process, as Linux tells it.

use std::fs;

use prometheus_client::registry::Registry;
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::sampled::{Named, Sample, sampled};

const RESIDENT: Named = ("process_resident_memory_bytes", "Memory in use");
const THREADS: Named = ("process_threads", "Threads");
const CPU: Named = ("process_cpu_seconds", "Processor time used");
const OPEN_FILES: Named = ("process_open_fds", "Open files");
const MAX_FILES: Named = ("process_max_fds", "Files that may be open");
const START: Named = ("process_start_time_seconds", "Start, in Unix time");

/// Registers the families; `started` is in microseconds of Unix time.
#[expect(
    clippy::cast_precision_loss,
    reason = "good to the microsecond until the year 2255"
)]
pub(super) fn register(registry: &mut Registry, started: i64) {
    let started = started as f64 / 1e6;
    sampled(registry, move || {
        let mut samples = vec![
            (CPU, Sample::Counter(cpu_seconds())),
            (START, Sample::Gauge(started)),
        ];
        // Where the system does not tell something, it is left out.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = field(&status, "VmRSS:").map(|kib| kib * 1024.0);
        let files = [
            (RESIDENT, resident),
            (THREADS, field(&status, "Threads:")),
            (OPEN_FILES, open_files()),
            (MAX_FILES, max_files()),
        ];
        let told = files.into_iter().filter_map(|(it, n)| Some((it, n?)));
        samples.extend(told.map(|(it, n)| (it, Sample::Gauge(n))));
        samples
    });
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since the start are few"
)]
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "files are few")]
fn open_files() -> Option<f64> {
    // Since Linux 6.2 the folder says how many there are, without a look at each.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        told => Some(told as f64),
    }
}

#[expect(clippy::cast_precision_loss, reason = "files are few")]
fn max_files() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(|n| n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_all_of_it() {
        let mut registry = Registry::default();
        register(&mut registry, 12_500_000);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") > 0.0);
        let (open, most) = (value("process_open_fds"), value("process_max_fds"));
        assert!(3.0 <= open && open < most, "{open} of {most}");
        assert!((value("process_start_time_seconds") - 12.5).abs() < 1e-9);
    }
}
