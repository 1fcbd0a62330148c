//! Names to addresses, by DNS. Every connection to a peer that nobody here vouches for resolves its name here, and gets no address
//! that is out of [`Reach`]: so what was checked is what is connected to, whatever the name meant a moment ago.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Refusal, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use moka::sync::Cache;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::time::Instant;

use super::reach::Reach;

/// The service of federation, and its old name, in the order in which they are asked for (Matrix spec, server discovery).
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];
/// The kinds of addresses, in the order in which they are tried.
const FAMILIES: [RecordType; 2] = [RecordType::AAAA, RecordType::A];
/// Names remembered, of each kind, as long as their answers say themselves. Anybody can make us ask for any: the least used are forgotten.
const MAX_NAMES: u64 = 10_000;
/// However long an answer says it is good for.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// The same for "there is none".
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(3600);
/// One question to one name server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Hosts of one service that are remembered, and tried.
const MAX_HOSTS: usize = 4;
/// Addresses of one name that are tried, and remembered of each family.
const MAX_ADDRESSES: usize = 16;

/// Why a name led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// There is no such name, or it has no address.
    #[error("{0} has no address")]
    Nothing(String),
    /// All that it has is out of reach.
    #[error("{0} has special addresses only, and federation.allow_private lists none of them")]
    OutOfReach(String),
    /// It could not be found out: try again later.
    #[error("{name}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// What went wrong.
        reason: String,
    },
}

/// A host and a port that offer a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    host: Name,
    port: u16,
}

/// What is remembered of a name; nothing: there is none.
#[derive(Clone)]
struct Known<T> {
    said: Arc<[T]>,
    until: Instant,
}

/// A client of the domain name system. What it remembers is bounded in bytes: of an answer only what may be used, some 30 MB in all. (The
/// resolver's own cache would keep answers whole, up to 64 KiB each as they arrive, and many times that in memory.) A name that the hosts file
/// has (`/etc/hosts`, as it was at the start) is at what stands there alone. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
    hosts: Arc<Hosts>,
    addresses: Cache<(Name, RecordType), Known<IpAddr>>,
    services: Cache<Name, Known<SRV>>,
}

impl Dns {
    /// Asks whom the system says (`/etc/resolv.conf`).
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn of_system() -> Result<Self, NetError> {
        Self::build(TokioResolver::builder_tokio()?)
    }

    /// Asks these name servers.
    ///
    /// # Errors
    /// None that is known.
    pub fn of_servers(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let at_port = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, at_port.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, NetError> {
        bound(builder.options_mut());
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::warn!(%error, "the hosts file counts as empty");
            Hosts::default()
        });
        let (addresses, services) = (Cache::new(MAX_NAMES), Cache::new(MAX_NAMES));
        Ok(Self { resolver: builder.build()?, hosts: Arc::new(hosts), addresses, services })
    }

    /// The same, with this hosts file in place of the system's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_hosts(self, file: impl io::Read) -> io::Result<Self> {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(file)?;
        Ok(Self { hosts: Arc::new(hosts), ..self })
    }

    /// Whether `host` offers federation as a service, under either name.
    ///
    /// # Errors
    /// When nobody could tell.
    pub async fn offers_federation(&self, host: &str) -> Result<bool, DnsError> {
        self.offers(host).await.map(|offers| !offers.is_empty())
    }

    /// Who offers federation for `host`, in the order in which they are to be tried.
    async fn offers(&self, host: &str) -> Result<Vec<Offer>, DnsError> {
        for service in SERVICES {
            let offers = self.service(&format!("{service}.{host}")).await?;
            if !offers.is_empty() {
                return Ok(offers);
            }
        }
        Ok(Vec::new())
    }

    async fn service(&self, name: &str) -> Result<Vec<Offer>, DnsError> {
        let absolute = absolute(name)?;
        let known = match self.services.get(&absolute).filter(|known| Instant::now() < known.until) {
            Some(known) => known,
            None => {
                let answer = self.resolver.lookup(absolute.clone(), RecordType::SRV).await;
                let known = Known::of(answer, services).map_err(|error| failed(name, &error))?;
                self.services.insert(absolute, known.clone());
                known
            }
        };
        let offers = in_order(known.said.iter());
        let offers: Vec<_> = offers.into_iter().map(|to| Offer { host: to.target.clone(), port: to.port }).collect();
        // RFC 2782: a root target says that the service is decidedly not there.
        if !offers.is_empty() && offers.iter().all(|offer| offer.host.is_root()) {
            return Err(DnsError::Nothing(name.into()));
        }
        Ok(offers.into_iter().filter(|offer| !offer.host.is_root()).collect())
    }

    async fn addresses(&self, name: Name) -> Result<Vec<IpAddr>, DnsError> {
        let listed = self.listed(&name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let families = FAMILIES.map(|family| self.of_family(&name, family));
        let answers = join_all(families).await;
        let all: Vec<_> = answers.iter().flatten().flat_map(|known| known.said.iter().copied()).collect();
        // That one failed does not mean that there is none.
        match answers.into_iter().find_map(Result::err) {
            Some(error) if all.is_empty() => Err(failed(&name.to_string(), &error)),
            None if all.is_empty() => Err(DnsError::Nothing(name.to_string())),
            _ => Ok(all),
        }
    }

    /// What the hosts file says of a name, in either family.
    fn listed(&self, name: &Name) -> Vec<IpAddr> {
        let of_family = |family| self.hosts.lookup_static_host(&Query::query(name.clone(), family));
        FAMILIES.into_iter().filter_map(of_family).flat_map(|lookup| addresses(&lookup).to_vec()).collect()
    }

    async fn of_family(&self, name: &Name, family: RecordType) -> Result<Known<IpAddr>, NetError> {
        let key = (name.clone(), family);
        if let Some(known) = self.addresses.get(&key).filter(|known| Instant::now() < known.until) {
            return Ok(known);
        }
        let known = Known::of(self.resolver.lookup(name.clone(), family).await, addresses)?;
        self.addresses.insert(key, known.clone());
        Ok(known)
    }
}

