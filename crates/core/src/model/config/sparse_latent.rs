//! Latent and plain attention with an indexer, in families whose layers differ.
//!
//! Sources: transformers 5.24 `models/{hy_v4,mistral_large4,dots3_note,glm5_next,minimax_m3_vl}`
//! (the `configuration_*.py` for the layers, the `modeling_*.py` for what they cache).

use super::super::architecture::{
    Attention, Indexer, LatentAttention, Mixer, Recurrent, Span, Unsupported,
};
use super::fields::{Fields, Object, contradiction, cut};
use super::heads;
use super::latent;
use super::layer_patterns::words;
use super::layers::{LayerMixers, count};
use super::overrides;

/// The latent of layers that attend to another layer's: nothing is cached.
const SHARED: u64 = 0;

/// Returns for each layer whether it has an indexer of its own.
///
/// `indexer_types` lists the layers. Without it, the class derives them from a pattern of the
/// letters F and S, or from a frequency (transformers `MistralLarge4TextConfig.__post_init__`).
/// `by_class` is the rule without any of these keys.
pub(super) fn indexed_layers(
    fields: &Fields<'_>,
    layers: usize,
    by_class: impl Fn(u64) -> bool,
) -> Result<Vec<bool>, Unsupported> {
    if let Some(kinds) = words(fields, &["indexer_types"], layers)? {
        return kinds
            .iter()
            .enumerate()
            .map(|(layer, kind)| match *kind {
                "full" => Ok(true),
                "shared" => Ok(false),
                other => Err(fields.unknown_entry("indexer_types", layer, other)),
            })
            .collect();
    }

    let pattern = fields.value("index_topk_pattern");
    if pattern.is_some_and(|pattern| !pattern.is_string()) {
        return Err(fields.family("index_topk_pattern that is no text"));
    }
    if let Some(letters) = fields.text("index_topk_pattern") {
        if letters.len() != layers || !letters.bytes().all(|letter| matches!(letter, b'F' | b'S')) {
            let why = format!("{layers} letters F and S are expected");
            return Err(contradiction("index_topk_pattern", &letters.into(), why));
        }
        return Ok(letters.bytes().map(|letter| letter == b'F').collect());
    }

    let Some(every) = fields.size(&["index_topk_freq"])? else {
        return Ok((0..layers as u64).map(by_class).collect());
    };

    let offset = fields.count(&["index_skip_topk_offset"])?.unwrap_or(2);
    Ok((0..layers as u64)
        .map(|layer| (layer + 1).saturating_sub(offset).is_multiple_of(every))
        .collect())
}

/// Returns the layers of HY 4: latent attention in each, with an indexer in the first layer and in
/// every fourth one after it.
pub(super) fn hy_v4(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = needed_attention(fields)?;
    let indexed = indexed_layers(fields, layers, |layer| {
        layer == 0 || (layer - 1).is_multiple_of(4)
    })?;

    Ok(indexed
        .into_iter()
        .map(|indexed| with_indexer(&attention, indexed))
        .collect())
}

/// Returns the layers of Mistral Large 4.
///
/// A layer without rope caches the latent alone. A layer that attends to the latent of an earlier
/// one (`kv_source_layers`) caches only the keys of its indexer, if it has one.
pub(super) fn mistral_large4(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = needed_attention(fields)?;
    let indexed = indexed_layers(fields, layers, |_| true)?;
    let roped = roped_layers(fields, layers)?;

    let sources = match fields.numbers("kv_source_layers")? {
        Some(sources) if sources.len() == layers => sources,
        Some(sources) => return Err(fields.length("kv_source_layers", sources.len(), layers)),
        None => (0..layers as u64).collect(),
    };
    if let Some((layer, source)) = (0_u64..)
        .zip(&sources)
        .find(|(layer, source)| *source > layer)
    {
        let why = format!("layer {layer} cannot attend to the latent of a later layer");
        return Err(contradiction("kv_source_layers", &(*source).into(), why));
    }

    let mixers = indexed.into_iter().zip(roped).zip(sources).enumerate().map(
        |(layer, ((indexed, roped), source))| {
            let mut own = attention.clone();
            if !roped {
                own.rope_dim = 0;
            }
            if source != layer as u64 {
                (own.kv_lora_rank, own.rope_dim) = (SHARED, 0);
            }
            with_indexer(&own, indexed)
        },
    );

    Ok(mixers.collect())
}

