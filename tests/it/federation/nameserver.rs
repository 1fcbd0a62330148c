//! A name server made for tests: real DNS over UDP, with what it says changed as the test goes on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rollcall::outbound::dns::Dns;
use tokio::net::UdpSocket;

type Zone = HashMap<String, Vec<RData>>;

pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    broken: Arc<Mutex<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// Knows no name yet, and says so of each.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, broken) = (Arc::new(Mutex::new(Zone::new())), Arc::new(Mutex::new(false)));
        let task = rollcall::lifecycle::spawn("name server", serve(socket, zone.clone(), broken.clone()));
        Self { address, zone, broken, task }
    }

    pub(crate) fn dns(&self) -> Dns {
        Dns::of_servers(&[self.address]).unwrap()
    }

    /// `name` is at these addresses, and no others. Nobody may remember that.
    pub(crate) fn address(&self, name: &str, addresses: &[&str]) {
        let data = addresses.iter().map(|address| match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        });
        self.zone.lock().unwrap().insert(format!("{name}."), data.collect());
    }

    /// `name` (`_matrix-fed._tcp.…`) is offered by `host` at `port`; `host` `.`: by nobody.
    pub(crate) fn service(&self, name: &str, priority: u16, host: &str, port: u16) {
        let host = Name::from_ascii(format!("{}.", host.trim_end_matches('.'))).unwrap();
        let data = RData::SRV(SRV::new(priority, 1, port, host));
        self.zone.lock().unwrap().entry(format!("{name}.")).or_default().push(data);
    }

    /// From now on it fails at every question.
    pub(crate) fn breaks(&self) {
        *self.broken.lock().unwrap() = true;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>, broken: Arc<Mutex<bool>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let answer = match *broken.lock().unwrap() {
            true => Message::error_msg(question.metadata.id, question.metadata.op_code, ResponseCode::ServFail),
            false => answer(&question, &zone.lock().unwrap()),
        };
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_available = true;
    let known = zone.get(&query.name().to_string().to_ascii_lowercase());
    answer.metadata.response_code = known.map_or(ResponseCode::NXDomain, |_| ResponseCode::NoError);
    let wanted = |data: &&RData| match query.query_type() {
        RecordType::A => matches!(data, RData::A(_)),
        RecordType::AAAA => matches!(data, RData::AAAA(_)),
        RecordType::SRV => matches!(data, RData::SRV(_)),
        _ => false,
    };
    let data = known.into_iter().flatten().filter(wanted).cloned();
    answer.add_answers(data.map(|data| Record::from_rdata(query.name().clone(), 0, data)));
    answer.add_query(query);
    answer
}
