//! Sends one request to a Hub with retries, redirects and a time budget.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, LINK, LOCATION, RANGE};
use tokio::time::timeout_at;
use url::Url;

use super::address_policy::BlockedAddress;
use super::backoff;
use super::body::{self, BodyError, BodyPart};
use super::budget::Budget;
use super::http::Http;
use super::refusal::{self, RequestContext};
use super::stats::HubOutcome;
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;
use crate::repository::token::Token;

/// Maximum redirects of one request. The Hub uses two: renamed repository, then file store.
const MAX_REDIRECTS: u32 = 8;
/// Maximum attempts at one request, whatever time is left.
const MAX_ATTEMPTS: u32 = 8;
/// Maximum attempts if no connection can be made. An unknown name or a port without a listener
/// seldom changes within seconds, so the client reports it early.
const MAX_CONNECT_ATTEMPTS: u32 = 3;

/// A successful response.
#[derive(Debug)]
pub(super) struct HubResponse {
    pub(super) body: Buffer,
    /// The address after all redirects. It may be signed: never print its query.
    pub(super) url: Url,
    /// The `rel="next"` target of the `Link` header.
    pub(super) next: Option<String>,
}

/// Why one attempt failed.
enum AttemptError {
    Final(SourceError),
    Retry(Retry),
}

/// A failure that the next attempt may not meet.
#[derive(Debug)]
struct Retry {
    why: String,
    /// The wait that the server asked for.
    server_wait: Option<Duration>,
    is_rate_limited: bool,
    /// Maximum attempts if they all fail in this way.
    max_attempts: u32,
}

impl AttemptError {
    fn retry(why: impl Into<String>) -> Self {
        Self::Retry(Retry {
            why: why.into(),
            server_wait: None,
            is_rate_limited: false,
            max_attempts: MAX_ATTEMPTS,
        })
    }
}

/// Gets `url`, with retries as long as the budget allows.
pub(super) async fn get(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    part: BodyPart,
    context: &RequestContext<'_>,
    budget: &Budget,
) -> Result<HubResponse, SourceError> {
    let (mut attempts, mut earlier) = (0, None);
    loop {
        budget.wait_for_pause().await;
        attempts += 1;

        let outcome = {
            let deadline = budget.deadline();
            let _slot = budget
                .request_slots
                .acquire(context.endpoint, deadline)
                .await;
            attempt(http, url, token, part, context, budget).await
        };

        let failure = match outcome {
            Ok(response) => {
                budget.stats.record_answer(&context.hub());
                return Ok(response);
            }
            Err(AttemptError::Final(error)) => {
                budget.stats.record_answer(&context.hub());
                return Err(error);
            }
            Err(AttemptError::Retry(failure)) => failure,
        };

        // An attempt that the budget cut short says nothing about the Hub. Report the earlier
        // failure.
        let is_cut_short = budget.left().is_zero();
        let failure = earlier.filter(|_| is_cut_short).unwrap_or(failure);
        let pause = backoff::retry_delay(failure.server_wait, attempts, backoff::jitter());
        tracing::debug!(
            url = %printable(url), attempt = attempts, why = %failure.why, ?pause,
            "a request to the Hub failed"
        );

        if pause >= budget.left() || attempts >= failure.max_attempts {
            budget.stats.record_outage(&context.hub(), &failure.why);
            return Err(give_up(failure, url, attempts, context, budget));
        }

        if failure.is_rate_limited {
            budget.pause_requests(pause);
        } else {
            tokio::time::sleep(pause).await;
        }

        earlier = Some(failure);
    }
}

/// Returns the error to report after the last attempt.
fn give_up(
    failure: Retry,
    url: &Url,
    attempts: u32,
    context: &RequestContext<'_>,
    budget: &Budget,
) -> SourceError {
    if failure.is_rate_limited {
        SourceError::RateLimited {
            endpoint: context.hub(),
            retry_after: failure.server_wait,
        }
    } else {
        SourceError::HubUnreachable {
            url: printable(url),
            why: failure.why,
            attempts,
            elapsed: budget.elapsed(),
        }
    }
}

/// Gets `url` in one attempt. Returns `None` if it fails in any way.
pub(super) async fn get_once(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    part: BodyPart,
    context: &RequestContext<'_>,
    budget: &Budget,
) -> Option<HubResponse> {
    budget.wait_for_pause().await;
    let deadline = budget.deadline();
    let _slot = budget
        .request_slots
        .acquire(context.endpoint, deadline)
        .await;
    attempt(http, url, token, part, context, budget).await.ok()
}

async fn attempt(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    part: BodyPart,
    context: &RequestContext<'_>,
    budget: &Budget,
) -> Result<HubResponse, AttemptError> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = send(http, &url, token, part, context, budget).await?;
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            url = redirect_target(&url, response.headers(), context)?;
            continue;
        }

        if status.is_success() {
            let next = response
                .headers()
                .get(LINK)
                .and_then(|link| next_page(link.to_str().ok()?));
            return match body::read(response, part, budget).await {
                Ok(body) => Ok(HubResponse { body, url, next }),
                Err(BodyError::Transient(why)) => Err(AttemptError::retry(why)),
                Err(BodyError::Final(why)) => {
                    let what = context.what();
                    Err(AttemptError::Final(SourceError::MissingMetadata {
                        what,
                        why,
                    }))
                }
            };
        }

        return Err(refused_response(&response, &url, context));
    }

    Err(AttemptError::Final(invalid_hub(
        context,
        format!("it redirects more than {MAX_REDIRECTS} times; is HF_ENDPOINT a Hub?"),
    )))
}

