//! From GGUF metadata to an [`Architecture`].
//!
//! Keys: ggml `docs/gguf.md` and llama.cpp `src/llama-arch.cpp` (`LLM_KV_NAMES`); their defaults:
//! `llama_model::load_hparams` (`src/llama-model.cpp`).

mod families;
mod keys;
mod mixers;
mod windows;

use super::Gguf;
use crate::model::architecture::{
    Architecture, Encoder, Experts, FeedForward, Layer, Mixer, Span, Task, Unsupported,
};
use families::{GgufFamily, Purpose};
use keys::Keys;
use mixers::{Facts, Heads};

/// What the metadata says of the model.
pub fn architecture(gguf: &Gguf) -> Result<Architecture, Unsupported> {
    let Some(name) = gguf.family() else {
        let key = "general.architecture".to_owned();
        return Err(Unsupported::Missing {
            class: "GGUF".to_owned(),
            key,
        });
    };

    let Some(family) = families::family(name) else {
        return Err(Unsupported::Family {
            class: name.to_owned(),
            model_type: name.to_owned(),
            key: format!("general.architecture = {name}"),
        });
    };

    let keys = Keys { gguf, family: name };
    if let Some(key) = family
        .memory
        .foreign_keys()
        .iter()
        .find_map(|start| keys.first_that_begins(start))
    {
        return Err(Unsupported::Family {
            class: name.to_owned(),
            model_type: name.to_owned(),
            key,
        });
    }

    let all_layers = keys.layer_count("block_count")?;
    let next_token = if family.next_token_layers {
        keys.optional("nextn_predict_layers")?.unwrap_or(0)
    } else {
        0
    };

    let Some(layer_count) = all_layers
        .checked_sub(next_token)
        .filter(|layers| *layers > 0)
    else {
        let why = "not fewer than block_count";
        return Err(keys.contradiction("nextn_predict_layers", next_token.to_string(), why));
    };

    let hidden = keys.positive("embedding_length")?;
    let experts = experts(&keys, all_layers)?;
    let widths = widths(&keys, all_layers)?;
    let own_caches = own_caches(&keys, &family, layer_count)?;

    let facts = Facts {
        hidden,
        heads: Heads::read(&keys, all_layers)?,
        spans: windows::spans(&keys, family.windows, layer_count, all_layers)?,
        own_caches,
        widths,
        keys: &keys,
    };

    let mut layers = Vec::new();
    for layer in 0..usize::try_from(layer_count).unwrap_or(0) {
        layers.push(self::layer(
            &keys,
            &family,
            &facts,
            experts.is_some(),
            layer,
        )?);
    }

    Ok(Architecture {
        class: name.to_owned(),
        model_type: name.to_owned(),
        root_model_type: name.to_owned(),
        task: task(&keys, &family)?,
        hidden_size: hidden,
        intermediate_size: facts.widths.iter().copied().max().unwrap_or(0),
        vocab_size: gguf
            .vocabulary()
            .ok_or_else(|| keys.missing("vocab_size"))?,
        heads: facts.heads.query.iter().copied().max().unwrap_or(0),
        max_context: keys.optional("context_length")?,
        layers,
        encoder: encoder(&keys, &family, all_layers)?,
        experts,
        // llama.cpp computes positions as it goes and keeps no table.
        rope: Vec::new(),
        tied_embeddings: Some(!has_tensor(gguf, "output.weight")),
        dtype: None,
        state_dtype: None,
        vision: None,
        audio: false,
        mtp_layers: u32::try_from(next_token).unwrap_or(u32::MAX),
        quantization: None,
        notes: Vec::new(),
    })
}

fn has_tensor(gguf: &Gguf, pattern: &str) -> bool {
    gguf.inventory
        .classes
        .iter()
        .any(|class| &*class.pattern == pattern)
}

fn task(keys: &Keys<'_>, family: &GgufFamily) -> Result<Task, Unsupported> {
    Ok(match family.purpose {
        Purpose::Encode => Task::Encode,
        Purpose::Pool => Task::Pool,
        Purpose::EncodeDecode => Task::EncodeDecode,
        // `pooling_type` 0 is none; llama.cpp serves such a decoder as an embedding model, cache
        // and all.
        Purpose::Generate => match keys.optional("pooling_type")? {
            Some(kind) if kind > 0 => Task::Pool,
            _ => Task::Generate,
        },
    })
}

