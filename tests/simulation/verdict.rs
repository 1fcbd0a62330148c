//! What must hold once the storm is over and all is quiet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rollcall::bus::Queue;
use rollcall::config::ListAccept;
use rollcall::core::Settings;
use rollcall::core::rows::{Relations, ServedRow, user_key};
use rollcall::model::{Partition, Presence, ServerName, Status, UserId};
use rollcall::store::RowKind;
use rollcall::wire::envelope::decode;

use super::bounds;
use super::broker::Message;
use super::host::Host;
use super::net::Site;
use super::people::{People, Person};
use super::sim::Sim;
use super::storm::POISON;
use super::truth::Sees;
use super::watch::home_of;

/// Packets of a committed run wait for others for 200 ms at most, and for a confirm: in calm, ms.
const SAID_WITHIN_MS: u64 = 300;

/// See the module.
pub struct Verdict<'a> {
    pub people: &'a People,
    /// Who has a session since then, ms.
    pub watching_since: u64,
}

impl Verdict<'_> {
    fn sim(&self) -> &Sim {
        &self.people.net.sim
    }

    /// Everybody who may see somebody sees them as they are, and nobody else does.
    pub async fn judge(&self) {
        if self.people.unconfirmed() > 0 {
            self.sim().blame(format!("{} events were never confirmed", self.people.unconfirmed()));
        }
        for person in &self.people.all {
            self.own_status(person);
            if let Some(host) = self.people.net.host(person.server) {
                self.list(person, host).await;
            }
        }
        for host in self.people.net.hosts() {
            self.queues(host);
            self.promises(host);
        }
        for site in &self.people.net.sites {
            let Site::Plain(plain) = site else { continue };
            for person in &self.people.all {
                self.seen_elsewhere(person, plain.index, plain.known(&person.id).as_ref());
            }
        }
    }

    /// What an edge confirmed is not lost.
    fn own_status(&self, person: &Person) {
        let ledger = self.sim().ledger();
        if self.people.net.host(person.server).is_none() || ledger.is_shaky(person.server) {
            return;
        }
        let Some((set, since)) = ledger.truth.newest_message(&person.id) else { return };
        let told = ledger.told.get(&person.id).and_then(|told| told.status.status_msg.clone());
        let remembered = ledger.remembers(person.server, since);
        drop(ledger);
        if remembered && told.as_deref() != Some(&*set) {
            self.sim().blame(format!("{} set {set} and is {told:?}", person.id));
        }
    }

    async fn list(&self, person: &Person, host: &Arc<Host>) {
        let now = rollcall::clock::Clock::now(&*host.lives()[0]);
        let list = host.reader().list(&person.id, now).await.expect("a table that never fails");
        for (of, accepted, known) in list {
            let home = home_of(self.sim(), &of);
            let plain = self.people.net.host(home).is_none();
            let ledger = self.sim().ledger();
            if ledger.is_shaky(host.index) || ledger.is_shaky(home) {
                continue;
            }
            let forgot = [host.index, home].iter().any(|server| ledger.restored.contains_key(server));
            let sees = if plain { Sees::Yes } else { ledger.truth.sees(&person.id, &of, home) };
            drop(ledger);
            if forgot && !plain {
                // What was said of permission may be forgotten on one side: where both still mean the same it must hold.
                if accepted && self.lets(&of, home, &person.id) {
                    self.shows(person, &of, true, &known.status);
                }
                continue;
            }
            match sees {
                Sees::Yes => self.shows(person, &of, accepted || plain, &known.status),
                Sees::Perhaps if accepted => self.shows(person, &of, true, &known.status),
                Sees::No if accepted || known.status.presence != Presence::Unknown => {
                    self.sim().blame(format!("{} sees {of}, who does not let them", person.id));
                }
                Sees::Perhaps | Sees::No => {}
            }
        }
    }

    /// Whether the rows of the user's own server let `observer` see them.
    fn lets(&self, user: &UserId, home: usize, observer: &UserId) -> bool {
        let Some(host) = self.people.net.host(home) else { return true };
        relations(host, user).may_see(observer, Settings::from(&host.config).rules())
    }

    fn shows(&self, person: &Person, of: &UserId, accepted: bool, known: &Status) {
        let ledger = self.sim().ledger();
        let told = ledger.told.get(of).map(|told| told.status.clone()).unwrap_or_default();
        let to_peers = !of.belongs_to(&person.id.server());
        let is_moving = ledger.told.get(of).is_some_and(|told| told.is_on_its_way(self.sim().elapsed(), to_peers));
        let update = ledger.shown.get(&(person.id.clone(), of.clone())).cloned();
        drop(ledger);
        if !accepted {
            return self.sim().blame(format!("{} was never accepted by {of}", person.id));
        }
        // What time changes just now is on its way.
        if is_moving {
            return;
        }
        if !looks_like(known, &told) {
            self.sim().blame(format!("{} sees {of} as {}, and they are {}", person.id, words(known), words(&told)));
        }
        // Who was told nothing since the session began has read the list.
        let Some((_, update)) = update.filter(|(at, _)| *at >= self.watching_since) else { return };
        if !looks_like(&update, &told) {
            self.sim().blame(format!(
                "clients of {} were told {of} is {}, and they are {}",
                person.id,
                words(&update),
                words(&told)
            ));
        }
    }

    fn seen_elsewhere(&self, person: &Person, plain: usize, known: Option<&serde_json::Value>) {
        let ledger = self.sim().ledger();
        let make = &self.sim().plan.servers[person.server];
        let promised = self.people.all.iter().any(|other| {
            other.server == plain
                && ledger.truth.lists(&person.id, &other.id)
                && ledger.truth.sees(&other.id, &person.id, person.server) == Sees::Yes
        });
        if make.plain || !promised || !make.symmetric || ledger.is_shaky(person.server) {
            return;
        }
        // Who does not ask is told again only when it is about to forget.
        if ledger.restored.contains_key(&person.server) {
            return;
        }
        let told = ledger.told.get(&person.id).map(|told| told.status.clone()).unwrap_or_default();
        drop(ledger);
        let message = known.and_then(|known| known["status_msg"].as_str());
        if message != told.status_msg.as_deref() {
            self.sim().blame(format!("s{plain} was told {message:?} of {}, who is {}", person.id, words(&told)));
        }
    }

    /// Nothing lies about but a little that is on its way, and what was put aside is what was put there to be, all of it.
    fn queues(&self, host: &Host) {
        let broker = host.broker.lock().unwrap();
        let is_poison = |message: &&Message| message.body == POISON && message.headers.reason.is_some();
        for message in broker.dead().filter(|message| !is_poison(message)) {
            self.sim().blame(format!("s{} buried a message: {:?}", host.index, message.headers.reason));
        }
        let (put, buried) = (host.poisons.load(Ordering::Relaxed), broker.dead().filter(is_poison).count());
        // A backup of the queues does not hold what came after it.
        if buried < put && !self.sim().ledger().restored.contains_key(&host.index) {
            self.sim().blame(format!("s{} lost {} of {put} messages that cannot be read", host.index, put - buried));
        }
        let many = |(queue, depth): &(Queue, usize)| *queue != Queue::Dead && *depth > 6;
        for (queue, depth) in broker.depths().into_iter().filter(many) {
            // To each peer a transaction may be on its way.
            if queue != Queue::Outbound || broker.destinations().len() < depth {
                self.sim().blame(format!("{depth} messages lie on {queue} of s{}", host.index));
            }
        }
        broker.held().for_each(|(queue, held)| bounds::held(self.sim(), host.index, queue, held));
        drop(broker);
        self.words_are_kept(host);
    }

    /// What was committed to be said was said, but for what just now waits for others to leave with.
    fn words_are_kept(&self, host: &Host) {
        let unsaid = self.sim().ledger().unsaid(host.index, self.sim().elapsed().saturating_sub(SAID_WITHIN_MS));
        if unsaid > 0 {
            self.sim().blame(format!("s{} never said {unsaid} messages that it committed to say", host.index));
        }
    }

    /// No link promises what its user takes back.
    fn promises(&self, host: &Host) {
        let rows = host.tables.lock().unwrap().rows.clone();
        for ((_, key), value) in rows.iter().filter(|((_, key), _)| key.kind == RowKind::Served) {
            let served: ServedRow = decode(value).expect("a row of ours");
            let (peer, user) = key.key.split_once('\0').expect("a key of two parts");
            let (peer, user) = (ServerName::parse(peer).expect("a server"), UserId::parse(user).expect("a user"));
            if !served.is_promised() {
                continue;
            }
            if !relations(host, &user).tells(&peer) {
                self.sim().blame(format!("s{} promises {user} to {peer}, and they do not know", host.index));
            }
            if self.is_hidden(&user, host.index, self.people.net.index_of(peer.as_str())) {
                self.sim()
                    .blame(format!("s{} keeps promising {user} to {peer}, where nobody may see them", host.index));
            }
        }
    }

    /// Whether nobody at `peer` may see `user`, for certain.
    fn is_hidden(&self, user: &UserId, home: usize, peer: usize) -> bool {
        let ledger = self.sim().ledger();
        let make = &self.sim().plan.servers[home];
        // Where everybody may, there may be others than the few who are known here.
        if make.shaky || make.accept == ListAccept::Everyone {
            return false;
        }
        let mut observers = self.people.all.iter().filter(|person| person.server == peer);
        let unseen = observers.all(|observer| ledger.truth.sees(&observer.id, user, home) == Sees::No);
        let forgot = ledger.restored.contains_key(&home);
        unseen && !forgot || ledger.truth.hidden_since(user, home, peer).is_some()
    }

    /// At the very end, when what one judgement found waiting has long left.
    pub fn nothing_waits(&self) {
        self.people.net.hosts().for_each(|host| self.words_are_kept(host));
    }

    /// E1: nobody has a session any longer, so nobody is polled. Who was restored from a backup of before a poll hears of it where the
    /// peer promises anything for it, and its processes' clocks let it send in time.
    pub fn nobody_is_polled(&self) {
        let ledger = self.sim().ledger();
        let mut wrong = Vec::new();
        for ((from, to), user, is_forgotten) in ledger.polls() {
            let excused = ledger.is_shaky(*from) || self.sim().plan.servers[*to].plain;
            let hears = !ledger.is_shaky(*to) && self.is_promised(*to, user, *from);
            if !excused && (!is_forgotten || hears) {
                wrong.push(format!("s{from} polls {user} of s{to} for nobody"));
            }
        }
        drop(ledger);
        wrong.into_iter().for_each(|wrong| self.sim().blame(wrong));
    }

    fn is_promised(&self, home: usize, user: &UserId, to: usize) -> bool {
        let peer = &self.sim().plan.servers[to].name;
        self.people.net.host(home).is_some_and(|host| relations(host, user).tells(peer))
    }
}

/// Whether they are the same to whoever looks.
fn looks_like(known: &Status, told: &Status) -> bool {
    known.presence == told.presence && known.status_msg == told.status_msg && known.currently_active == told.currently_active
        && known.device_types == told.device_types
        // Of a user who never was there nothing need be known.
        || told.presence == Presence::Unknown
}

fn words(status: &Status) -> String {
    let active = if status.currently_active { " and active" } else { "" };
    format!("{}{active} {}", status.presence, status.status_msg.as_deref().unwrap_or("-"))
}

/// What a user's row says of others.
fn relations(host: &Host, user: &UserId) -> Relations {
    let key = (Partition::of(user.as_str(), host.config.partitions), user_key(RowKind::Relations, user));
    let row = host.tables.lock().unwrap().rows.get(&key).cloned();
    row.map(|row| decode(&row).expect("a row of ours")).unwrap_or_default()
}
