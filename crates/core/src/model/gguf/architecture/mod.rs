//! The [`Architecture`] that GGUF metadata describes.
//!
//! Source of the keys: ggml `docs/gguf.md` and llama.cpp `src/llama-arch.cpp` (`LLM_KV_NAMES`).
//! Source of their defaults: `llama_model::load_hparams` (`src/llama-model.cpp`).

mod families;
mod keys;
mod mixers;
mod repeats;
mod sparse;
mod windows;

use super::Gguf;
use crate::model::TensorClass;
use crate::model::architecture::{
    Architecture, Encoder, Experts, FeedForward, Layer, Mixer, Span, Task, Unsupported,
};
use families::{GgufFamily, Memory, Purpose};
use keys::Keys;
use mixers::{Heads, LayerFacts};

/// Reads the model's architecture from the metadata.
pub fn architecture(gguf: &Gguf) -> Result<Architecture, Unsupported> {
    let Some(name) = gguf.family() else {
        let key = "general.architecture".to_owned();
        return Err(Unsupported::Missing {
            class: "GGUF".to_owned(),
            key,
        });
    };

    let Some(family) = families::family(name) else {
        if let Some(why) = families::refusal(name) {
            return Err(Unsupported::Unconfirmed {
                class: name.to_owned(),
                model_type: name.to_owned(),
                why: why.to_owned(),
            });
        }

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
        .find_map(|prefix| keys.first_with_prefix(prefix))
    {
        return Err(Unsupported::Family {
            class: name.to_owned(),
            model_type: name.to_owned(),
            key,
        });
    }

    repeats::check(&keys)?;
    let all_layers = keys.layer_count("block_count")?;
    let next_token = next_token_layers(&keys, &family)?;

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

    let facts = LayerFacts {
        hidden,
        heads: Heads::read(&keys, all_layers)?,
        spans: windows::spans(&keys, family.windows, layer_count, all_layers)?,
        own_caches,
        widths,
        keys: &keys,
    };

    let mut layers = Vec::new();
    for layer in 0..usize::try_from(layer_count).unwrap_or(0) {
        layers.push(build_layer(&family, &facts, experts.is_some(), layer)?);
    }

    add_next_token_memory(&facts, &family, next_token, &mut layers)?;
    repeats::repeat(&keys, &mut layers)?;

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
        // llama.cpp computes positions on the fly and has no table of them.
        rope: Vec::new(),
        tied_embeddings: Some(!has_tensor(gguf, "output.weight")),
        dtype: None,
        state_dtype: None,
        vision: None,
        audio: false,
        streaming_encoder: None,
        mtp_layers: u32::try_from(next_token).unwrap_or(u32::MAX),
        quantization: None,
        notes: notes(&keys)?,
    })
}

/// Returns the number of layers for multi-token prediction behind the decoder's.
fn next_token_layers(keys: &Keys<'_>, family: &GgufFamily) -> Result<u64, Unsupported> {
    if !family.next_token_layers {
        return Ok(0);
    }

    // DeepSeek V4's loader counts them as the decoder's if their projection is not in the file.
    if family.memory == Memory::Compressed && !has_tensor(keys.gguf, "blk.*.nextn.eh_proj.weight") {
        return Ok(0);
    }

    Ok(keys.optional("nextn_predict_layers")?.unwrap_or(0))
}

/// Adds the cache of the layer for multi-token prediction to the last layer, on whose device it is.
///
/// llama.cpp filters this layer out of most families' caches, even if it does not load its tensors;
/// not of those of `llama_kv_cache_dsv4` and of `llama_memory_hybrid` without filters.
fn add_next_token_memory(
    facts: &LayerFacts<'_, '_>,
    family: &GgufFamily,
    next_token: u64,
    layers: &mut [Layer],
) -> Result<(), Unsupported> {
    let is_cached = matches!(family.memory, Memory::Compressed | Memory::Kimi);
    if !is_cached || next_token == 0 {
        return Ok(());
    }

    let Some(last) = layers.last_mut().filter(|_| next_token == 1) else {
        let why = "the caches of more than one such layer are unverified";
        return Err(facts
            .keys
            .contradiction("nextn_predict_layers", next_token.to_string(), why));
    };

    let (mixer, _) = facts.mixers(family.memory, facts.spans.len() - 1)?;
    last.second_mixer = Some(mixer);
    Ok(())
}

/// Facts that only llama.cpp's buffers need.
fn notes(keys: &Keys<'_>) -> Result<Vec<String>, Unsupported> {
    const NAMES: [&str; 5] = [
        "n_deepstack_layers",
        "hyper_connection.count",
        "attn_res.block_size",
        "attention.indexer.head_count",
        "attention.indexer.key_length",
    ];
    let mut notes = Vec::new();
    if repeats::runs_layers_again(keys)? {
        notes.push("runs_layers_again=1".to_owned());
    }

    let tapped = keys.distinct_indices("mudd.tap_indices");
    if tapped > 0 {
        notes.push(format!("tapped_layers={tapped}"));
    }

    for name in NAMES {
        if let Some(value) = keys.optional(name)?.filter(|value| *value > 0) {
            notes.push(format!("{name}={value}"));
        }
    }

    Ok(notes)
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
        // `pooling_type` 0 means no pooling. llama.cpp serves a decoder with another type as an
        // embedding model and still creates the cache.
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

/// Returns the number of layers with a cache of their own.
///
/// The last `attention.shared_kv_layers` layers share the cache of an earlier one.
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
    Ok(keys
        .per_layer("feed_forward_length", layers)?
        .unwrap_or_else(|| (0..layers).map(|_| 0).collect()))
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

    // Mixtral and similar families state the expert's width as the dense one
    // (`n_ff_exp ? n_ff_exp : n_ff`).
    let width = match keys
        .per_layer("expert_feed_forward_length", layers)?
        .and_then(|widths| widths.into_iter().max())
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

fn build_layer(
    family: &GgufFamily,
    facts: &LayerFacts<'_, '_>,
    has_experts: bool,
    index: usize,
) -> Result<Layer, Unsupported> {
    let (mut mixer, mut second_mixer) = facts.mixers(family.memory, index)?;
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
            tokens: facts.keys.required("context_length")?,
        };
        second_mixer = Some(Mixer::Attention(cross));
    }

    Ok(Layer {
        mixer,
        second_mixer,
        feed_forward: feed_forward(facts, has_experts, index),
        passes: 1,
    })
}

/// Returns the feed-forward block of a layer.
///
/// A layer has experts if it has the tensor of a router, so no rule about layer numbers is needed.
/// Without any router tensor, all layers have experts.
fn feed_forward(facts: &LayerFacts<'_, '_>, has_experts: bool, index: usize) -> FeedForward {
    let layer = u32::try_from(index).unwrap_or(u32::MAX);
    let layer = layer..layer.saturating_add(1);

    let classes = &facts.keys.gguf.inventory.classes;
    let routers: Vec<&TensorClass> = classes
        .iter()
        .filter(|class| &*class.pattern == "blk.*.ffn_gate_inp.weight")
        .collect();
    let has_router = routers.is_empty() || routers.iter().any(|class| class.count_in(&layer) > 0);

    match facts.widths.get(index).copied() {
        _ if has_experts && has_router => FeedForward::Experts,
        Some(width) if width > 0 => FeedForward::Dense { width },
        _ => FeedForward::None,
    }
}