fn encoder(
    keys: &Keys<'_>,
    family: &GgufFamily,
    layers: u64,
) -> Result<Option<Encoder>, Unsupported> {
    if family.purpose != Purpose::EncodeDecode {
        return Ok(None);
    }

    let layers = u32::try_from(layers).unwrap_or(u32::MAX);
    Ok(Some(Encoder {
        layers,
        max_tokens: keys.required("context_length")?,
    }))
}

/// Layers that own a cache: `attention.shared_kv_layers` of the last ones do not.
fn own_caches(keys: &Keys<'_>, family: &GgufFamily, layers: u64) -> Result<u64, Unsupported> {
    match keys.optional("attention.shared_kv_layers")? {
        Some(shared) => layers.checked_sub(shared).ok_or_else(|| {
            keys.contradiction(
                "attention.shared_kv_layers",
                shared.to_string(),
                "more than there are layers",
            )
        }),
        None => Ok(family.own_caches.unwrap_or(layers).min(layers)),
    }
}

fn widths(keys: &Keys<'_>, layers: u64) -> Result<Vec<u64>, Unsupported> {
    let none = || (0..layers).map(|_| 0).collect();
    Ok(keys
        .per_layer("feed_forward_length", layers)?
        .unwrap_or_else(none))
}

fn experts(keys: &Keys<'_>, layers: u64) -> Result<Option<Experts>, Unsupported> {
    let Some(count) = keys.optional("expert_count")?.filter(|count| *count > 0) else {
        return Ok(None);
    };

    let active = keys.positive("expert_used_count")?;
    if active > count {
        return Err(keys.contradiction(
            "expert_used_count",
            active.to_string(),
            "more than expert_count",
        ));
    }

    let dense = keys
        .per_layer("feed_forward_length", layers)?
        .and_then(|widths| widths.into_iter().max());

    // Mixtral and its like give the expert's width as the dense one (`n_ff_exp ? n_ff_exp : n_ff`).
    let width = match keys
        .per_layer("expert_feed_forward_length", layers)?
        .and_then(|w| w.into_iter().max())
    {
        Some(width) if width > 0 => width,
        _ => dense
            .filter(|width| *width > 0)
            .ok_or_else(|| keys.missing("expert_feed_forward_length"))?,
    };

    let shared_width = match keys.optional("expert_shared_feed_forward_length")? {
        Some(shared) => shared,
        None => keys
            .optional("expert_shared_count")?
            .unwrap_or(0)
            .saturating_mul(width),
    };

    Ok(Some(Experts {
        count,
        active,
        width,
        shared_width,
    }))
}

fn layer(
    keys: &Keys<'_>,
    family: &GgufFamily,
    facts: &Facts<'_, '_>,
    has_experts: bool,
    index: usize,
) -> Result<Layer, Unsupported> {
    let (mut mixer, mut beside) = facts.mixers(family.memory, index)?;
    if family.purpose == Purpose::Encode
        && let Mixer::Attention(attention) = &mut mixer
    {
        attention.span = Span::Bidirectional;
    }

    if family.purpose == Purpose::EncodeDecode
        && let Mixer::Attention(attention) = &mixer
    {
        let mut cross = attention.clone();
        cross.span = Span::Cross {
            tokens: keys.required("context_length")?,
        };
        beside = Some(Mixer::Attention(cross));
    }

    Ok(Layer {
        mixer,
        second_mixer: beside,
        feed_forward: feed_forward(facts, has_experts, index),
    })
}

/// Experts where the layer has a router; so the tensors say it, whatever rule the family numbers
/// its layers by.
fn feed_forward(facts: &Facts<'_, '_>, has_experts: bool, index: usize) -> FeedForward {
    let layer = u32::try_from(index).unwrap_or(u32::MAX);
    let routed =
        |class: &&crate::model::TensorClass| &*class.pattern == "blk.*.ffn_gate_inp.weight";
    let classes = || facts.keys.gguf.inventory.classes.iter().filter(routed);
    let here = classes().any(|class| class.count_in(&(layer..layer.saturating_add(1))) > 0);

    match facts.widths.get(index).copied() {
        _ if has_experts && (here || classes().next().is_none()) => FeedForward::Experts,
        Some(width) if width > 0 => FeedForward::Dense { width },
        _ => FeedForward::None,
    }
}
