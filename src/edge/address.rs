//! Whom a request comes from, with reverse proxies in between.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The part of an IPv6 address that its owner cannot choose.
const NETWORK_64: u128 = !0 << 64;

/// What stands for all the addresses that somebody with this one can have at will.
pub(crate) fn owner(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_64).into(),
    }
}

pub(crate) fn is_within(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The address that a request comes from: the connection's, unless that is a trusted proxy's; then the last in `X-Forwarded-For` that is
/// none. `None`: a trusted proxy asks on its own behalf. What it says of somebody and cannot be read counts as its own address: nothing that a
/// client sends leaves it uncounted.
pub(crate) fn client(connection: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    if !is_within(connection, trusted) {
        return Some(connection);
    }
    // Each proxy appends whom it was asked by: what stands before the first stranger is only the stranger's word.
    let lines = headers.get_all("x-forwarded-for").into_iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let stranger = hops.map(address).find(|hop| hop.is_none_or(|address| !is_within(address, trusted)))?;
    Some(stranger.unwrap_or(connection))
}

fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?.trim();
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok();
    alone.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn from(connection: &str, forwarded: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            // Any bytes: proxies hand on what clients send.
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
        }
        let trusted = ["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        client(connection.parse().unwrap(), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn strangers_speak_for_themselves_alone() {
        assert_eq!(from("192.0.2.1", &[b"198.51.100.7"]).unwrap(), "192.0.2.1");
    }

    #[test]
    fn proxies_tell_whom_they_were_asked_by() {
        assert_eq!(from("127.0.0.1", &[b"198.51.100.7"]).unwrap(), "198.51.100.7");
        assert_eq!(from("127.0.0.1", &[b"203.0.113.9, 198.51.100.7, 10.1.2.3"]).unwrap(), "198.51.100.7");
        assert_eq!(from("127.0.0.1", &[b"203.0.113.9, 198.51.100.7", b"10.1.2.3"]).unwrap(), "198.51.100.7");
        assert_eq!(from("127.0.0.1", &[b"[2001:db8::1]:443"]).unwrap(), "2001:db8::1");
        assert_eq!(from("127.0.0.1", &[b"[2001:db8::1]"]).unwrap(), "2001:db8::1");
        assert_eq!(
            from("127.0.0.1", &[b"\xff, 198.51.100.7"]).unwrap(),
            "198.51.100.7",
            "whatever a client put before"
        );
    }

    #[test]
    fn a_proxy_that_says_nothing_asks_for_itself() {
        assert_eq!(from("127.0.0.1", &[]), None);
        assert_eq!(from("127.0.0.1", &[b"10.1.2.3"]), None);
    }

    #[test]
    fn whoever_cannot_be_told_counts_as_the_proxy() {
        for forwarded in [&b"unknown"[..], b"\xff", b"", b"198.51.100.7,", b"198.51.100.7, unknown, 10.1.2.3"] {
            assert_eq!(from("127.0.0.1", &[forwarded]).unwrap(), "127.0.0.1", "{forwarded:?}");
        }
    }
}
