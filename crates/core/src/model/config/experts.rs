//! Mixture-of-experts facts, and which layers have experts.
//!
//! The order of aliases of E and k follows vLLM
//! `transformers_utils/model_arch_config_convertor.py`. The rules for layers are those of the
//! models' own `modeling_*.py` (`first_k_dense_replace`, `moe_layer_freq`, `decoder_sparse_step`,
//! `mlp_only_layers`, ...).

use super::super::architecture::{Experts, FeedForward, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{HIDDEN, INTERMEDIATE};

const COUNT: &[&str] = &[
    "num_experts",
    "moe_num_experts",
    "n_routed_experts",
    "num_local_experts",
];
const ACTIVE: &[&str] = &[
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "num_selected_experts",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "num_experts_per_topk",
    // Last, because old configurations have a sampling parameter of this name.
    "top_k",
];
const WIDTH: &[&str] = &[
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "expert_intermediate_size",
];

/// Inkling's key for the width of dense layers.
const DENSE: &str = "dense_intermediate_size";

/// Reads the experts; `None` if the model has none.
pub(super) fn experts(fields: &Fields<'_>) -> Result<Option<Experts>, Unsupported> {
    // DBRX has them in a nested object.
    if let Some(inner) = fields.object("ffn_config")? {
        let inner = fields.inside(inner);
        if let Some(count) = inner.size(&["moe_num_experts"])? {
            // transformers `DbrxFFNConfig`: an absent `moe_top_k` is 1.
            let active = inner.size(&["moe_top_k"])?.unwrap_or(1);
            return Ok(Some(Experts {
                count,
                active,
                width: inner.need(&["ffn_hidden_size"])?,
                shared_width: 0,
            }));
        }
    }

    if fields.flag("enable_moe_block")? == Some(false) || fields.flag("is_moe")? == Some(false) {
        return Ok(None);
    }

    let Some(count) = first_number(fields, COUNT)?.filter(|count| *count > 1) else {
        return Ok(None);
    };

    let active = active(fields, count)?;
    let width = match first_number(fields, WIDTH)? {
        // In released files of Inkling, `intermediate_size` is the experts' width.
        _ if fields.value(DENSE).is_some() => fields.need(&["intermediate_size"])?,
        Some(width) => width,
        // In Llama 4, `intermediate_size` is the experts' width and `intermediate_size_mlp` that of
        // dense layers.
        None if fields.model_type == "llama4_text"
            || fields.model_type.starts_with("minimax_m3") =>
        {
            fields.need(&["intermediate_size"])?
        }
        None => intermediate(fields)?,
    };

    let shared = first_number(
        fields,
        &[
            "n_shared_experts",
            "num_shared_experts",
            "num_shared_expert",
            "moe_num_shared_experts",
        ],
    )?;

    let stated = fields.count(&[
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ])?;
    let shared_width = match (stated, shared) {
        // Llama 4 has one shared expert of the routed width in each layer of experts.
        _ if fields.model_type == "llama4_text" => width,
        (Some(width), Some(count)) if fields.model_type == "nemotron_h" => {
            width.saturating_mul(count)
        }
        (Some(width), _) => width,
        (None, Some(count)) => count.saturating_mul(width),
        (None, None) => 0,
    };

    Ok(Some(Experts {
        count,
        active,
        width,
        shared_width,
    }))
}

/// Reads k from the file or its class, never as a guess: it sizes every workspace of the experts.
fn active(fields: &Fields<'_>, count: u64) -> Result<u64, Unsupported> {
    let active =
        first_number(fields, ACTIVE)?.ok_or_else(|| fields.missing("num_experts_per_tok"))?;
    if active == 0 || active > count {
        let why = format!("between 1 and the {count} experts is expected");
        return Err(contradiction("num_experts_per_tok", &active.into(), why));
    }

    Ok(active)
}

/// Reads the first of `keys` that is present.
///
/// Hunyuan has lists with one value for each layer, of which the largest is used.
fn first_number(fields: &Fields<'_>, keys: &[&str]) -> Result<Option<u64>, Unsupported> {
    // The file's own key under any name comes before the class's default of another name.
    let stated = keys.iter().filter(|key| fields.value(key).is_some());
    for key in stated.chain(keys) {
        if is_list(fields, key) {
            return Ok(fields.numbers(key)?.unwrap_or_default().into_iter().max());
        }
        if let Some(number) = fields.count(&[key])? {
            return Ok(Some(number));
        }
    }

    Ok(None)
}

fn is_list(fields: &Fields<'_>, key: &str) -> bool {
    fields.value(key).is_some_and(serde_json::Value::is_array)
}

/// Reads I; 4h if no key states it.
pub(super) fn intermediate(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    if fields.model_type == "llama4_text" {
        // In Llama 4, `intermediate_size` is the experts' width.
        if let Some(width) = fields.size(&["intermediate_size_mlp"])? {
            return Ok(width);
        }
    }

    if let Some(width) = fields.size(&[DENSE])? {
        return Ok(width);
    }

    if let Some(width) = first_number(fields, INTERMEDIATE)?.filter(|width| *width > 0) {
        return Ok(width);
    }

    Ok(fields
        .size(&["hidden_dim", "ffn_embed_dim", "decoder_ffn_dim", "dff"])?
        .unwrap_or(fields.need(HIDDEN)?.saturating_mul(4)))
}

/// Returns what follows the mixer in each of `layers` layers.
pub(super) fn feed_forwards(
    fields: &Fields<'_>,
    experts: Option<&Experts>,
    layers: usize,
) -> Result<Vec<FeedForward>, Unsupported> {
    let dense = FeedForward::Dense {
        width: intermediate(fields)?,
    };

    if experts.is_none() {
        return Ok(vec![dense; layers]);
    }

    let sparse = sparse_layers(fields, layers)?;
    Ok(sparse
        .into_iter()
        .map(|sparse| if sparse { FeedForward::Experts } else { dense })
        .collect())
}

/// Returns for each layer whether it has experts.
fn sparse_layers(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Unsupported> {
    if let Some(sparse) = listed_sparse_layers(fields, layers)? {
        return Ok(sparse);
    }

    let all = 0..layers as u64;
    if let Some(step) = fields.size(&["interleave_moe_layer_step"])? {
        return Ok(all.map(|layer| (layer + 1).is_multiple_of(step)).collect());
    }

    if let Some(period) = fields.size(&["expert_layer_period"])? {
        let offset = fields.count(&["expert_layer_offset"])?.unwrap_or(0);
        return Ok(all.map(|layer| layer % period == offset).collect());
    }

    if let Some(start) = range_bound(fields, "moe_layer_start_index", Iterator::min)? {
        let end = range_bound(fields, "moe_layer_end_index", Iterator::max)?.unwrap_or(u64::MAX);
        let interval = fields.size(&["moe_layer_interval"])?.unwrap_or(1);
        return Ok(all
            .map(|layer| layer >= start && layer <= end && (layer + 1).is_multiple_of(interval))
            .collect());
    }

    let first = fields
        .count(&["first_k_dense_replace", "num_dense_layers", "dense_mlp_idx"])?
        .unwrap_or(0);
    let every = fields
        .size(&["moe_layer_freq", "decoder_sparse_step"])?
        .unwrap_or(1);
    let dense = fields.numbers("mlp_only_layers")?.unwrap_or_default();
    let dense = fields.layers_of("mlp_only_layers", dense, layers);

    // `decoder_sparse_step` counts layers from 1, `moe_layer_freq` from 0.
    let shift = u64::from(fields.value("decoder_sparse_step").is_some());
    Ok(all
        .map(|layer| {
            layer >= first && (layer + shift).is_multiple_of(every) && !dense.contains(&layer)
        })
        .collect())
}

/// Returns for each layer whether it has experts, if a key lists the layers one by one.
fn listed_sparse_layers(
    fields: &Fields<'_>,
    layers: usize,
) -> Result<Option<Vec<bool>>, Unsupported> {
    if let Some(words) = fields.words("mlp_layer_types")? {
        if words.len() != layers {
            return Err(fields.length("mlp_layer_types", words.len(), layers));
        }
        return Ok(Some(words.iter().map(|word| *word != "dense").collect()));
    }

    // Llama 4 and Step list the layers that have experts.
    let listed = match fields.numbers("moe_layers")? {
        Some(listed) if !listed.is_empty() => Some(fields.layers_of("moe_layers", listed, layers)),
        _ => fields
            .text("moe_layers_enum")
            .map(|text| enumerated_layers(fields, text, layers)),
    };
    if let Some(listed) = listed {
        return Ok(Some(
            (0..layers as u64)
                .map(|layer| listed.contains(&layer))
                .collect(),
        ));
    }

    // MiMo-V2 and dots have a 0 or 1 for each layer.
    if is_list(fields, "moe_layer_freq") {
        let flags = fields.numbers("moe_layer_freq")?.unwrap_or_default();
        if flags.len() != layers {
            return Err(fields.length("moe_layer_freq", flags.len(), layers));
        }
        return Ok(Some(flags.into_iter().map(|flag| flag != 0).collect()));
    }

    Ok(None)
}

/// Parses `moe_layers_enum`, a text with comma-separated layer numbers.
fn enumerated_layers(fields: &Fields<'_>, text: &str, layers: usize) -> Vec<u64> {
    let mut listed: Vec<u64> = Vec::new();
    for entry in text.split(',').map(str::trim).take(layers) {
        match entry.parse() {
            Ok(layer) => listed.push(layer),
            Err(_) => fields.ignore(
                "moe_layers_enum",
                &entry.into(),
                "the number of a layer is expected",
            ),
        }
    }

    if text.split(',').nth(layers).is_some() {
        let why = format!("only the first {layers} entries are used, one for each layer");
        fields.ignore_part(&contradiction("moe_layers_enum", &text.into(), why));
    }

    fields.layers_of("moe_layers_enum", listed, layers)
}

/// Reads the first or last layer that has experts; `None` if it is absent or -1.
///
/// ERNIE's multimodal models have one range each for text and vision experts. Layers in the union
/// of both ranges have experts, so `widest` selects the outer bound.
fn range_bound(
    fields: &Fields<'_>,
    key: &str,
    widest: impl Fn(std::vec::IntoIter<u64>) -> Option<u64>,
) -> Result<Option<u64>, Unsupported> {
    if is_list(fields, key) {
        return Ok(widest(fields.numbers(key)?.unwrap_or_default().into_iter()));
    }

    // Files may write -1 for the last layer.
    if fields.value(key).and_then(serde_json::Value::as_i64) == Some(-1) {
        return Ok(None);
    }

    fields.count(&[key])
}
