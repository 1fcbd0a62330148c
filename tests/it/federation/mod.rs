//! Towards peers and from them, over real HTTP on loopback.

mod clients;
mod coding;
mod connections;
mod courier;
mod devices;
mod discovery;
mod edge;
mod failures;
mod https;
mod inbound;
mod kept;
mod keys;
mod limits;
mod moved;
mod nameserver;
pub(crate) mod peer;
mod peer_keys;
mod reach;
mod sender;
mod stream;
mod tls;
mod trusted;
mod visibility;
mod well_known;
mod whoami;

use rollcall::model::ServerName;

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}