impl<T> Known<T> {
    /// What `take` takes of an answer, for as long as that says it is good, within bounds; that there is nothing, likewise.
    fn of(answer: Result<Lookup, NetError>, take: impl FnOnce(&Lookup) -> Arc<[T]>) -> Result<Self, NetError> {
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                Ok(Self { said: take(&answer), until: Instant::from_std(answer.valid_until()).min(now + MAX_TTL) })
            }
            Err(NetError::Dns(Refusal::NoRecordsFound(none))) => {
                let lasts = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                Ok(Self { said: Arc::new([]), until: now + lasts.min(MAX_NEGATIVE_TTL) })
            }
            Err(error) => Err(error),
        }
    }
}

fn addresses(answer: &Lookup) -> Arc<[IpAddr]> {
    answer.answers().iter().filter_map(|record| record.data.ip_addr()).take(MAX_ADDRESSES).collect()
}

/// Of very many those that the draw puts first.
fn services(answer: &Lookup) -> Arc<[SRV]> {
    let records = answer.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some(service),
        _ => None,
    });
    in_order(records).into_iter().take(MAX_HOSTS).cloned().collect()
}

fn bound(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.timeout = QUERY_TIMEOUT;
    // It would ask for the family that the file does not have.
    options.use_hosts_file = ResolveHosts::Never;
}

/// The name from the root on: the system's search domains are for its own people, and would lead strangers into its network.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let mut name =
        Name::from_ascii(name).map_err(|error| DnsError::Failed { name: name.into(), reason: error.to_string() })?;
    name.set_fqdn(true);
    Ok(name)
}

fn failed(name: &str, error: &NetError) -> DnsError {
    DnsError::Failed { name: name.into(), reason: error.to_string() }
}

/// By priority; among equals by chance, in proportion to their weights (RFC 2782), so that load spreads as its owner wants it.
fn in_order<'a>(records: impl Iterator<Item = &'a SRV>) -> Vec<&'a SRV> {
    let mut drawn: Vec<_> = records
        .map(|record| {
            // The least of exponential draws is each one's in proportion to its rate.
            let rate = f64::from(record.weight).max(0.001);
            let draw = -(1.0 - fastrand::f64()).ln() / rate;
            (record.priority, draw, record)
        })
        .collect();
    drawn.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).unwrap_or(std::cmp::Ordering::Equal));
    drawn.into_iter().map(|(_, _, record)| record).collect()
}

/// What the host of a URL means to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A host: its addresses.
    Host,
    /// Whoever offers federation for it: their addresses and ports.
    Service,
}

/// Resolves for connections, within reach.
pub(super) struct Guarded {
    dns: Dns,
    reach: Reach,
    meaning: Meaning,
}

