//! Which addresses a Hub may send this program to.
//!
//! A Hub answers with redirects, and names in them resolve to what its author likes. So a Hub
//! elsewhere could have this program fetch what only this host can reach: services on its loopback
//! interface, and the metadata services of clouds, which hand out credentials. Such addresses are
//! refused, as literals when a request is about to be sent and as what a name resolves to when a
//! connection is made, unless the configured endpoint is there itself.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::repository::settings::{HubSettings, Proxies};

/// Addresses at which clouds hand out credentials and configuration, beyond those in
/// 169.254.0.0/16.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's host agent; its resolver too
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),  // AWS, credentials of pods
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google Cloud
];
/// The same in 169.254.0.0/16: not opened by an endpoint that is at another link-local address.
const METADATA_LINK_LOCAL: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254), // nearly all clouds
    Ipv4Addr::new(169, 254, 170, 2),   // AWS, credentials of containers
    Ipv4Addr::new(169, 254, 170, 23),  // AWS, credentials of pods
];

/// Where a Hub elsewhere has no business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Restricted {
    Loopback,
    LinkLocal,
    Metadata(IpAddr),
}

impl Restricted {
    fn of_address(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        if METADATA_V4.contains(&address) || METADATA_LINK_LOCAL.contains(&address) {
            Some(Self::Metadata(address.into()))
        } else if address.is_loopback() || address.octets()[0] == 0 {
            // 0.0.0.0 connects to this host.
            Some(Self::Loopback)
        } else {
            address.is_link_local().then_some(Self::LinkLocal)
        }
    }

    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        if METADATA_V6.contains(&address) {
            Some(Self::Metadata(address.into()))
        } else if address.is_loopback() || address.is_unspecified() {
            Some(Self::Loopback)
        } else if address.is_unicast_link_local() {
            Some(Self::LinkLocal)
        } else {
            Self::of_v4(embedded(address)?)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Loopback => "an address of this host itself",
            Self::LinkLocal => "a link-local address",
            Self::Metadata(_) => "the address of a cloud's metadata service",
        }
    }
}

/// The IPv4 address that packets to `address` end up at: mapped, compatible, translated (NAT64), or
/// 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let at = |first: usize| {
        let [a, b] = segments[first].to_be_bytes();
        let [c, d] = segments[first + 1].to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };

    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0 | 1, ..] => Some(at(6)),
        [0x2002, ..] => Some(at(1)),
        _ => None,
    }
}

/// A target that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it sends this program to {host}, {what}; if your Hub is there, set HF_ENDPOINT or hub.endpoint to it"
)]
pub(super) struct RefusedPeer {
    host: String,
    what: &'static str,
}

impl RefusedPeer {
    /// The refusal that `error` was caused by.
    pub(super) fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }

        None
    }
}

/// The peers of one client: what its settings open, everything else as it is restricted.
#[derive(Clone, Debug)]
pub(super) struct Peers(Arc<KnownPlace>);

#[derive(Debug)]
struct KnownPlace {
    /// Hosts of the configured endpoints.
    endpoints: HashSet<String>,
    /// Hosts of the configured proxies. What a proxy resolves is its own affair.
    proxies: HashSet<String>,
    /// Restricted places that an endpoint is at.
    open: Mutex<HashSet<Restricted>>,
}

impl Peers {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let configured = settings.endpoints.iter().map(|other| &other.endpoint);
        let mut known = KnownPlace {
            endpoints: HashSet::new(),
            proxies: proxies(&settings.proxies),
            open: Mutex::default(),
        };

        for endpoint in configured.chain([&settings.endpoint]) {
            known.endpoints.extend(endpoint.host_str().map(plain));
            if let Some(restricted) = literal(endpoint) {
                known.open(restricted);
            }
        }

        Self(Arc::new(known))
    }

    /// Refuses an address that is restricted by what it says. What its name resolves to is looked
    /// at later.
    pub(super) fn check(&self, url: &Url) -> Result<(), RefusedPeer> {
        let host = url.host_str().unwrap_or_default();
        match literal(url) {
            Some(restricted) if !self.0.is_open(restricted) => Err(refuse(host, restricted)),
            _ => Ok(()),
        }
    }
}

impl KnownPlace {
    fn open(&self, restricted: Restricted) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(restricted);
    }

    fn is_open(&self, restricted: Restricted) -> bool {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&restricted)
    }

    /// The addresses of `name` that may be connected to.
    fn admit(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, RefusedPeer> {
        let host = plain(name);
        if self.endpoints.contains(&host) {
            found
                .iter()
                .filter_map(|at| Restricted::of_address(at.ip()))
                .for_each(|at| self.open(at));
            return Ok(found);
        }

        if self.proxies.contains(&host) {
            return Ok(found);
        }

        let refused = |at: &SocketAddr| {
            Restricted::of_address(at.ip()).filter(|restricted| !self.is_open(*restricted))
        };

        let why = found.iter().find_map(refused);
        let admitted: Vec<SocketAddr> = found
            .into_iter()
            .filter(|at| refused(at).is_none())
            .collect();

        match why {
            Some(restricted) if admitted.is_empty() => Err(refuse(name, restricted)),
            _ => Ok(admitted),
        }
    }
}

