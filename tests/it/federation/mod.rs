//! Towards peers and from them, over real HTTP on loopback.

mod clients;
mod courier;
mod edge;
mod inbound;
mod keys;
mod limits;
pub(crate) mod peer;
mod peer_keys;
mod sender;
mod stream;
mod tls;
mod trusted;
mod visibility;
mod whoami;

use rollcall::model::ServerName;

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}
