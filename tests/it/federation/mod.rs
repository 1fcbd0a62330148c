//! Towards peers and from them, over real HTTP on loopback.

mod clients;
mod courier;
mod discovery;
mod edge;
mod https;
mod inbound;
mod keys;
mod moved;
mod nameserver;
pub(crate) mod peer;
mod peer_keys;
mod reach;
mod sender;
mod stream;

use rollcall::model::ServerName;

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}
