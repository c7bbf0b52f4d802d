//! Parsers of typed values: context lengths, engine parameters, durations, times.

use std::time::{Duration, SystemTime};

use super::question::ContextArgument;
use crate::api::bounds::reject_control_characters;

pub(super) fn parse_context(text: &str) -> Result<ContextArgument, String> {
    if text == "max" {
        return Ok(ContextArgument::Max);
    }

    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (text, 1),
    };

    let tokens = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .filter(|tokens| *tokens > 0);

    tokens
        .map(ContextArgument::Tokens)
        .ok_or_else(|| "expected a number of tokens such as 32768 or 32k, or \"max\"".to_owned())
}

/// Parses `key=value`: numbers, booleans and null as in JSON, any other value as a string.
pub(super) fn parse_setting(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let key = key.trim().trim_start_matches("--").replace('-', "_");
    if key.is_empty() {
        return Err("the parameter name is empty".to_owned());
    }

    let value = match serde_json::from_str::<serde_json::Value>(value) {
        Ok(parsed) if !parsed.is_object() => parsed,
        _ => serde_json::Value::String(value.to_owned()),
    };

    Ok((key, value))
}

/// Parses a holder's name by the daemon's own rule.
pub(super) fn parse_holder(text: &str) -> Result<String, String> {
    reject_control_characters("--holder", text).map_err(|problem| problem.detail)?;
    Ok(text.to_owned())
}

/// The longest duration that any flag accepts, so that a deadline stays within every clock's range.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Parses a duration such as `120s` or `5min`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration such as 120s or 5min: {error}"))?;

    if duration > MAX_DURATION {
        Err("longer than 100 years".to_owned())
    } else {
        Ok(duration)
    }
}

/// Parses a time limit, which must be longer than zero.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() {
        Err("a time limit must be longer than zero, such as 5s".to_owned())
    } else {
        Ok(timeout)
    }
}

/// Parses a moment: RFC 3339, `now`, or a duration before now.
pub(super) fn parse_time(text: &str) -> Result<SystemTime, String> {
    if text == "now" {
        return Ok(SystemTime::now());
    }

    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }

    let ago = humantime::parse_duration(text).map_err(|_| {
        "expected a time such as 2026-11-23T15:04:05Z, \"now\", or 10min for ten minutes ago"
            .to_owned()
    })?;

    // The journal prints RFC 3339 times, and humantime formats none before 1970.
    let time = SystemTime::now()
        .checked_sub(ago)
        .filter(|time| *time >= SystemTime::UNIX_EPOCH);

    time.ok_or_else(|| "a time before 1970: no journal goes back that far".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_contexts_and_settings_parse() {
        assert_eq!(parse_context("32k"), Ok(ContextArgument::Tokens(32768)));
        assert_eq!(parse_context("max"), Ok(ContextArgument::Max));
        assert!(parse_context("0").is_err());
        assert!(parse_context("18446744073709551615k").is_err());

        assert_eq!(
            parse_setting("--max-num-seqs=256"),
            Ok(("max_num_seqs".to_owned(), 256.into()))
        );
        assert_eq!(
            parse_setting("dtype=bfloat16"),
            Ok(("dtype".to_owned(), "bfloat16".into()))
        );

        assert_eq!(
            parse_setting("enforce_eager=true"),
            Ok(("enforce_eager".to_owned(), true.into()))
        );
        assert!(parse_setting("=3").is_err());
    }

    #[test]
    fn times_out_of_range_are_refused() {
        assert!(parse_time("10min").unwrap() < SystemTime::now());
        assert!(parse_time("2026-11-23T15:04:05Z").is_ok());

        for before in ["60y", "100000d", "584542046090y", "1969-12-31T23:59:59Z"] {
            assert!(parse_time(before).is_err(), "{before}");
        }

        assert_eq!(parse_duration("5min"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("500000000000y").is_err());
    }
}
