//! Overrides of single layers, from `per_layer_config`.
//!
//! Source: transformers 5.23 `integrations/heterogeneity/configuration_utils.py` (a sparse map from
//! layer indices to the attributes that differ) and `models/gemma4/configuration_gemma4.py`, which
//! writes its global heads that way.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::architecture::{Span, Unsupported};
use super::fields::{Fields, Object, contradiction, cut};
use super::heads::{self, Heads};

const KEY: &str = "per_layer_config";
/// Attributes that are applied.
const APPLIED: &[&str] = &[
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "v_head_dim",
    "sliding_window",
];
/// Attributes of the feed-forward, which may only be smaller than the common value.
///
/// The widest layer determines the workspaces.
const WIDTHS: &[&str] = &["intermediate_size", "moe_intermediate_size"];

/// The layers that differ, and their attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides<'a> {
    layers: BTreeMap<usize, &'a Object>,
}

impl<'a> Overrides<'a> {
    /// Reads the map, and rejects unknown attributes by name.
    pub(super) fn read(fields: &Fields<'a>, layers: usize) -> Result<Self, Unsupported> {
        let mut overrides = Self::default();
        for (index, value) in entries(fields, layers)? {
            let (layer, object) = entry(&index, value, layers)?;
            for (key, value) in object {
                let is_narrower = WIDTHS.contains(&key.as_str())
                    && value
                        .as_u64()
                        .zip(fields.count(&[key])?)
                        .is_some_and(|(own, all)| own <= all);
                if !APPLIED.contains(&key.as_str()) && !is_narrower {
                    return Err(fields.family(format!("{KEY}[{layer}].{}", cut(key, 60))));
                }
            }

            overrides.layers.insert(layer, object);
        }

        Ok(overrides)
    }

    /// Rejects overrides in a family whose layers are not read one by one.
    pub(super) fn reject(fields: &Fields<'a>, layers: usize) -> Result<(), Unsupported> {
        let overrides = Self::read(fields, layers)?;
        let mut attributes = overrides.layers.values().flat_map(|object| object.keys());
        if attributes.any(|key| APPLIED.contains(&key.as_str())) {
            Err(fields.family(KEY))
        } else {
            Ok(())
        }
    }

    /// Returns the heads of `layer`, given those that all layers share.
    pub(super) fn heads(
        &self,
        fields: &Fields<'a>,
        layer: usize,
        all: Heads,
    ) -> Result<Heads, Unsupported> {
        let Some(object) = self.layers.get(&layer) else {
            return Ok(all);
        };

        let own = fields.inside(object);
        let key_dim = own.size(&["head_dim"])?;

        let heads = Heads {
            query: own.size(&["num_attention_heads"])?.unwrap_or(all.query),
            kv: own.size(&["num_key_value_heads"])?.unwrap_or(all.kv),
            key_dim: key_dim.unwrap_or(all.key_dim),
            value_dim: own
                .size(&["v_head_dim"])?
                .or(key_dim)
                .unwrap_or(all.value_dim),
        };

        heads::check_kv_heads(&own, heads.query, heads.kv)?;
        Ok(heads)
    }

    /// Returns the window of `layer`, given the one that all layers share.
    ///
    /// A `null` in the override removes the window.
    pub(super) fn window(
        &self,
        fields: &Fields<'a>,
        layer: usize,
        all: Option<u64>,
    ) -> Result<Option<u64>, Unsupported> {
        match self.layers.get(&layer) {
            Some(object) if object.contains_key("sliding_window") => Ok(fields
                .inside(object)
                .count(&["sliding_window"])?
                .filter(|window| *window > 0)),
            _ => Ok(all),
        }
    }

    /// Returns the span of `layer`, given the one by its family's rule.
    pub(super) fn span(
        &self,
        fields: &Fields<'a>,
        layer: usize,
        rule: Span,
    ) -> Result<Span, Unsupported> {
        let all = match rule {
            Span::Full => None,
            Span::Sliding { window } => Some(window),
            other => return Ok(other),
        };

        Ok(self
            .window(fields, layer, all)?
            .map_or(Span::Full, |window| Span::Sliding { window }))
    }
}

/// Returns the layer and the attributes of one entry of [`entries`].
pub(super) fn entry<'a>(
    index: &str,
    value: &'a Value,
    layers: usize,
) -> Result<(usize, &'a Object), Unsupported> {
    let shown_index = Value::from(cut(index, 20));
    let layer: usize = index
        .parse()
        .map_err(|_| contradiction(KEY, &shown_index, "the index of a layer is expected"))?;

    let Some(object) = value.as_object() else {
        return Err(contradiction(
            KEY,
            value,
            "an object for each layer is expected",
        ));
    };

    if layer >= layers {
        return Err(contradiction(
            KEY,
            &shown_index,
            format!("the model has {layers} layers"),
        ));
    }

    Ok((layer, object))
}

/// Returns index and attributes of each entry, from a map or a list with one entry per layer.
pub(super) fn entries<'a>(
    fields: &Fields<'a>,
    layers: usize,
) -> Result<Vec<(String, &'a Value)>, Unsupported> {
    match fields.value(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() <= layers => Ok(map
            .iter()
            .map(|(index, value)| (index.clone(), value))
            .collect()),
        Some(Value::Array(list)) if list.len() == layers => {
            let filled = list
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_null());
            Ok(filled
                .map(|(index, value)| (index.to_string(), value))
                .collect())
        }
        Some(other) => Err(contradiction(
            KEY,
            other,
            format!("the model has {layers} layers"),
        )),
    }
}
