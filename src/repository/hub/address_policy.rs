//! Which addresses a Hub may send this program to.
//!
//! A Hub answers with redirects, and the Hub's author controls what the names in them resolve to.
//! So a remote Hub could make this program fetch what only this host can reach. That is services on
//! the loopback interface, and the clouds' metadata services, which hand out credentials.
//!
//! The policy blocks such addresses unless the configured endpoint is one of them. It checks
//! literal addresses before each request, and resolved names before each connection.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::http;
use crate::lock_ignoring_poison::lock_ignoring_poison;
use crate::repository::settings::{HubSettings, Proxies};

/// Addresses where clouds serve credentials and configuration, outside of 169.254.0.0/16.
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
/// The same inside of 169.254.0.0/16. An endpoint at another link-local address does not allow
/// them.
const METADATA_LINK_LOCAL: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254), // nearly all clouds
    Ipv4Addr::new(169, 254, 170, 2),   // AWS, credentials of containers
    Ipv4Addr::new(169, 254, 170, 23),  // AWS, credentials of pods
];

/// A class of addresses that a remote Hub may not lead to.
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

/// Returns the IPv4 address that packets to `address` reach: mapped, compatible, translated (NAT64)
/// or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0 | 1, ..] => Some(v4_of_segments(segments[6], segments[7])),
        [0x2002, ..] => Some(v4_of_segments(segments[1], segments[2])),
        _ => None,
    }
}

fn v4_of_segments(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// A blocked redirect or connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it sends this program to {host}, {what}; if your Hub is there, set HF_ENDPOINT or hub.endpoint to it"
)]
pub(super) struct BlockedAddress {
    host: String,
    what: &'static str,
}

impl BlockedAddress {
    /// Returns the blocked address that caused `error`.
    pub(super) fn find_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
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

/// The policy of one client.
#[derive(Clone, Debug)]
pub(super) struct AddressPolicy(Arc<AllowedAddresses>);

#[derive(Debug)]
struct AllowedAddresses {
    /// Hosts of the configured endpoints.
    endpoints: HashSet<String>,
    /// Hosts of the configured proxies. A proxy resolves names by its own rules.
    proxies: HashSet<String>,
    /// Restricted classes that a configured endpoint belongs to.
    allowed: Mutex<HashSet<Restricted>>,
}

impl AddressPolicy {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let configured = settings.endpoints.iter().map(|other| &other.endpoint);
        let mut known = AllowedAddresses {
            endpoints: HashSet::new(),
            proxies: proxies(&settings.proxies),
            allowed: Mutex::default(),
        };

        for endpoint in configured.chain([&settings.endpoint]) {
            known.endpoints.extend(endpoint.host_str().map(normalize));
            if let Some(restricted) = restriction_of(endpoint) {
                known.allow(restricted);
            }
        }

        Self(Arc::new(known))
    }

    /// Blocks a URL whose host is a restricted literal address. Names are checked when they are
    /// resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), BlockedAddress> {
        let host = url.host_str().unwrap_or_default();
        match restriction_of(url) {
            Some(restricted) if !self.0.is_allowed(restricted) => Err(blocked(host, restricted)),
            _ => Ok(()),
        }
    }
}

impl AllowedAddresses {
    fn allow(&self, restricted: Restricted) {
        lock_ignoring_poison(&self.allowed).insert(restricted);
    }

    fn is_allowed(&self, restricted: Restricted) -> bool {
        lock_ignoring_poison(&self.allowed).contains(&restricted)
    }

    /// Returns those addresses of `name` that the client may connect to.
    fn filter_addresses(
        &self,
        name: &str,
        found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, BlockedAddress> {
        let host = normalize(name);
        if self.endpoints.contains(&host) {
            found
                .iter()
                .filter_map(|address| Restricted::of_address(address.ip()))
                .for_each(|restricted| self.allow(restricted));
            return Ok(found);
        }

        if self.proxies.contains(&host) {
            return Ok(found);
        }

        let blocked_by = |address: &SocketAddr| {
            Restricted::of_address(address.ip()).filter(|restricted| !self.is_allowed(*restricted))
        };

        let why = found.iter().find_map(blocked_by);
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|at| blocked_by(at).is_none())
            .collect();

        match why {
            Some(restricted) if allowed.is_empty() => Err(blocked(name, restricted)),
            _ => Ok(allowed),
        }
    }
}

