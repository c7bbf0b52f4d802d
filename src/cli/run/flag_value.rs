//! Values of flags as the engine's parameters take them.

use serde_json::Value;

/// A value as the engine's parameters take it.
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

/// A length as vLLM takes it: `32k` is 32000, `32K` is 32768 (`human_readable_int`).
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

    // What is no length is the engine's to refuse, with its words.
    tokens.map_or_else(|| Value::String(text.to_owned()), Value::from)
}

/// The largest of a list with one number for each device; other texts as they are.
pub(super) fn largest(text: &str) -> Value {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let largest = numbers.ok().and_then(|numbers| numbers.into_iter().max());
    largest.map_or_else(|| value(text), Value::from)
}
