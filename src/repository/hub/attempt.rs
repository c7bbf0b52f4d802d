//! One file or API answer: redirects by hand, refusals understood, everything else tried again
//! within the budget.

use std::time::SystemTime;

use reqwest::header::{AUTHORIZATION, HeaderMap, LINK, LOCATION, RANGE};
use reqwest::{Client, StatusCode};
use tokio::time::timeout_at;
use url::Url;

use super::answer::{self, Bad, Wanted};
use super::backoff;
use super::budget::Budget;
use super::peers::{Peers, RefusedPeer};
use super::refusal::{self, RefusedRequest};
use super::stats::HubOutcome;
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;
use crate::repository::token::Token;

/// Redirects of one request; the Hub uses two (renamed repository, then file store).
const MAX_REDIRECTS: u32 = 8;
/// Attempts at one request, whatever time is left.
const MAX_ATTEMPTS: u32 = 8;
/// Attempts where no connection comes about: a name that is not known or a port that nobody listens
/// at seldom changes within seconds, and whoever waits would rather know.
const MAX_CONNECT_ATTEMPTS: u32 = 3;

/// The client, and whom it may speak to.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) client: Client,
    pub(super) peers: Peers,
}

/// An answer that can be used.
#[derive(Debug)]
pub(super) struct HubResponse {
    pub(super) body: Buffer,
    /// Where it came from in the end; may be signed, never to be printed with its query.
    pub(super) url: Url,
    /// `rel="next"` of a `Link` header.
    pub(super) next: Option<String>,
}

/// What happened to one attempt.
enum AttemptFailure {
    Final(SourceError),
    Again {
        why: String,
        wait: Option<std::time::Duration>,
        limited: bool,
        attempts: u32,
    },
}

impl AttemptFailure {
    /// A failure that another attempt may not meet.
    fn again(why: impl Into<String>) -> Self {
        Self::Again {
            why: why.into(),
            wait: None,
            limited: false,
            attempts: MAX_ATTEMPTS,
        }
    }
}

/// Gets `url`, trying again for as long as the budget allows.
pub(super) async fn get(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    wanted: Wanted,
    asked: &RefusedRequest<'_>,
    budget: &Budget,
) -> Result<HubResponse, SourceError> {
    let (mut attempt, mut last) = (0, None);
    loop {
        budget.pass().await;
        attempt += 1;

        let outcome = {
            let _seat = budget.manners.seat(asked.endpoint, budget.deadline()).await;
            once(http, url, token, wanted, asked, budget).await
        };

        let failed = match outcome {
            Ok(answer) => {
                budget.tally.answered(&asked.hub());
                return Ok(answer);
            }
            Err(AttemptFailure::Final(error)) => {
                budget.tally.answered(&asked.hub());
                return Err(error);
            }
            Err(AttemptFailure::Again {
                why,
                wait,
                limited,
                attempts,
            }) => (why, wait, limited, attempts),
        };

        // What the budget cut short says nothing of the Hub; what it said before does.
        let cut_short = budget.left().is_zero();
        let (why, asked_wait, limited, attempts) = last.filter(|_| cut_short).unwrap_or(failed);
        let pause = backoff::pause(asked_wait, attempt, backoff::chance());
        tracing::debug!(url = %printable(url), attempt, %why, ?pause, "a request to the Hub failed");

        if pause >= budget.left() || attempt >= attempts {
            budget.tally.gave_up(&asked.hub(), &why);
            return Err(if limited {
                SourceError::RateLimited {
                    endpoint: asked.hub(),
                    retry_after: asked_wait,
                }
            } else {
                let elapsed = budget.elapsed();
                SourceError::HubUnreachable {
                    url: printable(url),
                    why,
                    attempts: attempt,
                    elapsed,
                }
            });
        }

        if limited {
            budget.hold(pause);
        } else {
            tokio::time::sleep(pause).await;
        }

        last = Some((why, asked_wait, limited, attempts));
    }
}

/// Gets `url` in one attempt; `None` where that fails in any way.
pub(super) async fn get_once(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    wanted: Wanted,
    asked: &RefusedRequest<'_>,
    budget: &Budget,
) -> Option<HubResponse> {
    budget.pass().await;
    let _seat = budget.manners.seat(asked.endpoint, budget.deadline()).await;
    once(http, url, token, wanted, asked, budget).await.ok()
}

async fn once(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    wanted: Wanted,
    asked: &RefusedRequest<'_>,
    budget: &Budget,
) -> Result<HubResponse, AttemptFailure> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = send(http, &url, token, wanted, asked, budget).await?;
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            url = redirect(&url, response.headers(), asked)?;
            continue;
        }

        if status.is_success() {
            let next = response
                .headers()
                .get(LINK)
                .and_then(|link| next_page(link.to_str().ok()?));
            return match answer::read(response, wanted, budget).await {
                Ok(body) => Ok(HubResponse { body, url, next }),
                Err(Bad::Transient(why)) => Err(AttemptFailure::again(why)),
                Err(Bad::Final(why)) => {
                    let what = asked.file.map_or_else(
                        || asked.repo.to_owned(),
                        |file| format!("{file} of {}", asked.repo),
                    );
                    Err(AttemptFailure::Final(SourceError::MissingMetadata {
                        what,
                        why,
                    }))
                }
            };
        }

        let wait = backoff::asked(response.headers(), SystemTime::now());
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok());
        let limited = status == StatusCode::TOO_MANY_REQUESTS;

        // A store behind the Hub knows nothing of repositories: its refusals are a signature run
        // out, say, and may pass.
        let elsewhere = url.origin() != asked.endpoint.origin();
        return Err(match refusal::meaning(status, code, asked) {
            Some(error) if !elsewhere || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                AttemptFailure::Final(error)
            }
            _ => AttemptFailure::Again {
                why: format!("HTTP {status}"),
                wait,
                limited,
                attempts: MAX_ATTEMPTS,
            },
        });
    }

    Err(AttemptFailure::Final(unusable(
        asked,
        format!("it redirects more than {MAX_REDIRECTS} times; is HF_ENDPOINT a Hub?"),
    )))
}