/// Returns for each layer whether it has rope: all but each fourth, unless keys say otherwise.
fn roped_layers(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Unsupported> {
    if let Some(listed) = fields.numbers("no_rope_layers")? {
        // Longer lists are valid: the class reads the first entries.
        if listed.len() < layers {
            return Err(fields.length("no_rope_layers", listed.len(), layers));
        }
        return Ok(listed.iter().take(layers).map(|rope| *rope != 0).collect());
    }

    let every = fields.size(&["no_rope_layer_interval"])?.unwrap_or(4);
    Ok((1..=layers as u64)
        .map(|layer| !layer.is_multiple_of(every))
        .collect())
}

/// Returns the layers of dots3: latents with an indexer, plain latents, or wider latents of a
/// window.
pub(super) fn dots3(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = needed_attention(fields)?;
    let kinds = dots3_kinds(fields, layers)?;
    let window = fields
        .size(&["sliding_window", "sliding_window_size"])?
        .unwrap_or(512);
    let overrides = dots3_overrides(fields, layers)?;

    kinds
        .into_iter()
        .enumerate()
        .map(|(layer, kind)| {
            let mut own = attention.clone();
            if kind == Dots3Kind::Sliding {
                own.window = Some(window);
                if overrides.is_empty() {
                    use_sliding_sizes(fields, &mut own)?;
                }
            }
            if let Some((_, object)) = overrides.iter().find(|(index, _)| *index == layer) {
                apply(&fields.inside(object), &mut own)?;
            }

            Ok(with_indexer(&own, kind == Dots3Kind::Indexed))
        })
        .collect()
}

/// The kinds of layers of dots3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dots3Kind {
    Indexed,
    Plain,
    Sliding,
}

/// Returns the kind of each layer of dots3.
///
/// Older files call layers with an indexer "full_attention", and `use_dsa` turns all indexers on or
/// off (transformers `Dots3NoteTextConfig.__post_init__`).
fn dots3_kinds(fields: &Fields<'_>, layers: usize) -> Result<Vec<Dots3Kind>, Unsupported> {
    let by_class = (!fields.has("per_layer_config")).then_some(true);
    let use_indexers = fields.flag("use_dsa")?.or(by_class);
    let full = |named| match use_indexers {
        Some(true) => Dots3Kind::Indexed,
        Some(false) => Dots3Kind::Plain,
        None => named,
    };

    let Some(words) = words(fields, &["layer_types"], layers)? else {
        let has_windows = fields.flag("use_sliding_window")? != Some(false);
        let kinds = (0..layers).map(|layer| {
            if has_windows && layer >= 2 && layer % 4 != 1 {
                Dots3Kind::Sliding
            } else {
                full(Dots3Kind::Indexed)
            }
        });
        return Ok(kinds.collect());
    };

    words
        .iter()
        .enumerate()
        .map(|(layer, word)| match *word {
            "indexed_attention" => Ok(full(Dots3Kind::Indexed)),
            "full_attention" => Ok(full(Dots3Kind::Plain)),
            "sliding_attention" => Ok(Dots3Kind::Sliding),
            other => Err(fields.unknown_entry("layer_types", layer, other)),
        })
        .collect()
}

/// Sets the sizes of sliding layers from `swa_*` keys, as published files have them.
fn use_sliding_sizes(fields: &Fields<'_>, own: &mut LatentAttention) -> Result<(), Unsupported> {
    let size = |key, by_class| Ok(fields.size(&[key])?.unwrap_or(by_class));

    let head_dim = size("swa_head_dim", 256)?;
    own.heads = size("swa_num_attention_heads", 64)?;
    own.kv_lora_rank = size("swa_kv_lora_rank", 1024)?;
    own.q_lora_rank = Some(size("swa_q_lora_rank", 1024)?);
    own.nope_dim = size("swa_qk_nope_head_dim", 192)?;
    own.value_dim = size("swa_v_head_dim", 128)?;
    own.rope_dim = size(
        "swa_qk_rope_head_dim",
        head_dim.saturating_sub(own.nope_dim).max(1),
    )?;

    Ok(())
}

/// Reads the entries of `per_layer_config`, whose attributes must all be sizes of latent attention.
fn dots3_overrides<'a>(
    fields: &Fields<'a>,
    layers: usize,
) -> Result<Vec<(usize, &'a Object)>, Unsupported> {
    const KNOWN: &[&str] = &[
        "num_attention_heads",
        "num_key_value_heads",
        "q_lora_rank",
        "kv_lora_rank",
        "head_dim",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
    ];

    let mut found = Vec::new();
    for (index, value) in overrides::entries(fields, layers)? {
        let (layer, object) = overrides::entry(&index, value, layers)?;
        if let Some(key) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(fields.family(format!("per_layer_config[{layer}].{}", cut(key, 60))));
        }
        found.push((layer, object));
    }

    Ok(found)
}