impl Resolve for AddressPolicy {
    fn resolve(&self, name: Name) -> Resolving {
        let known = Arc::clone(&self.0);
        Box::pin(async move {
            // reqwest sets the port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = known.filter_addresses(name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn blocked(host: &str, restricted: Restricted) -> BlockedAddress {
    BlockedAddress {
        host: host.to_owned(),
        what: restricted.name(),
    }
}

/// Returns the restriction of a host that needs no name resolution.
fn restriction_of(url: &Url) -> Option<Restricted> {
    match url.host()? {
        Host::Ipv4(address) => Restricted::of_v4(address),
        Host::Ipv6(address) => Restricted::of_v6(address),
        Host::Domain(name) => {
            let name = normalize(name);
            (name == "localhost" || name.ends_with(".localhost")).then_some(Restricted::Loopback)
        }
    }
}

fn proxies(settings: &Proxies) -> HashSet<String> {
    let addresses = [&settings.http, &settings.https, &settings.all];
    addresses
        .into_iter()
        .flatten()
        .filter_map(|address| {
            let url = Url::parse(&http::with_scheme(address)).ok()?;
            url.host_str().map(normalize)
        })
        .collect()
}

/// Normalizes a host's name for comparison.
fn normalize(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_policy(variables: &[(&str, &str)]) -> AddressPolicy {
        let read_variable = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };

        AddressPolicy::new(&HubSettings::from_environment(read_variable).unwrap())
    }

    fn checked(address_policy: &AddressPolicy, url: &str) -> Result<(), BlockedAddress> {
        address_policy.check(&Url::parse(url).unwrap())
    }

    fn resolved(
        address_policy: &AddressPolicy,
        name: &str,
        to: &[&str],
    ) -> Result<Vec<String>, BlockedAddress> {
        let found = to
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), 0))
            .collect();
        let allowed = address_policy.0.filter_addresses(name, found)?;
        Ok(allowed.iter().map(|at| at.ip().to_string()).collect())
    }

    #[test]
    fn restricted_literals_are_blocked() {
        let public = address_policy(&[]);
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
    fn names_are_checked_by_address() {
        let public = address_policy(&[]);
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
    async fn blocked_name_is_found_in_error() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();

        let client = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(address_policy(&[]))
            .tls_backend_preconfigured(tls);
        let error = client
            .build()
            .unwrap()
            .get("http://localhost:9/")
            .send()
            .await
            .unwrap_err();

        assert!(BlockedAddress::find_in(&error).is_some(), "{error:?}");
    }

    #[test]
    fn endpoint_allows_its_own_class_only() {
        for endpoint in [
            "http://127.0.0.1:80",
            "http://localhost:80",
            "http://[::1]:80",
        ] {
            let local = address_policy(&[("HF_ENDPOINT", endpoint)]);
            assert_eq!(checked(&local, "http://127.0.0.2/x"), Ok(()), "{endpoint}");
            assert_eq!(
                resolved(&local, "store.example", &["127.0.0.1"]),
                Ok(vec!["127.0.0.1".into()])
            );
            checked(&local, "http://169.254.169.254/x").expect_err("another class");
        }

        let named = address_policy(&[("HF_ENDPOINT", "http://hub.example:80")]);
        resolved(&named, "store.example", &["127.0.0.2"])
            .expect_err("hub.example is not resolved yet");
        assert!(resolved(&named, "hub.example", &["127.0.0.1"]).is_ok());
        assert!(resolved(&named, "store.example", &["127.0.0.2"]).is_ok());

        // An endpoint at a link-local address does not allow the metadata service.
        let link_local = address_policy(&[("HF_ENDPOINT", "http://169.254.1.1")]);
        assert_eq!(checked(&link_local, "http://169.254.1.2/x"), Ok(()));
        checked(&link_local, "http://169.254.169.254/x").expect_err("the metadata service");
    }

    #[test]
    fn proxy_allows_no_other_address() {
        let proxied = address_policy(&[
            ("HTTPS_PROXY", "http://user:pw@proxy.example:3128"),
            ("http_proxy", "127.0.0.1:3128"),
        ]);
        assert!(resolved(&proxied, "proxy.example", &["127.0.0.1"]).is_ok());
        checked(&proxied, "http://127.0.0.1/x").expect_err("not through the proxy's address");
        resolved(&proxied, "evil.example", &["127.0.0.1"]).expect_err("nor by name");
    }
}
