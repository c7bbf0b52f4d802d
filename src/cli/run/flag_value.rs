//! Flag values as engine parameters.

use serde_json::Value;

/// Parses a value as JSON, with Python's `True` and `False`; any other text is a string.
pub(super) fn value(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(parsed) => parsed,
        Err(_) => match text {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            word => Value::String(word.to_owned()),
        },
    }
}

/// Parses a length as vLLM does: `32k` is 32000, `32K` is 32768 (`human_readable_int`).
pub(super) fn tokens(text: &str) -> Value {
    let units = [
        ('k', 1_000),
        ('m', 1_000_000),
        ('K', 1 << 10),
        ('M', 1 << 20),
    ];
    let with_unit = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let Some((number, factor)) = with_unit else {
        return value(text);
    };

    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = u32::try_from(fraction.len())
        .ok()
        .and_then(|digits| 10_u64.checked_pow(digits));
    let parsed = format!("{whole}{fraction}").parse::<u64>().ok();
    let tokens = scale
        .zip(parsed)
        .and_then(|(scale, parsed)| Some(parsed.checked_mul(factor)? / scale));

    // The engine itself rejects an invalid length.
    tokens.map_or_else(|| Value::String(text.to_owned()), Value::from)
}

/// Returns the largest number of a list with one number per device; other text stays as it is.
pub(super) fn largest(text: &str) -> Value {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let largest = numbers.ok().and_then(|numbers| numbers.into_iter().max());
    largest.map_or_else(|| value(text), Value::from)
}
