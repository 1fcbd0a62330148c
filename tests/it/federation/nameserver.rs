//! A name server made for tests: real DNS over UDP, with what it says changed as the test goes on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rollcall::outbound::dns::Dns;
use tokio::net::UdpSocket;

type Zone = HashMap<String, Vec<RData>>;

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    broken: Mutex<bool>,
    broken_for: Mutex<Option<RecordType>>,
    /// For how long its answers are good, in seconds.
    lasts: Mutex<u32>,
    asked: Mutex<Vec<(String, RecordType)>>,
}

pub(crate) struct NameServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// Knows no name yet, and says so of each.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let task = rollcall::lifecycle::spawn("name server", serve(socket, shared.clone()));
        Self { address, shared, task }
    }

    pub(crate) fn dns(&self) -> Dns {
        Dns::of_servers(&[self.address]).unwrap()
    }

    /// `name` is at these addresses, and no others. Nobody may remember that, unless it [`Self::lasts`].
    pub(crate) fn address(&self, name: &str, addresses: &[&str]) {
        let data = addresses.iter().map(|address| match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        });
        self.shared.zone.lock().unwrap().insert(format!("{name}."), data.collect());
    }

    /// `name` (`_matrix-fed._tcp.…`) is offered by `host` at `port`; `host` `.`: by nobody.
    pub(crate) fn service(&self, name: &str, priority: u16, host: &str, port: u16) {
        let host = Name::from_ascii(format!("{}.", host.trim_end_matches('.'))).unwrap();
        let data = RData::SRV(SRV::new(priority, 1, port, host));
        self.shared.zone.lock().unwrap().entry(format!("{name}.")).or_default().push(data);
    }

    /// For how long all that it says may be remembered.
    pub(crate) fn lasts(&self, seconds: u32) {
        *self.shared.lasts.lock().unwrap() = seconds;
    }

    /// How often it was asked for such records of `name`.
    pub(crate) fn asked_for(&self, name: &str, kind: RecordType) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|(asked, of)| *asked == format!("{name}.") && *of == kind).count()
    }

    /// From now on it fails at questions for such records, or no longer.
    pub(crate) fn breaks_for(&self, kind: Option<RecordType>) {
        *self.shared.broken_for.lock().unwrap() = kind;
    }

    /// From now on it fails at every question.
    pub(crate) fn breaks(&self) {
        *self.shared.broken.lock().unwrap() = true;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let is_broken_for =
            *shared.broken_for.lock().unwrap() == question.queries.first().map(|query| query.query_type());
        let answer = match *shared.broken.lock().unwrap() || is_broken_for {
            true => Message::error_msg(question.metadata.id, question.metadata.op_code, ResponseCode::ServFail),
            false => answer(&question, &shared),
        };
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}

fn answer(question: &Message, shared: &Shared) -> Message {
    let (zone, lasts) = (shared.zone.lock().unwrap(), *shared.lasts.lock().unwrap());
    let query = question.queries[0].clone();
    let name = query.name().to_string().to_ascii_lowercase();
    shared.asked.lock().unwrap().push((name.clone(), query.query_type()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_available = true;
    let known = zone.get(&name);
    answer.metadata.response_code = known.map_or(ResponseCode::NXDomain, |_| ResponseCode::NoError);
    let wanted = |data: &&RData| match query.query_type() {
        RecordType::A => matches!(data, RData::A(_)),
        RecordType::AAAA => matches!(data, RData::AAAA(_)),
        RecordType::SRV => matches!(data, RData::SRV(_)),
        _ => false,
    };
    let data: Vec<_> = known.into_iter().flatten().filter(wanted).cloned().collect();
    if data.is_empty() && lasts > 0 {
        // Says for how long that there is none (RFC 2308).
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, lasts);
        answer.add_authority(Record::from_rdata(Name::root(), lasts, RData::SOA(soa)));
    }
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(query.name().clone(), lasts, data)));
    answer.add_query(query);
    answer
}
