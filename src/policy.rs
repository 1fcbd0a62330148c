//! Which servers are dealt with: what `federation.inbound` and `federation.outbound` allow and deny. Replaced while everything runs.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Url;
use wildmatch::WildMatch;

use crate::config::{ServerLists, ServerRules};
use crate::model::ServerName;

/// What holds now. All clones see a replacement at once.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Arc<RwLock<Arc<Rules>>>,
}

#[derive(Debug)]
struct Rules {
    inbound: Side,
    outbound: Side,
}

#[derive(Debug)]
struct Side {
    allow: Names,
    deny: Names,
}

/// Names as [`spelled`], and patterns in lower case.
#[derive(Debug)]
struct Names {
    exact: HashSet<Box<str>>,
    globs: Vec<WildMatch>,
}

impl Policy {
    /// Everybody is listened to and told.
    pub fn everybody() -> Self {
        let all = || ServerRules { allow: vec!["*".into()], deny: Vec::new() };
        Self::new(&ServerLists { inbound: all(), outbound: all() })
    }

    /// What the configuration says.
    pub fn new(lists: &ServerLists) -> Self {
        Self { rules: Arc::new(RwLock::new(Arc::new(Rules::new(lists)))) }
    }

    /// Puts other lists in place of those before.
    pub fn replace(&self, lists: &ServerLists) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Rules::new(lists));
    }

    /// Whether requests of `origin` are listened to.
    pub fn hears(&self, origin: &ServerName) -> bool {
        self.rules().inbound.permits(origin)
    }

    /// Whether transactions are sent to `destination`.
    pub fn tells(&self, destination: &ServerName) -> bool {
        self.rules().outbound.permits(destination)
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Rules {
    fn new(lists: &ServerLists) -> Self {
        Self { inbound: Side::new(&lists.inbound), outbound: Side::new(&lists.outbound) }
    }
}

impl Side {
    fn new(rules: &ServerRules) -> Self {
        Self { allow: Names::new(&rules.allow), deny: Names::new(&rules.deny) }
    }

    fn permits(&self, server: &ServerName) -> bool {
        let (name, host) = spelled(server.as_str());
        self.allow.hold(&name, &host) && !self.deny.hold(&name, &host)
    }
}

impl Names {
    fn new(patterns: &[String]) -> Self {
        let (globs, exact): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.contains(['*', '?']));
        Self {
            exact: exact.into_iter().map(|name| spelled(name).0.into()).collect(),
            globs: globs.into_iter().map(|pattern| WildMatch::new(&pattern.to_ascii_lowercase())).collect(),
        }
    }

    /// A server is meant by its name or by its host alone: another port makes no other neighbour.
    fn hold(&self, name: &str, host: &str) -> bool {
        [name, host]
            .into_iter()
            .any(|text| self.exact.contains(text) || self.globs.iter().any(|glob| glob.matches(text)))
    }
}

/// The host of `server` as whoever connects to it understands it, however it is spelled.
pub(crate) fn host_of(server: &ServerName) -> String {
    spelled(server.as_str()).1
}

/// A server name, and its host alone, as they are compared. A host has many spellings that lead to the same machine (another case, a dot at
/// the end, `[2001:db8:0::1]`, `0x7f.1`): this is the one that whoever connects makes of them.
fn spelled(name: &str) -> (String, String) {
    let host = <&ruma::ServerName>::try_from(name).map_or(name, ruma::ServerName::host);
    let port = name.strip_prefix(host).unwrap_or_default();
    let url = Url::parse(&format!("https://{}/", host.trim_end_matches('.'))).ok();
    let plain = url.as_ref().and_then(Url::host_str).map_or_else(|| host.to_ascii_lowercase(), str::to_owned);
    (format!("{plain}{port}"), plain)
}

/// All but `b.example` are listened to.
#[cfg(test)]
pub(crate) fn without_b() -> ServerLists {
    let all = ServerRules { allow: vec!["*".into()], deny: Vec::new() };
    ServerLists { inbound: ServerRules { deny: vec!["b.example".into()], ..all.clone() }, outbound: all }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> ServerRules {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        ServerRules { allow: owned(allow), deny: owned(deny) }
    }

    fn server(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[test]
    fn what_is_allowed_and_not_denied_is_permitted() {
        let all = || rules(&["*"], &[]);
        let inbound = rules(&["*.example", "[::1]"], &["bad*.example", "Evil.example"]);
        let policy = Policy::new(&ServerLists { inbound, outbound: all() });
        for (name, heard) in [
            ("b.example", true),
            ("B.EXAMPLE", true),
            ("b.example:8448", true),
            ("[::1]:8448", true),
            ("bad.example", false),
            ("bad-too.example:443", false),
            ("evil.example", false),
            ("EVIL.example:1", false),
            ("b.test", false),
            ("[::2]", false),
        ] {
            assert_eq!(policy.hears(&server(name)), heard, "{name}");
            assert!(policy.tells(&server(name)), "{name}");
        }
    }

    #[test]
    fn a_host_is_the_same_however_it_is_spelled() {
        let denied = ["b.example", "*.b.example", "[2001:DB8::1]", "192.0.2.1", "c.example.:8448"];
        let policy = Policy::new(&ServerLists { inbound: rules(&["*"], &denied), outbound: rules(&["*"], &[]) });
        for name in ["b.example.", "B.example.:8448", "x.b.example.", "[2001:db8:0::1]", "[2001:db8::0:1]:8448"] {
            assert!(!policy.hears(&server(name)), "{name}");
        }
        for name in ["192.0.2.1", "0xc0000201", "192.0.513:1", "3221225985", "c.example:8448"] {
            assert!(!policy.hears(&server(name)), "{name}");
        }
        for name in ["c.example", "bb.example", "192.0.2.2", "[2001:db8::2]", "b.example.org"] {
            assert!(policy.hears(&server(name)), "{name}");
        }
    }

    #[test]
    fn a_port_can_be_meant() {
        let policy =
            Policy::new(&ServerLists { inbound: rules(&["*"], &[]), outbound: rules(&["b.example:8448"], &["*:1"]) });
        for (name, told) in [("b.example:8448", true), ("b.example", false), ("b.example:1", false)] {
            assert_eq!(policy.tells(&server(name)), told, "{name}");
        }
    }

    #[test]
    fn a_replacement_holds_for_every_clone() {
        let policy = Policy::new(&ServerLists { inbound: rules(&["*"], &[]), outbound: rules(&["*"], &[]) });
        let clone = policy.clone();
        policy.replace(&ServerLists { inbound: rules(&["*"], &["b.example"]), outbound: rules(&[], &[]) });
        assert!(!clone.hears(&server("b.example")) && clone.hears(&server("c.example")));
        assert!(!clone.tells(&server("c.example")));
    }
}
