//! One world, from its seed to its verdict.

use std::sync::{Arc, Mutex};

use rollcall::lifecycle::spawn;
use tokio::time::{Duration, sleep};

use super::damage::Damage;
use super::host::Host;
use super::net::{Net, Site};
use super::people::People;
use super::plain::Plain;
use super::plan::{LINGER_MS, SHORT_MS, WINDOW_MS};
use super::sim::Sim;
use super::storm::{Storm, start};
use super::verdict::Verdict;

/// Somebody steady says so this often.
const STEADY_MS: u64 = 2_000;

/// What the world comes to: its trace, or what broke in it.
pub fn play(seed: u64, talks: bool) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let sim = Sim::new(seed, talks);
        live(&sim).await;
        sim.verdict()
    })
}

async fn live(sim: &Arc<Sim>) {
    let (net, people) = settle(sim);
    let storm = Storm { net: net.clone(), people: people.clone() };
    sleep(Duration::from_secs(2)).await;
    storm.blow().await;
    storm.heal().await;
    if sim.is_broken() {
        return;
    }
    let watching_since = sim.elapsed();
    last_words(&people).await;
    // All that was heard is good for one short period, and a window passes until it leaves.
    sleep(Duration::from_millis(SHORT_MS + WINDOW_MS)).await;
    let verdict = Verdict { people: &people, watching_since };
    verdict.judge().await;
    if sim.plan.damages && !sim.is_broken() {
        Damage { people: people.clone() }.befall().await;
        verdict.judge().await;
    }
    everybody_leaves(&people);
    sleep(Duration::from_millis(LINGER_MS + 4 * WINDOW_MS + 3_000)).await;
    verdict.nobody_is_polled();
    verdict.nothing_waits();
}

/// Servers, senders, people.
fn settle(sim: &Arc<Sim>) -> (Arc<Net>, Arc<People>) {
    let site = |(index, make): (usize, &super::plan::Make)| match make.plain {
        true => Site::Plain(Arc::new(Plain::new(sim.clone(), index))),
        false => Site::Rollcall(Arc::new(Host::new(sim.clone(), index))),
    };
    let sites: Vec<Site> = sim.plan.servers.iter().enumerate().map(site).collect();
    let net = Arc::new(Net { sim: sim.clone(), sites, cut: Mutex::default(), garbled: Mutex::default() });
    for site in &net.sites {
        match site {
            Site::Rollcall(host) => {
                (0..sim.plan.servers[host.index].processes).for_each(|slot| start(&net, host, slot));
            }
            Site::Plain(plain) => drop(spawn("a plain server", plain.clone().run(net.clone()))),
        }
    }
    let people = Arc::new(People::new(net.clone()));
    meet(&people);
    (net, people)
}

/// Somebody at each server lists somebody at the first, who lists them: so that there is something to lose. Where something is to
/// be damaged there are two of them, one of whom talks.
fn meet(people: &Arc<People>) {
    let pairs = if people.net.sim.plan.damages { 2 } else { 1 };
    for first in &people.all[..pairs] {
        let home = people.net.host(first.server).expect("the first speaks rollcall");
        let namesakes = people.all.iter().filter(|person| person.id.localpart() == first.id.localpart());
        for person in namesakes.filter(|person| person.id != first.id) {
            if let Some(host) = people.net.host(person.server) {
                people.list(person, host, first, true);
                people.open_session(person, host, 60_000);
                people.list(first, home, person, true);
            }
        }
    }
    for person in &people.all {
        people.set_elsewhere(person);
        let Some(host) = people.net.host(person.server) else { continue };
        let make = &people.net.sim.plan.servers[host.index];
        // With several ingests a beat may overtake an event, and so it may on a queue that is in no order.
        if person.id.localpart() == "u0" && make.ingests == 1 && !people.net.sim.plan.reorders {
            people.net.sim.ledger().steady.insert(person.id.clone());
            spawn("somebody steady", stay(people.clone(), person.clone(), host.clone()));
        }
        people.set_status(person, host);
    }
}

async fn stay(people: Arc<People>, person: super::people::Person, host: Arc<Host>) {
    loop {
        people.keep_steady(&person, &host);
        sleep(Duration::from_millis(STEADY_MS)).await;
    }
}

/// Some set their status anew, some change their mind, and all look at their lists.
async fn last_words(people: &Arc<People>) {
    let sim = &people.net.sim;
    for person in &people.all {
        let Some(host) = people.net.host(person.server) else { continue };
        people.open_session(person, host, 600_000);
        match sim.between(0, 4) {
            0 | 1 => people.set_status(person, host),
            2 => people.list(person, host, &people.any(), true),
            3 => people.answer(person, host, &people.any(), sim.between(0, 1) == 0),
            _ => {}
        }
        sim.pause(0, 100).await;
    }
    // What plain servers push to whom nobody is looking at is not kept, and cannot be asked for.
    sleep(Duration::from_millis(2 * WINDOW_MS)).await;
    people.all.iter().for_each(|person| people.set_elsewhere(person));
}

fn everybody_leaves(people: &Arc<People>) {
    for person in &people.all {
        if let Some(host) = people.net.host(person.server) {
            people.close_sessions(person, host);
        }
    }
}
