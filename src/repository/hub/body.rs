//! Reads the body of a response, and no more of it than needed.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use tokio::time::timeout;

use super::budget::Budget;
use crate::repository::buffer::Buffer;

/// Which part of a file to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPart {
    /// The whole file.
    Whole {
        /// Maximum length in bytes.
        limit: u64,
    },
    /// The first bytes, or the whole file if it is shorter.
    Prefix {
        /// Length in bytes.
        length: u64,
    },
    /// A range of bytes.
    Range {
        /// The first byte.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
}

/// Why a body is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Another attempt may succeed.
    Transient(String),
    /// Every attempt would fail in the same way.
    Final(String),
}

/// Reads the body of a successful response.
/// A server that ignores `Range` sends the whole file. The client reads up to the end of the range
/// and then drops the connection.
pub(super) async fn read(
    mut response: reqwest::Response,
    part: BodyPart,
    budget: &Budget,
) -> Result<Buffer, BodyError> {
    let (skip, max) = match (part, response.status()) {
        (BodyPart::Whole { limit: max } | BodyPart::Prefix { length: max }, StatusCode::OK) => {
            (0, max)
        }
        (BodyPart::Range { start, length }, StatusCode::PARTIAL_CONTENT) => {
            check_range(header(&response, &CONTENT_RANGE), start, length)?;
            (0, length)
        }
        (BodyPart::Range { start, length }, StatusCode::OK) => (start, length),
        (_, status) => {
            return Err(BodyError::Final(format!(
                "it answers {status} to a request for a file"
            )));
        }
    };

    if let (BodyPart::Whole { limit }, Some(length)) = (part, content_length(&response))
        && length > limit
    {
        return Err(BodyError::Final(format!(
            "it has {length} bytes, more than the limit of {limit} for such a file"
        )));
    }

    let declared = content_length(&response);
    let mut body = Buffer::with_room(declared.unwrap_or(0).min(max));
    let mut passed: u64 = 0;

    loop {
        let chunk = match timeout(budget.attempt.min(budget.left()), response.chunk()).await {
            Err(_) => return Err(BodyError::Transient(stall_reason(budget))),
            Ok(Err(error)) => {
                return Err(BodyError::Transient(format!(
                    "the response broke off ({})",
                    cause(&error)
                )));
            }
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => chunk,
        };

        if !budget.spend_bytes(chunk.len() as u64) {
            return Err(BodyError::Final(
                "its responses exceed the byte limit for one model".into(),
            ));
        }

        let before = usize::try_from(skip.saturating_sub(passed))
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        passed += chunk.len() as u64;
        let have = body.len() as u64;
        let room = usize::try_from(max.saturating_sub(have)).unwrap_or(usize::MAX);
        let useful = chunk.get(before..).unwrap_or_default();
        body.extend(useful.get(..room.min(useful.len())).unwrap_or_default());

        match part {
            BodyPart::Whole { limit } if passed > limit => {
                return Err(BodyError::Final(format!(
                    "it has more than {limit} bytes, the limit for such a file"
                )));
            }
            // The part is complete. Dropping the response closes the connection.
            BodyPart::Range { .. } | BodyPart::Prefix { .. } if body.len() as u64 == max => break,
            _ => {}
        }
    }

    match part {
        BodyPart::Range { .. }
            if declared.is_some_and(|declared| passed < declared) && (body.len() as u64) < max =>
        {
            Err(BodyError::Transient(
                "the response is shorter than its Content-Length".into(),
            ))
        }
        _ => Ok(body),
    }
}

/// Checks a header such as `bytes 0-1023/146515`: the range must begin at `start` and have at most
/// `length` bytes.
fn check_range(value: Option<&str>, start: u64, length: u64) -> Result<(), BodyError> {
    let wrong_range = || {
        BodyError::Transient(match value {
            Some(value) => {
                format!("its Content-Range {value:?} is not the range that was requested")
            }
            None => "it answers with a part of the file but without Content-Range".into(),
        })
    };

    let range = value
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|range| range.split('/').next());
    let (first, last) = range
        .and_then(|range| range.split_once('-'))
        .ok_or_else(wrong_range)?;
    let (first, last): (u64, u64) = first
        .parse()
        .ok()
        .zip(last.parse().ok())
        .ok_or_else(wrong_range)?;

    if first == start && last >= first && last - first < length {
        Ok(())
    } else {
        Err(wrong_range())
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

fn stall_reason(budget: &Budget) -> String {
    if budget.left() == Duration::ZERO {
        "no more data before the deadline".into()
    } else {
        "no data for too long".into()
    }
}

/// Returns the innermost cause of an HTTP error, which contains no address.
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
    fn range_must_match_the_request() {
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