/// Returns the error for a response that is neither a success nor a redirect.
fn refused_response(
    response: &reqwest::Response,
    url: &Url,
    context: &RequestContext<'_>,
) -> AttemptError {
    let (status, headers) = (response.status(), response.headers());
    let code = headers
        .get("x-error-code")
        .and_then(|code| code.to_str().ok());

    // The file store behind the Hub knows no repositories. Its refusals can be temporary, such as
    // an expired signature, so they are retried.
    let is_store = url.origin() != context.endpoint.origin();
    match refusal::final_error(status, code, context) {
        Some(error) if !is_store || status == StatusCode::RANGE_NOT_SATISFIABLE => {
            AttemptError::Final(error)
        }
        _ => AttemptError::Retry(Retry {
            why: format!("HTTP {status}"),
            server_wait: backoff::retry_after(headers, SystemTime::now()),
            is_rate_limited: status == StatusCode::TOO_MANY_REQUESTS,
            max_attempts: MAX_ATTEMPTS,
        }),
    }
}

/// Sends one request. The token goes to the Hub's own origin and nowhere else.
async fn send(
    http: &Http,
    url: &Url,
    token: Option<&Token>,
    part: BodyPart,
    context: &RequestContext<'_>,
    budget: &Budget,
) -> Result<reqwest::Response, AttemptError> {
    // The address may come from an earlier redirect: check it again.
    http.address_policy
        .check(url)
        .map_err(|blocked| AttemptError::Final(invalid_hub(context, blocked.to_string())))?;
    let mut request = http.client.get(url.clone());
    if let BodyPart::Range { start, length } = part {
        let last = start.saturating_add(length.max(1)) - 1;
        request = request.header(RANGE, format!("bytes={start}-{last}"));
    }

    if let Some(value) = token
        .filter(|_| url.origin() == context.endpoint.origin())
        .and_then(Token::header)
    {
        request = request.header(AUTHORIZATION, value);
    }

    let _first = budget
        .request_slots
        .wait_for_first(url, budget.attempt_deadline())
        .await;
    budget.count_request();

    match timeout_at(budget.attempt_deadline(), request.send()).await {
        Ok(Ok(response)) => {
            budget.request_slots.record_answer(url);
            budget
                .stats
                .count_request(HubOutcome::of(response.status()));
            Ok(response)
        }
        Ok(Err(error)) => {
            budget.stats.count_request(HubOutcome::Unreachable);
            Err(send_error(&error, url, context))
        }
        Err(_) => {
            budget.stats.count_request(HubOutcome::Unreachable);
            Err(AttemptError::retry("no response in time"))
        }
    }
}

/// Returns why a request got no response, and how many attempts that is worth.
fn send_error(error: &reqwest::Error, url: &Url, context: &RequestContext<'_>) -> AttemptError {
    if let Some(peer) = BlockedAddress::find_in(error) {
        return AttemptError::Final(invalid_hub(context, peer.to_string()));
    }

    let cause = body::cause(error);
    if !error.is_connect() {
        return AttemptError::retry(format!("the request failed ({cause})"));
    }

    let host = url.host_str().unwrap_or_default();
    let (why, max_attempts) = if cause.contains("certificate") {
        let fix = "set SSL_CERT_FILE to a file with the CA that your network uses";
        let why = format!("the certificate of {host} is not trusted ({cause}); {fix}");
        (why, 1)
    } else if cause.contains("proxy auth") {
        let fix = "write http://user:password@host:port";
        let why = format!("the proxy needs a user and a password ({cause}); {fix}");
        (why, 1)
    } else {
        (format!("no connection ({cause})"), MAX_CONNECT_ATTEMPTS)
    };

    AttemptError::Retry(Retry {
        why,
        server_wait: None,
        is_rate_limited: false,
        max_attempts,
    })
}

/// Returns the target of a redirect.
/// The target must be http or https, and never http after https. User and password are removed: the
/// client would send them as its own.
fn redirect_target(
    from: &Url,
    headers: &HeaderMap,
    context: &RequestContext<'_>,
) -> Result<Url, AttemptError> {
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
        _ => Err(AttemptError::Final(invalid_hub(
            context,
            "it redirects to nowhere, or from https to something else".into(),
        ))),
    }
}

fn without_user(mut url: Url) -> Url {
    // These calls fail only for addresses that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn invalid_hub(context: &RequestContext<'_>, why: String) -> SourceError {
    SourceError::MissingMetadata {
        what: context.hub(),
        why,
    }
}

/// Returns an address that may be printed: without query, user and fragment.
pub(super) fn printable(url: &Url) -> String {
    let mut url = without_user(url.clone());
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Returns the target of a link such as `<https://...?cursor=x>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(part.split_once('<')?.1.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_address_holds_no_secret() {
        let url =
            Url::parse("https://user:secret@cdn/x/y?Signature=secret#secret").expect("an address");
        assert_eq!(printable(&url), "https://cdn/x/y");
    }

    #[test]
    fn redirect_loses_user_and_password() {
        let hub = Url::parse("https://hub/").expect("an address");
        let context = RequestContext {
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
        let to = redirect_target(&hub, &headers, &context)
            .ok()
            .expect("a target");
        assert_eq!(to.as_str(), "https://store/x?y=1");
    }

    #[test]
    fn next_page_is_read_from_link() {
        let link = r#"<https://hub/a?cursor=1>; rel="prev", <https://hub/a?cursor=3>; rel="next""#;
        assert_eq!(next_page(link).as_deref(), Some("https://hub/a?cursor=3"));
        assert_eq!(next_page("<x>; rel=\"last\""), None);
    }
}
