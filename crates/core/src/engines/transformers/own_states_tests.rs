//! Families with caches or states of their own kinds, against transformers' cache objects.
//!
//! Each row of `own_states_rows.jsonl` is a small configuration and the bytes of the cache's
//! floating tensors after one forward pass of transformers 5.24.0 in bfloat16
//! (`referees/transformers 5.24.0 --rows`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::engines::sample::{components, model, prepare, sum, tokens};
use crate::engines::{AskedWorkload, ComponentName, Interval, Split};
use crate::model::Inventory;

/// The caches and states for a row's configuration, and the longest input of its encoder.
fn caches_and_states(row: &Value) -> Result<(Interval, Option<u64>), String> {
    let model = model(&row["config"], Inventory::default());
    let architecture = model.architecture.as_ref().map_err(ToString::to_string)?;
    let asked = AskedWorkload {
        dtype: Some("bfloat16".to_owned()),
        ..tokens(row["tokens"].as_u64().unwrap_or_default())
    };

    let no_parameters = BTreeMap::new();
    let prepared = prepare(&Transformers, &model, asked, (None, &no_parameters))
        .map_err(|error| error.to_string())?;
    let parts = components(&*prepared, &Split::single(architecture.layer_count()), 0);
    let caches = sum(&parts, ComponentName::KvCache).plus(sum(&parts, ComponentName::State));
    Ok((
        caches,
        architecture.encoder.map(|encoder| encoder.max_tokens),
    ))
}

/// Whether the answer is the row's figure.
///
/// If the encoder's input may have any length, the answer reaches from none to the longest, and the
/// row's input has a share of that.
fn is_equal(row: &Value, caches: Interval, longest: Option<u64>) -> bool {
    let theirs = row["cache_bytes"].as_u64().unwrap();
    let (low, high) = (caches.low.get(), caches.high.get());
    match (row["encoder_tokens"].as_u64(), longest) {
        (Some(encoder_tokens), Some(longest)) if low < high => {
            encoder_tokens <= longest
                && theirs > low
                && (theirs - low) * longest == (high - low) * encoder_tokens
        }
        _ => caches.likely.get() == theirs,
    }
}

#[test]
fn caches_equal_engines_own() {
    let rows: Vec<Value> = include_str!("own_states_rows.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(rows.len() > 40);

    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let ours = caches_and_states(row);
            let equal = ours
                .as_ref()
                .is_ok_and(|(caches, longest)| is_equal(row, *caches, *longest));
            (!equal).then(|| {
                format!(
                    "{}, {}: {}, here {ours:?}",
                    row["name"], row["tokens"], row["cache_bytes"]
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