impl Guarded {
    pub(super) fn new(dns: Dns, reach: Reach, meaning: Meaning) -> Arc<Self> {
        Arc::new(Self { dns, reach, meaning })
    }

    async fn find(dns: Dns, reach: Reach, meaning: Meaning, host: String) -> Result<Vec<SocketAddr>, DnsError> {
        let offers = match meaning {
            // Port 0 leaves the choice to the URL.
            Meaning::Host => vec![Offer { host: absolute(&host)?, port: 0 }],
            Meaning::Service => dns.offers(&host).await?,
        };
        let mut error = DnsError::Nothing(host.clone());
        let mut found = Vec::new();
        for offer in offers {
            match dns.addresses(offer.host).await {
                Ok(all) => {
                    let reachable = all.iter().copied().filter(|address| reach.allows(*address));
                    found.extend(reachable.map(|address| SocketAddr::new(address, offer.port)));
                    error = DnsError::OutOfReach(host.clone());
                }
                Err(failure) => error = failure,
            }
        }
        let mut seen = HashSet::new();
        found.retain(|address| seen.insert(*address));
        found.truncate(MAX_ADDRESSES);
        if found.is_empty() { Err(error) } else { Ok(found) }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let found = Self::find(self.dns.clone(), self.reach.clone(), self.meaning, name.as_str().to_owned());
        Box::pin(async move {
            let addresses: Addrs = Box::new(found.await?.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::ResponseCode;
    use hickory_resolver::proto::rr::Record;

    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> SRV {
        SRV::new(priority, weight, 1, Name::from_ascii(host).unwrap())
    }

    #[test]
    fn services_are_tried_by_priority_then_in_proportion_to_their_weights() {
        let records =
            [record(2, 60_000, "last."), record(1, 1, "rare."), record(1, 9, "often."), record(1, 0, "spare.")];
        let mut first = 0;
        for _ in 0..1_000 {
            let order: Vec<_> = in_order(records.iter()).iter().map(|record| record.target.to_string()).collect();
            assert_eq!(order[3], "last.");
            first += usize::from(order[0] == "often.");
        }
        assert!((850..950).contains(&first), "{first} of 900 expected");
    }

    fn answer(data: impl Iterator<Item = RData>) -> Lookup {
        let records = data.map(|data| Record::from_rdata(Name::root(), 60, data));
        Lookup::new_with_max_ttl(Query::new(), records)
    }

    #[test]
    fn of_a_large_answer_only_what_may_be_used_is_remembered() {
        let all = (0..60_000).map(|n| RData::A(std::net::Ipv4Addr::from_bits(n).into()));
        let known = Known::of(Ok(answer(all)), addresses).unwrap();
        assert_eq!(known.said.len(), MAX_ADDRESSES);
        assert!(known.until <= Instant::now() + MAX_TTL);
        let all = (0..5_000).map(|n| RData::SRV(record(n, 1, "host.")));
        let known = Known::of(Ok(answer(all)), services).unwrap();
        assert_eq!(known.said.iter().map(|record| record.priority).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn names_are_remembered_up_to_a_bound() {
        let dns = Dns::of_servers(&[SocketAddr::from(([127, 0, 0, 1], 53))]).unwrap();
        for number in 0..MAX_NAMES + 100 {
            let name = Name::from_ascii(format!("{number}.example.")).unwrap();
            dns.addresses.insert((name.clone(), RecordType::A), Known { said: Arc::new([]), until: Instant::now() });
            dns.services.insert(name, Known { said: Arc::new([]), until: Instant::now() });
        }
        dns.addresses.run_pending_tasks();
        dns.services.run_pending_tasks();
        let counts = [dns.addresses.entry_count(), dns.services.entry_count()];
        assert!(counts.into_iter().all(|count| count <= MAX_NAMES), "{counts:?}");
    }

    #[test]
    fn that_there_is_nothing_is_remembered_for_an_hour_at_most() {
        for (said, granted) in [(None, 0), (Some(60), 60), (Some(u32::MAX), 3_600)] {
            let mut none = NoRecords::new(Query::new(), ResponseCode::NXDomain);
            none.negative_ttl = said;
            let before = Instant::now();
            let known = Known::of(Err(NetError::Dns(Refusal::NoRecordsFound(none))), addresses).unwrap();
            let lasts = known.until - before;
            assert!(known.said.is_empty() && (granted..=granted + 5).contains(&lasts.as_secs()), "{lasts:?}");
        }
    }
}
