//! Rejects browsers: a web page must not reach the socket, not even through a proxy in front of
//! it.

use axum::http::{HeaderMap, HeaderName, Uri, header};
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

/// Headers that only browsers send.
static BROWSER_HEADERS: [HeaderName; 3] = [
    header::ORIGIN,
    header::REFERER,
    HeaderName::from_static("sec-fetch-site"),
];

/// The names under which clients can address this socket. A request with another `Host` was meant
/// for another server, or its name was rebound to this one.
const OWN_NAMES: [&str; 6] = [
    "",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "unix",
    "hf-mem-probe",
];

/// Rejects requests that a browser would send.
pub(super) fn reject_browsers(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    for name in &BROWSER_HEADERS {
        if headers.contains_key(name) {
            return Err(Problem::new(
                Reason::Forbidden,
                format!("requests with the header `{name}` are rejected"),
            )
            .hint(
                "this socket is for programs of this host, not for web pages; omit this header",
            ));
        }
    }

    let named = headers
        .get_all(header::HOST)
        .iter()
        .map(|value| value.to_str().ok())
        .chain(uri.host().map(Some));
    for host in named {
        if !host.is_some_and(is_own_name) {
            let shown: String = host.unwrap_or("(not text)").chars().take(80).collect();
            return Err(Problem::new(
                Reason::Forbidden,
                format!("requests for the host '{shown}' are rejected"),
            )
            .hint(
                "use http://localhost/..., as in `curl --unix-socket PATH \
                 http://localhost/v1/health`",
            ));
        }
    }

    Ok(())
}

fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    OWN_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(name: &'static str, value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        reject_browsers(&headers, &Uri::from_static("/v1/health")).is_err()
    }

    #[test]
    fn browsers_and_foreign_hosts_are_rejected() {
        assert!(rejected("origin", "https://evil.example"));
        assert!(rejected("origin", "null"));
        assert!(rejected("referer", "http://localhost/"));
        assert!(rejected("sec-fetch-site", "none"));

        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:80",
            "localhost:evil",
            "127.0.0.1.nip.io",
        ] {
            assert!(rejected("host", host), "{host}");
        }

        let uri = Uri::from_static("http://evil.example/v1/health");
        assert!(
            reject_browsers(&HeaderMap::new(), &uri).is_err(),
            "absolute form"
        );
    }

    #[test]
    fn local_programs_are_accepted() {
        for host in [
            "",
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "unix",
            "hf-mem-probe",
        ] {
            assert!(!rejected("host", host), "{host}");
        }
    }
}
