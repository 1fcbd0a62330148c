//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

/// CPU seconds of a process and its threads so far.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    // USER_HZ is 100 on every Linux that Rust runs on.
    ticks / 100.0
}

/// The resident set, MiB.
pub(crate) fn rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("kB") / 1024.0
}

fn environment(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

/// The Erlang VM behind a broker's address.
pub(crate) fn broker_pid(url: &str) -> u32 {
    let port = url.rsplit(':').next().expect("a port");
    let node = format!("node{port}@localhost");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.split('\0').next().is_some_and(|program| program.contains("beam")) && environment(*pid).contains(&node)
    })
    .expect("the broker runs")
}

/// Waits until the broker has done with what went before: it goes on writing segments and collecting garbage for a while.
pub(crate) async fn at_rest(url: &str) {
    const LOOK: Duration = Duration::from_secs(1);
    let pid = broker_pid(url);
    loop {
        let before = cpu_seconds(pid);
        tokio::time::sleep(LOOK).await;
        if cpu_seconds(pid) - before < LOOK.as_secs_f64() / 10.0 {
            return;
        }
    }
}
