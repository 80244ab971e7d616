//! What the machine is, and what a process of it used.

use std::{fs, process::Command};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

use super::Res;

/// Which cores a process may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// The first one: servers and references of lines that are measured a core each.
    First,
    /// The second one: their clients.
    Second,
    /// Every one.
    All,
}

/// How many there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Moves a process, by default this one, with all that it starts from now on. On a machine with one core
/// there is nothing to choose.
pub fn pin(process: Option<u32>, to: Cores) -> Res<()> {
    let total = fs::read_to_string("/proc/cpuinfo")?
        .matches("processor\t")
        .count();
    let mut set = CpuSet::new();
    for core in 0..total.max(1) {
        if match to {
            Cores::First => core == 0,
            Cores::Second => core == 1.min(total - 1),
            Cores::All => true,
        } {
            set.set(core);
        }
    }
    let Some(process) = process else {
        // The threads of a runtime that was made before keep their cores: each is moved.
        return threads(std::process::id(), &set);
    };
    threads(process, &set)
}

fn threads(process: u32, set: &CpuSet) -> Res<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let id: i32 = thread?.file_name().to_string_lossy().parse()?;
        if let Some(id) = Pid::from_raw(id) {
            // A thread may have ended meanwhile.
            let _ = sched_setaffinity(Some(id), set);
        }
    }
    Ok(())
}

/// CPU time that a process used so far, in seconds.
pub fn cpu(process: u32) -> Res<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything.
    let after = text.rsplit(')').next().unwrap_or_default();
    let mut fields = after.split_whitespace().skip(11);
    let mut next = || -> Res<f64> { Ok(fields.next().ok_or("no CPU time")?.parse()?) };
    // In ticks, which are hundredths of a second on every Linux that Rust runs on.
    Ok((next()? + next()?) / 100.0)
}

/// Memory of a process that is in use, in KiB.
pub fn resident(process: u32) -> Res<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

/// Connections that the system turned away because a server was too busy to accept them.
pub fn lost_connections() -> Res<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    Ok(pairs
        .filter(|(name, _)| ["ListenOverflows", "ListenDrops"].contains(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "?".to_owned(),
        |it| String::from_utf8_lossy(&it.stdout).trim().to_owned(),
    )
}

/// One line about what everything ran on.
pub fn description() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, model)| model);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        / (1024 * 1024);
    format!(
        "{} cores of {model}, {gib} GiB, Linux {}, {}, commit {}",
        cores(),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        said("git", &["describe", "--always", "--dirty"]),
    )
}
