//! What befalls the world while the storm lasts, and how it is healed.

use std::sync::Arc;

use rollcall::bus::{Exchange, Outgoing, Queue};
use rollcall::lifecycle::spawn;
use rollcall::model::Partition;
use rollcall::wire::contract::encode_job;
use rollcall::wire::envelope::Job;
use tokio::time::{Duration, sleep};

use super::host::Host;
use super::net::{Net, Sender};
use super::people::People;
use super::sim::Sim;

/// What nobody can understand: it bears the version of the envelope, since a later one is no poison.
pub const POISON: &str = "\u{1}poison";

/// See the module.
pub struct Storm {
    pub net: Arc<Net>,
    pub people: Arc<People>,
}

/// A process with everything, in a slot of a server.
pub fn start(net: &Arc<Net>, host: &Arc<Host>, slot: usize) {
    let (life, bus) = host.start(slot);
    let sender = Sender { net: net.clone(), host: host.clone(), life, bus };
    spawn("sender", sender.run());
}

impl Storm {
    fn sim(&self) -> &Sim {
        &self.net.sim
    }

    /// Blows until its time is over, or something broke.
    pub async fn blow(&self) {
        let sim = &self.net.sim;
        sim.set_calm(false);
        let end = sim.elapsed() + sim.plan.storm_ms;
        while sim.elapsed() < end && !sim.is_broken() {
            sim.pause(20, 400).await;
            self.people.act();
            self.strike();
            self.raise_the_dead();
        }
    }

    fn strike(&self) {
        let blows = self.sim().plan.blows;
        let host = self.people.any_of_ours().1;
        let slot = self.sim().rng().usize(..host.lives().len());
        if self.sim().strikes(blows.crash) {
            host.kill(slot);
        }
        if self.sim().strikes(blows.restart) {
            spawn("a restart", restart(host.clone(), slot));
        }
        if self.sim().strikes(blows.pause) {
            self.pause(&host, slot);
        }
        if self.sim().strikes(blows.partition) {
            self.cut();
        }
        if self.sim().strikes(blows.unroutable) {
            self.lose_a_queue(&host);
        }
        if self.sim().strikes(blows.clock_step) {
            self.shake_clocks(&host);
        }
        if self.sim().strikes(blows.restore) {
            self.back_up_or_restore(&host);
        }
        if self.sim().strikes(blows.job) {
            let jobs = [Job::Compact, Job::Expire, Job::Audit, Job::Probe, Job::Statistics];
            let job = encode_job(jobs[self.sim().rng().usize(..jobs.len())], self.sim().now());
            host.broker.lock().unwrap().put(&Queue::Inbound, Outgoing::new(Exchange::Inbound, "beat", job));
        }
        if self.sim().strikes(blows.poison) {
            let queues =
                [Queue::Inbound, Queue::Users(Partition(0)), Queue::Peers(Partition(0)), Queue::Batch(Partition(0))];
            host.poison(&queues[self.sim().rng().usize(..4)], POISON);
        }
    }

    /// The system closes the connections of the dead; after a while somebody takes their place.
    fn raise_the_dead(&self) {
        for host in self.net.hosts() {
            host.bury_the_dead();
            for slot in host.vacant() {
                if self.sim().strikes(150) {
                    start(&self.net, host, slot);
                }
            }
        }
    }

    /// Long enough, at times, for somebody else to take over, and for the broker to notice.
    fn pause(&self, host: &Arc<Host>, slot: usize) {
        let (life, ms) = (host.lives()[slot].clone(), self.sim().between(200, 16_000));
        self.sim().note(ms, || format!("{life:?} sleeps for {ms} ms"));
        life.pause(ms);
        let host = host.clone();
        spawn("heartbeats", async move {
            host.sim.pause(5_000, 10_000).await;
            if life.is_paused() {
                host.disconnect(&life);
            }
        });
    }

    fn cut(&self) {
        let count = self.sim().plan.servers.len();
        let mut rng = self.sim().rng();
        let (a, b, ms, both) = (rng.usize(..count), rng.usize(..count), rng.u64(500..=20_000), rng.bool());
        drop(rng);
        self.sim().note(ms, || format!("s{a} -> s{b} is cut for {ms} ms, both ways: {both}"));
        let ways = if both { vec![(a, b), (b, a)] } else { vec![(a, b)] };
        self.net.cut.lock().unwrap().extend(ways.iter().copied());
        let net = self.net.clone();
        spawn("a cut", async move {
            sleep(Duration::from_millis(ms)).await;
            net.cut.lock().unwrap().retain(|way| !ways.contains(way));
        });
    }

    fn lose_a_queue(&self, host: &Arc<Host>) {
        let partition = Partition(self.sim().rng().u16(..host.config.partitions));
        // Of those to which nobody but workers publishes: what others cannot publish is a dead letter, as it should be.
        let queue = if self.sim().rng().bool() { Queue::Batch(partition) } else { Queue::Outbound };
        self.sim().note(11, || format!("s{} has no {queue} for a while", host.index));
        host.broker.lock().unwrap().missing.insert(queue.clone());
        let host = host.clone();
        spawn("a lost queue", async move {
            host.sim.pause(100, 4_000).await;
            host.broker.lock().unwrap().missing.remove(&queue);
        });
    }

    fn shake_clocks(&self, host: &Host) {
        let make = &self.sim().plan.servers[host.index];
        if !make.shaky {
            return;
        }
        for life in host.lives() {
            let step = self.sim().rng().i64(-600_000..=600_000);
            self.sim().note(12, || format!("the clock of {life:?} steps to {step} ms"));
            life.step_clock(make.offset_ms + step);
        }
    }

    fn back_up_or_restore(&self, host: &Arc<Host>) {
        // Whoever restores a backup takes longer than that: an epoch that is of this second, or ahead of the clock, would be used again.
        let newest = host.tables.lock().unwrap().newest_epoch();
        if newest >= self.sim().now().0 / 1000 || !host.restore_from_backup() {
            host.back_up();
        }
    }

    /// Nothing fails any longer, and everybody runs.
    pub async fn heal(&self) {
        let sim = self.sim();
        sim.set_calm(true);
        sim.note(13, || "the storm is over".into());
        self.net.cut.lock().unwrap().clear();
        for host in self.net.hosts() {
            let mut broker = host.broker.lock().unwrap();
            broker.missing.clear();
            broker.bring_all_back();
            drop(broker);
            host.lives().iter().for_each(|life| {
                life.pause(0);
                life.step_clock(sim.plan.servers[host.index].offset_ms);
            });
            host.bury_the_dead();
            host.vacant().into_iter().for_each(|slot| start(&self.net, host, slot));
        }
        // Until the last that broke off is tried again, and the slowest commit is done.
        sleep(Duration::from_millis(10_000)).await;
        self.net.hosts().for_each(|host| host.vacant().into_iter().for_each(|slot| start(&self.net, host, slot)));
    }
}

/// Asks a process to leave, and waits for it; the storm fills the place.
async fn restart(host: Arc<Host>, slot: usize) {
    let life = host.lives()[slot].clone();
    host.sim.note(14, || format!("{life:?} is asked to leave"));
    life.stop.cancel();
    host.sim.pause(500, 3_000).await;
    life.kill();
    host.bury_the_dead();
}
