//! Which addresses a request may go to. Anybody can name any host to a federating server; what that host leads to must not be
//! something that only this machine or its network can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The IANA IPv4 special-purpose registry (RFC 6890) as far as it is not globally reachable, with multicast, the old class E, and
/// the anycast relays of 6to4.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([233, 252, 0, 0], 24),
    v4([240, 0, 0, 0], 4),
];

/// Of IPv6 this is what the world shares (RFC 4291); all else is special: loopback, unspecified, mapped IPv4, link-local, unique
/// local, multicast.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// But not these parts of it: protocol assignments with Teredo and ORCHID, documentation twice, 6to4 with an IPv4 address inside.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];
/// Where networks with IPv6 alone see the IPv4 world (RFC 6052): as good as the address inside.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// What may be reached: the public internet, and what the operator lists. Cheap to share.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    exceptions: Arc<[IpNet]>,
}

impl Reach {
    /// The public internet and `exceptions` (`federation.allow_private`).
    pub fn new(exceptions: &[IpNet]) -> Self {
        Self { exceptions: exceptions.into() }
    }

    /// Whether a connection to `address` is allowed.
    pub fn allows(&self, address: IpAddr) -> bool {
        !is_special(address) || self.exceptions.iter().any(|net| net.contains(&address))
    }
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => SPECIAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => is_special(IpAddr::V4(embedded(address))),
        IpAddr::V6(address) => !GLOBAL_V6.contains(&address) || SPECIAL_V6.iter().any(|net| net.contains(&address)),
    }
}

/// The IPv4 address in the last 32 bits.
fn embedded(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(reach: &Reach, address: &str) -> bool {
        reach.allows(address.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_out_of_reach() {
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.251",
            "239.255.255.250",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:93.184.215.14",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.1.2.3",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allows(&Reach::default(), special), "{special}");
        }
    }

    #[test]
    fn the_public_internet_is_within_reach() {
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a01:4f8::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(allows(&Reach::default(), public), "{public}");
        }
    }

    #[test]
    fn an_exception_is_that_network_and_no_more() {
        let reach = Reach::new(&["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (address, allowed) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("::ffff:10.1.2.3", false), ("fd12::1", true), ("fc00::1", false)]
        {
            assert_eq!(allows(&reach, address), allowed, "{address}");
        }
    }
}
