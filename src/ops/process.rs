//! What the operating system says of this process, under the names that Prometheus has for it. Linux only: what cannot be read is
//! left out.

use std::fmt::Write as _;
use std::fs;

/// Entries of the auxiliary vector (`<elf.h>`): ticks in a second of the times in `/proc/self/stat`.
const AT_CLKTCK: usize = 17;

/// A name, its type, what it says, and how it is read.
type Reading = (&'static str, &'static str, &'static str, fn() -> Option<f64>);

const READINGS: [Reading; 5] = [
    ("process_open_fds", "gauge", "Open file descriptors", open_files),
    ("process_max_fds", "gauge", "The most file descriptors that may be open", most_files),
    ("process_resident_memory_bytes", "gauge", "Resident memory", resident),
    ("process_cpu_seconds_total", "counter", "Processor time spent, in user and system mode", cpu_seconds),
    ("process_start_time_seconds", "gauge", "When the process started, since 1970", started),
];

/// In Prometheus's text format. Reading takes no disk.
pub(super) fn render() -> String {
    let mut text = String::new();
    for (name, kind, help, read) in READINGS {
        if let Some(value) = read() {
            // A String takes whatever is written.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
    text
}

fn open_files() -> Option<f64> {
    // The listing itself is one.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    soft.parse().ok()
}

fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.parse::<f64>().ok()? * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / ticks()?)
}

fn started() -> Option<f64> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat(22)? / ticks()?)
}

/// A field of `/proc/self/stat`, by its number in proc(5): 3 and above.
fn stat(field: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second is the program's name, which may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(field - 3)?.parse().ok()
}

fn ticks() -> Option<f64> {
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").ok()?;
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    let entries = vector.chunks_exact(2 * WORD).map(|entry| (word(&entry[..WORD]), word(&entry[WORD..])));
    let ticks = entries.into_iter().find(|(kind, _)| *kind == Some(AT_CLKTCK))?.1?;
    (ticks > 0).then_some(ticks as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells_of_this_process() {
        let all = READINGS.map(|(name, _, _, read)| (name, read().expect(name)));
        let [(_, open), (_, most), (_, resident), (_, cpu), (_, started)] = all;
        assert!((3.0..most).contains(&open), "{open} of {most}");
        assert!((1e6..1e12).contains(&resident), "{resident} bytes");
        assert!((0.0..86_400.0).contains(&cpu), "{cpu} s");
        let now = SystemClock.now().0 as f64 / 1000.0;
        assert!((now - 86_400.0..now + 2.0).contains(&started), "started at {started}, now it is {now}");
    }

    #[test]
    fn what_is_read_is_in_the_manual() {
        let manual = include_str!("../../docs/operations.md");
        for (name, ..) in READINGS {
            assert!(manual.contains(&format!("`{name}`")), "{name}");
        }
    }
}