/// Sends one request. The token goes to the Hub's own origin and nowhere else.
async fn send(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    wanted: Wanted,
    asked: &RefusedRequest<'_>,
    budget: &Budget,
) -> Result<reqwest::Response, AttemptFailure> {
    // An address that is kept from an earlier redirect is looked at again.
    http.peers
        .check(url)
        .map_err(|refused| AttemptFailure::Final(unusable(asked, refused.to_string())))?;
    let mut request = http.client.get(url.clone());
    if let Wanted::Range { start, length } = wanted {
        let last = start.saturating_add(length.max(1)) - 1;
        request = request.header(RANGE, format!("bytes={start}-{last}"));
    }

    if let Some(value) = token
        .filter(|_| url.origin() == asked.endpoint.origin())
        .and_then(Token::header)
    {
        request = request.header(AUTHORIZATION, value);
    }

    let _first = budget.manners.go(url, budget.attempt_deadline()).await;
    budget.request();

    match timeout_at(budget.attempt_deadline(), request.send()).await {
        Ok(Ok(response)) => {
            budget.manners.answered(url);
            budget.tally.ended(HubOutcome::of(response.status()));
            Ok(response)
        }
        Ok(Err(error)) => {
            budget.tally.ended(HubOutcome::Unreachable);
            Err(refused(&error, url, asked))
        }
        Err(_) => {
            budget.tally.ended(HubOutcome::Unreachable);
            Err(AttemptFailure::again("no answer in time"))
        }
    }
}

/// What a request that got no answer ran into, and how often it is worth another try.
fn refused(error: &reqwest::Error, url: &Url, asked: &RefusedRequest<'_>) -> AttemptFailure {
    if let Some(peer) = RefusedPeer::behind(error) {
        return AttemptFailure::Final(unusable(asked, peer.to_string()));
    }

    let cause = answer::cause(error);
    if !error.is_connect() {
        return AttemptFailure::again(format!("the request failed ({cause})"));
    }

    let host = url.host_str().unwrap_or_default();
    let (why, attempts) = if cause.contains("certificate") {
        let cure = "set SSL_CERT_FILE to a file with the CA that your network uses";
        (
            format!("the certificate of {host} is not trusted ({cause}); {cure}"),
            1,
        )
    } else if cause.contains("proxy auth") {
        (
            format!(
                "the proxy wants a user and a password ({cause}); write http://user:password@host:port"
            ),
            1,
        )
    } else {
        (format!("no connection ({cause})"), MAX_CONNECT_ATTEMPTS)
    };

    AttemptFailure::Again {
        why,
        wait: None,
        limited: false,
        attempts,
    }
}

/// Where a redirect leads: http or https, never from https back to http, and without a user or
/// password, which would be sent there as if they were this program's.
fn redirect(
    from: &Url,
    headers: &HeaderMap,
    asked: &RefusedRequest<'_>,
) -> Result<Url, AttemptFailure> {
    let to = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|to| from.join(to).ok());

    match to {
        Some(to)
            if to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http") =>
        {
            Ok(without_user(to))
        }
        _ => Err(AttemptFailure::Final(unusable(
            asked,
            "it redirects to nowhere, or from https to something else".into(),
        ))),
    }
}

fn without_user(mut url: Url) -> Url {
    // These only fail for addresses that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn unusable(asked: &RefusedRequest<'_>, why: String) -> SourceError {
    SourceError::MissingMetadata {
        what: asked.hub(),
        why,
    }
}

/// An address that may be printed: without query, user and fragment.
pub(super) fn printable(url: &Url) -> String {
    let mut url = without_user(url.clone());
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// `<https://...?cursor=x>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(part.split_once('<')?.1.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_addresses_hold_no_secret() {
        let url =
            Url::parse("https://user:secret@cdn/x/y?Signature=secret#secret").expect("an address");
        assert_eq!(printable(&url), "https://cdn/x/y");
    }

    #[test]
    fn a_redirect_loses_user_and_password() {
        let hub = Url::parse("https://hub/").expect("an address");
        let asked = RefusedRequest {
            endpoint: &hub,
            repo: "a/b",
            revision: "main",
            file: None,
            token_given: false,
        };

        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            "https://user:secret@store/x?y=1".parse().expect("a header"),
        );
        let to = redirect(&hub, &headers, &asked).ok().expect("a target");
        assert_eq!(to.as_str(), "https://store/x?y=1");
    }

    #[test]
    fn the_next_page() {
        let link = r#"<https://hub/a?cursor=1>; rel="prev", <https://hub/a?cursor=3>; rel="next""#;
        assert_eq!(next_page(link).as_deref(), Some("https://hub/a?cursor=3"));
        assert_eq!(next_page("<x>; rel=\"last\""), None);
    }
}