impl Resolve for Peers {
    fn resolve(&self, name: Name) -> Resolving {
        let known = Arc::clone(&self.0);
        Box::pin(async move {
            // The port is the caller's to fill in.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted = known.admit(name.as_str(), found)?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

fn refuse(host: &str, restricted: Restricted) -> RefusedPeer {
    RefusedPeer {
        host: host.to_owned(),
        what: restricted.name(),
    }
}

/// What an address that needs no looking up is restricted as.
fn literal(url: &Url) -> Option<Restricted> {
    match url.host()? {
        Host::Ipv4(address) => Restricted::of_v4(address),
        Host::Ipv6(address) => Restricted::of_v6(address),
        Host::Domain(name) => {
            let name = plain(name);
            (name == "localhost" || name.ends_with(".localhost")).then_some(Restricted::Loopback)
        }
    }
}

fn proxies(settings: &Proxies) -> HashSet<String> {
    let addresses = [&settings.http, &settings.https, &settings.all];
    let host = |address: &String| {
        let address = if address.contains("://") {
            address.clone()
        } else {
            format!("http://{address}")
        };
        Url::parse(&address).ok()?.host_str().map(plain)
    };

    addresses.into_iter().flatten().filter_map(host).collect()
}

/// A host's name as it is compared.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(variables: &[(&str, &str)]) -> Peers {
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };

        Peers::new(&HubSettings::from_environment(variable).unwrap())
    }

    fn checked(peers: &Peers, url: &str) -> Result<(), RefusedPeer> {
        peers.check(&Url::parse(url).unwrap())
    }

    fn resolved(peers: &Peers, name: &str, to: &[&str]) -> Result<Vec<String>, RefusedPeer> {
        let found = to
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), 0))
            .collect();
        let admitted = peers.0.admit(name, found)?;
        Ok(admitted.iter().map(|at| at.ip().to_string()).collect())
    }

    #[test]
    fn restricted_literals_are_refused() {
        let public = peers(&[]);
        for host in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "2130706433",
            "0x7f.1",
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "169.254.169.254",
            "169.254.3.4",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[::ffff:127.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
        ] {
            let refused = checked(&public, &format!("http://{host}/x")).expect_err(host);
            assert!(refused.to_string().contains("HF_ENDPOINT"), "{refused}");
        }

        for host in [
            "huggingface.co",
            "10.0.0.1",
            "192.168.1.1",
            "100.100.100.201",
            "[2606:4700::1]",
            "[fd00:ec2::253]",
        ] {
            assert_eq!(
                checked(&public, &format!("https://{host}/x")),
                Ok(()),
                "{host}"
            );
        }
    }

    #[test]
    fn names_are_judged_by_their_addresses() {
        let public = peers(&[]);
        assert_eq!(
            resolved(&public, "cdn.example", &["1.2.3.4"]),
            Ok(vec!["1.2.3.4".into()])
        );

        assert_eq!(
            resolved(&public, "both.example", &["127.0.0.1", "1.2.3.4"]),
            Ok(vec!["1.2.3.4".into()])
        );

        for address in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "::ffff:127.0.0.1",
        ] {
            let refused = resolved(&public, "evil.example", &[address]).expect_err(address);
            assert!(refused.to_string().contains("evil.example"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_refused_name_is_found_behind_the_error() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();

        let client = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(peers(&[]))
            .tls_backend_preconfigured(tls);
        let error = client
            .build()
            .unwrap()
            .get("http://localhost:9/")
            .send()
            .await
            .unwrap_err();

        assert!(RefusedPeer::behind(&error).is_some(), "{error:?}");
    }

    #[test]
    fn an_endpoint_opens_its_own_place_only() {
        for endpoint in [
            "http://127.0.0.1:80",
            "http://localhost:80",
            "http://[::1]:80",
        ] {
            let local = peers(&[("HF_ENDPOINT", endpoint)]);
            assert_eq!(checked(&local, "http://127.0.0.2/x"), Ok(()), "{endpoint}");
            assert_eq!(
                resolved(&local, "store.example", &["127.0.0.1"]),
                Ok(vec!["127.0.0.1".into()])
            );
            checked(&local, "http://169.254.169.254/x").expect_err("another place");
        }

        let named = peers(&[("HF_ENDPOINT", "http://hub.example:80")]);
        resolved(&named, "store.example", &["127.0.0.2"]).expect_err("not known to be there");
        assert!(resolved(&named, "hub.example", &["127.0.0.1"]).is_ok());
        assert!(resolved(&named, "store.example", &["127.0.0.2"]).is_ok());

        // One link-local address does not open the metadata service.
        let beside = peers(&[("HF_ENDPOINT", "http://169.254.1.1")]);
        assert_eq!(checked(&beside, "http://169.254.1.2/x"), Ok(()));
        checked(&beside, "http://169.254.169.254/x").expect_err("the metadata service");
    }

    #[test]
    fn a_proxy_is_reached_and_opens_nothing() {
        let proxied = peers(&[
            ("HTTPS_PROXY", "http://user:pw@proxy.example:3128"),
            ("http_proxy", "127.0.0.1:3128"),
        ]);
        assert!(resolved(&proxied, "proxy.example", &["127.0.0.1"]).is_ok());
        checked(&proxied, "http://127.0.0.1/x").expect_err("not through the proxy's place");
        resolved(&proxied, "evil.example", &["127.0.0.1"]).expect_err("nor by name");
    }
}
