//! Towards peers and from them, over real HTTP on loopback.

mod courier;
mod keys;
mod peer;

use rollcall::model::ServerName;

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}
