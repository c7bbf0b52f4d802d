//! The connection pool of all Hubs: TLS, proxies, redirects and the addresses it may connect to.

use reqwest::{Client, NoProxy, Proxy, redirect};

use super::address_policy::AddressPolicy;
use super::body::cause;
use crate::repository::error::SourceError;
use crate::repository::settings::{HubSettings, Proxies};

/// The HTTP client and the addresses that it may connect to.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) client: Client,
    pub(super) address_policy: AddressPolicy,
}

/// Builds the client: TLS by rustls and ring with the system's certificates, proxies from the
/// settings. It follows no redirect by itself and connects to no address that the policy blocks.
pub(super) fn build(settings: &HubSettings) -> Result<Http, SourceError> {
    // An error means that the program has chosen a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address_policy = AddressPolicy::new(settings);

    let client = match builder(settings, &address_policy)?.build() {
        Ok(client) => client,
        // A host without any certificate can still reach a Hub over plain HTTP; https addresses
        // then fail.
        Err(_) if settings.endpoint.scheme() == "http" => {
            let tls = rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder(settings, &address_policy)?
                .tls_backend_preconfigured(tls)
                .build()
                .map_err(|error| tls_error(&error))?
        }
        Err(error) => return Err(tls_error(&error)),
    };

    Ok(Http {
        client,
        address_policy,
    })
}

fn builder(
    settings: &HubSettings,
    address_policy: &AddressPolicy,
) -> Result<reqwest::ClientBuilder, SourceError> {
    let plain = Client::builder()
        .dns_resolver(address_policy.clone())
        .user_agent(concat!("hf-mem-probe/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(settings.limits.connect)
        .no_proxy();

    let proxies = proxies(&settings.proxies)?;
    Ok(proxies
        .into_iter()
        .fold(plain, reqwest::ClientBuilder::proxy))
}

fn tls_error(error: &reqwest::Error) -> SourceError {
    SourceError::BadSetting {
        name: "TLS".into(),
        why: format!(
            "cannot create an HTTP client ({}); install CA certificates or set SSL_CERT_FILE",
            cause(error)
        ),
    }
}

/// Creates a proxy from its address.
type NewProxy = fn(String) -> reqwest::Result<Proxy>;

fn proxies(settings: &Proxies) -> Result<Vec<Proxy>, SourceError> {
    let none_for = settings.none_for.as_deref().and_then(NoProxy::from_string);
    let mut proxies = Vec::new();

    let kinds: [(&str, &Option<String>, NewProxy); 3] = [
        ("http_proxy", &settings.http, Proxy::http),
        ("HTTPS_PROXY", &settings.https, Proxy::https),
        ("ALL_PROXY", &settings.all, Proxy::all),
    ];
    for (name, address, new_proxy) in kinds {
        let Some(address) = address else { continue };
        let proxy = new_proxy(with_scheme(address)).map_err(|error| SourceError::BadSetting {
            name: name.into(),
            why: format!(
                "not the address of a proxy ({}); write http://host:port",
                cause(&error)
            ),
        })?;
        proxies.push(proxy.no_proxy(none_for.clone()));
    }

    Ok(proxies)
}

/// Returns the address of a proxy with its scheme; `http://` is the default, as it is for curl.
pub(super) fn with_scheme(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    }
}