/// Applies the sizes of one entry of `per_layer_config`.
fn apply(entry: &Fields<'_>, own: &mut LatentAttention) -> Result<(), Unsupported> {
    own.heads = entry.size(heads::HEADS)?.unwrap_or(own.heads);
    own.kv_lora_rank = entry.size(&["kv_lora_rank"])?.unwrap_or(own.kv_lora_rank);
    own.q_lora_rank = entry.size(&["q_lora_rank"])?.or(own.q_lora_rank);
    own.nope_dim = entry.size(&["qk_nope_head_dim"])?.unwrap_or(own.nope_dim);
    own.rope_dim = entry.size(&["qk_rope_head_dim"])?.unwrap_or(own.rope_dim);
    own.value_dim = entry.size(&["v_head_dim"])?.unwrap_or(own.value_dim);
    Ok(())
}

/// Returns the layers of GLM-5.3-Flash: Kimi delta attention, and each fourth with latent attention
/// that has no rope and an indexer over pools of tokens.
pub(super) fn glm5_next(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = needed_attention(fields)?;
    let indexed = indexed_layers(fields, layers, |_| true)?;
    let state = Mixer::Recurrent(glm5_next_state(fields)?);

    let is_linear: Vec<bool> = match words(fields, &["layer_types"], layers)? {
        None => (0..layers).map(|layer| layer % 4 != 3).collect(),
        Some(words) => words
            .iter()
            .enumerate()
            .map(|(layer, word)| match *word {
                "linear_attention" => Ok(true),
                "indexed_attention" | "full_attention" => Ok(false),
                other => Err(fields.unknown_entry("layer_types", layer, other)),
            })
            .collect::<Result<_, _>>()?,
    };

    Ok(is_linear
        .into_iter()
        .zip(indexed)
        .map(|(is_linear, indexed)| {
            if is_linear {
                state.clone()
            } else {
                with_indexer(&attention, indexed)
            }
        })
        .collect())
}

/// Reads the delta attention of GLM-5.3-Flash, from `linear_attn_config` or keys of its own.
fn glm5_next_state(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    let empty = Object::new();
    let nested = fields.inside(fields.object("linear_attn_config")?.unwrap_or(&empty));
    let size = |inner, outer| match nested.size(&[inner])? {
        Some(size) => Ok(size),
        None => fields.need(&[outer]),
    };

    Ok(Recurrent::Kda {
        heads: size("num_heads", "linear_num_heads")?,
        head_dim: size("head_dim", "linear_head_dim")?,
        conv: size("short_conv_kernel_size", "linear_conv_kernel_dim")?,
    })
}

/// Returns the layers of MiniMax-M3: keys and values, and the keys of an indexer in sparse layers.
///
/// The indexer's keys are one more head without values, as wide as `index_head_dim`, in the dtype
/// of the cache.
pub(super) fn minimax_m3(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let heads = heads::heads(fields)?;
    let sparse = minimax_m3_sparse(fields, layers)?;
    let empty = Object::new();
    let nested = fields.inside(fields.object("sparse_attention_config")?.unwrap_or(&empty));
    let width = match nested.size(&["sparse_index_dim"])? {
        Some(width) => width,
        None => fields.need(&["index_head_dim"])?,
    };

    let keys = Mixer::Attention(Attention {
        heads: heads.query,
        kv_heads: 1,
        key_dim: width,
        value_dim: 0,
        span: Span::Full,
        shares_cache: false,
    });

    let layer = |sparse: bool| {
        let mut layer = LayerMixers::from(heads.mixer(Span::Full));
        layer.second_mixer = sparse.then(|| keys.clone());
        layer
    };
    Ok(sparse.into_iter().map(layer).collect())
}

/// Returns for each layer of MiniMax-M3 whether it has an indexer.
fn minimax_m3_sparse(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Unsupported> {
    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return words
            .iter()
            .enumerate()
            .map(|(layer, word)| match *word {
                "minimax_m3_sparse" => Ok(true),
                "full_attention" => Ok(false),
                other => Err(fields.unknown_entry("layer_types", layer, other)),
            })
            .collect();
    }

    let nested = fields.object("sparse_attention_config")?;
    let flags = match nested {
        Some(nested) => fields.inside(nested).numbers("sparse_attention_freq")?,
        None => None,
    };

    match flags {
        None => Ok(vec![false; layers]),
        Some(flags) if flags.len() == layers => Ok(flags.iter().map(|flag| *flag != 0).collect()),
        Some(flags) => Err(fields.length("sparse_attention_freq", flags.len(), layers)),
    }
}

/// Reads latent attention that must be there.
fn needed_attention(fields: &Fields<'_>) -> Result<LatentAttention, Unsupported> {
    latent::attention(fields)?.ok_or_else(|| fields.missing("kv_lora_rank"))
}

/// Returns the layer with the indexer of `attention`, or without one.
fn with_indexer(attention: &LatentAttention, indexed: bool) -> Mixer {
    let indexer: Option<Indexer> = attention.indexer.filter(|_| indexed);
    Mixer::Latent(LatentAttention {
        indexer,
        ..attention.clone()
    })
}
