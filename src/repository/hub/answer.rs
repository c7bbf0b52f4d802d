//! The body of an answer, read no further than wanted.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use tokio::time::timeout;

use super::budget::Budget;
use crate::repository::buffer::Buffer;

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it, at most so many bytes.
    Whole {
        /// The bound.
        limit: u64,
    },
    /// So many bytes from its beginning, or all of it where it is shorter.
    Beginning {
        /// How many.
        length: u64,
    },
    /// Some bytes of it.
    Range {
        /// The first.
        start: u64,
        /// How many.
        length: u64,
    },
}

/// Why a body is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Another attempt may do better.
    Transient(String),
    /// Every attempt would end so.
    Final(String),
}

/// Reads the body of a successful answer. A server that ignores `Range` and sends everything is
/// read up to what is wanted and then left.
pub(super) async fn read(
    mut response: reqwest::Response,
    wanted: Wanted,
    budget: &Budget,
) -> Result<Buffer, Bad> {
    let (skip, most) = match (wanted, response.status()) {
        (Wanted::Whole { limit: most } | Wanted::Beginning { length: most }, StatusCode::OK) => {
            (0, most)
        }
        (Wanted::Range { start, length }, StatusCode::PARTIAL_CONTENT) => {
            check_range(header(&response, &CONTENT_RANGE), start, length)?;
            (0, length)
        }
        (Wanted::Range { start, length }, StatusCode::OK) => (start, length),
        (_, status) => {
            return Err(Bad::Final(format!(
                "it answers {status} to a request for a file"
            )));
        }
    };

    if let (Wanted::Whole { limit }, Some(length)) = (wanted, content_length(&response))
        && length > limit
    {
        return Err(Bad::Final(format!(
            "it has {length} bytes, more than the {limit} that are read of such a file"
        )));
    }

    let declared = content_length(&response);
    let mut body = Buffer::with_room(declared.unwrap_or(0).min(most));
    let mut passed: u64 = 0;

    loop {
        let chunk = match timeout(budget.attempt.min(budget.left()), response.chunk()).await {
            Err(_) => return Err(Bad::Transient(slow(budget))),
            Ok(Err(error)) => {
                return Err(Bad::Transient(format!(
                    "the answer broke off ({})",
                    cause(&error)
                )));
            }
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => chunk,
        };

        if !budget.spend(chunk.len() as u64) {
            return Err(Bad::Final(
                "its answers are longer than a model's metadata may be".into(),
            ));
        }

        let before = usize::try_from(skip.saturating_sub(passed))
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        passed += chunk.len() as u64;
        let have = body.len() as u64;
        let room = usize::try_from(most.saturating_sub(have)).unwrap_or(usize::MAX);
        let useful = chunk.get(before..).unwrap_or_default();
        body.extend(useful.get(..room.min(useful.len())).unwrap_or_default());

        match wanted {
            Wanted::Whole { limit } if passed > limit => {
                return Err(Bad::Final(format!(
                    "it has more than the {limit} bytes that are read of such a file"
                )));
            }
            // All that is wanted: the connection is dropped with the response.
            Wanted::Range { .. } | Wanted::Beginning { .. } if body.len() as u64 == most => break,
            _ => {}
        }
    }

    match wanted {
        Wanted::Range { .. }
            if declared.is_some_and(|declared| passed < declared) && (body.len() as u64) < most =>
        {
            Err(Bad::Transient("the answer is shorter than it says".into()))
        }
        _ => Ok(body),
    }
}

/// `bytes 0-1023/146515`: must begin where it was asked to and be no longer.
fn check_range(value: Option<&str>, start: u64, length: u64) -> Result<(), Bad> {
    let wrong = || {
        Bad::Transient(match value {
            Some(value) => {
                format!("it was asked for another range than its Content-Range says, {value:?}")
            }
            None => "it answers with a part of the file and does not say which (no Content-Range)"
                .into(),
        })
    };

    let range = value
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|range| range.split('/').next());
    let (first, last) = range
        .and_then(|range| range.split_once('-'))
        .ok_or_else(wrong)?;
    let (first, last): (u64, u64) = first
        .parse()
        .ok()
        .zip(last.parse().ok())
        .ok_or_else(wrong)?;

    if first == start && last >= first && last - first < length {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn header<'r>(
    response: &'r reqwest::Response,
    name: &reqwest::header::HeaderName,
) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

fn content_length(response: &reqwest::Response) -> Option<u64> {
    header(response, &CONTENT_LENGTH)?.parse().ok()
}

fn slow(budget: &Budget) -> String {
    if budget.left() == Duration::ZERO {
        "nothing more came until the time was up".into()
    } else {
        "nothing came for too long".into()
    }
}

/// The innermost reason of an HTTP error: it has no address in it.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_be_the_ones_asked_for() {
        assert_eq!(check_range(Some("bytes 0-9/100"), 0, 10), Ok(()));
        assert_eq!(check_range(Some("bytes 5-6/*"), 5, 10), Ok(()));

        for wrong in [
            None,
            Some("bytes 1-10/100"),
            Some("bytes 0-10/100"),
            Some("bytes 9-0/1"),
            Some("0-9/100"),
            Some("bytes */100"),
            Some("bytes 0-99999999999999999999/1"),
        ] {
            assert!(check_range(wrong, 0, 10).is_err(), "{wrong:?}");
        }
    }
}
