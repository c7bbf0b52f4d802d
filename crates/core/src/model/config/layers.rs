//! The layers of a decoder, family by family: what each of them must remember.

use super::super::architecture::{Attention, FeedForward, Mixer, Span, Unsupported};
use super::families::{FamilyKind, Spans};
use super::fields::Fields;
use super::heads::{self, Heads};
use super::overrides::Overrides;
use super::{blocks, hybrids, latent, recurrent, spans};

/// One layer before its feed-forward is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mixed {
    pub(super) mixer: Mixer,
    pub(super) beside: Option<Mixer>,
    /// Set where the layer pattern itself says what follows the mixer.
    pub(super) feed_forward: Option<FeedForward>,
}

impl From<Mixer> for Mixed {
    fn from(mixer: Mixer) -> Self {
        Self {
            mixer,
            beside: None,
            feed_forward: None,
        }
    }
}

impl Heads {
    /// An attention layer with these heads.
    pub(super) fn mixer(self, span: Span) -> Mixer {
        let Self {
            query: heads,
            kv: kv_heads,
            key_dim,
            value_dim,
        } = self;

        Mixer::Attention(Attention {
            heads,
            kv_heads,
            key_dim,
            value_dim,
            span,
            shares_cache: false,
        })
    }
}

/// All decoder layers.
pub(super) fn layers(fields: &Fields<'_>, kind: FamilyKind) -> Result<Vec<Mixed>, Unsupported> {
    if !matches!(
        kind,
        FamilyKind::Attention(_) | FamilyKind::MimoV2 | FamilyKind::Step
    ) && fields.value("per_layer_config").is_some()
    {
        Overrides::none(
            fields,
            fields
                .size(heads::LAYERS)?
                .map_or(usize::MAX, |layers| layers.try_into().unwrap_or(usize::MAX)),
        )?;
    }

    let mixers = match kind {
        FamilyKind::Attention(rule) => return attention(fields, rule),
        FamilyKind::NemotronH => return hybrids::nemotron_h(fields),
        // DeciLM-7B lists the KV heads of its layers only.
        FamilyKind::BlockList if fields.value("block_configs").is_none() => {
            return attention(fields, Spans::Full);
        }
        FamilyKind::BlockList => return blocks::listed(fields),
        FamilyKind::FalconH1 => return hybrids::falcon_h1(fields),
        FamilyKind::Zamba(generation) => return hybrids::zamba(fields, generation),
        FamilyKind::DoubleLatent => return latent::double(fields),
        FamilyKind::Latent => latent::latent(fields),
        FamilyKind::DeepseekV4 => latent::deepseek_v4(fields),
        FamilyKind::MimoV2 => blocks::mimo_v2(fields),
        FamilyKind::Step => blocks::step(fields),
        FamilyKind::Mamba1 => every(fields, recurrent::mamba1),
        FamilyKind::Mamba2 => every(fields, recurrent::mamba2),
        FamilyKind::Rwkv(generation) => every(fields, |fields| recurrent::rwkv(fields, generation)),
        FamilyKind::Jamba => hybrids::jamba(fields),
        FamilyKind::Bamba => hybrids::bamba(fields),
        FamilyKind::Plamo2 => hybrids::plamo2(fields),
        FamilyKind::GatedDelta => hybrids::gated_delta(fields),
        FamilyKind::KimiLinear => hybrids::kimi_linear(fields),
        FamilyKind::MiniMax01 => hybrids::minimax_01(fields),
        FamilyKind::BailingLinear => hybrids::bailing_linear(fields),
        FamilyKind::Lfm2 => hybrids::lfm2(fields),
        FamilyKind::Mllama => blocks::mllama(fields),
        FamilyKind::Encoder | FamilyKind::EncoderDecoder => {
            Err(fields.family("an encoder has no decoder layers"))
        }
    }?;

    Ok(mixers.into_iter().map(Mixed::from).collect())
}

/// L, within what any model has.
pub(super) fn count(fields: &Fields<'_>) -> Result<usize, Unsupported> {
    bounded(fields, heads::LAYERS)
}

/// A number of layers under another name.
pub(super) fn bounded(fields: &Fields<'_>, keys: &[&str]) -> Result<usize, Unsupported> {
    const MOST: u64 = 2048;

    let layers = fields.need(keys)?;
    if layers > MOST {
        let key = keys
            .iter()
            .find(|key| fields.value(key).is_some())
            .copied()
            .unwrap_or_default();
        return Err(super::fields::contradiction(
            key,
            &layers.into(),
            "no model has more than 2048 layers",
        ));
    }

    Ok(usize::try_from(layers).unwrap_or(usize::MAX))
}

fn every(
    fields: &Fields<'_>,
    mixer: impl Fn(&Fields<'_>) -> Result<super::super::architecture::Recurrent, Unsupported>,
) -> Result<Vec<Mixer>, Unsupported> {
    Ok(vec![Mixer::Recurrent(mixer(fields)?); count(fields)?])
}

/// Attention in each layer.
fn attention(fields: &Fields<'_>, rule: Spans) -> Result<Vec<Mixed>, Unsupported> {
    let layers = count(fields)?;
    let mut spans = spans::spans(fields, rule, layers)?;
    if bidirectional(fields)? {
        spans = vec![Span::Bidirectional; layers];
    }

    let overrides = Overrides::read(fields, layers)?;
    let heads = per_layer(fields, layers)?;
    let shared = fields.count(&["num_kv_shared_layers"])?.unwrap_or(0);
    let own = layers.saturating_sub(usize::try_from(shared).unwrap_or(usize::MAX));
    if shared > 0 && own == 0 {
        return Err(fields.length("num_kv_shared_layers", layers, layers));
    }
    // Hunyuan-Large: only each n-th layer has keys and values of its own (`use_cla`,
    // `cla_share_factor`).
    let every = match fields.flag("use_cla")? {
        Some(true) => usize::try_from(fields.need(&["cla_share_factor"])?).unwrap_or(usize::MAX),
        _ => 1,
    };

    // Where layers are overridden one by one, that map is the whole truth (transformers
    // `Gemma4TextConfig`).
    let global = if fields.has("per_layer_config") {
        None
    } else {
        global_heads(fields)?
    };

    let mixers = spans
        .into_iter()
        .zip(heads)
        .enumerate()
        .map(|(layer, (span, heads))| {
            let heads = if span == Span::Full {
                global.unwrap_or(heads)
            } else {
                heads
            };

            let span = overrides.span(fields, layer, span)?;
            let mut mixer = overrides.heads(fields, layer, heads)?.mixer(span);
            if let Mixer::Attention(attention) = &mut mixer {
                attention.shares_cache = layer >= own || layer % every != 0;
            }

            Ok(Mixed::from(mixer))
        });

    mixers.collect()
}

/// Gemma-3 text models trained as encoders see both ways and keep nothing, and so do embedding
/// models made of decoders (vLLM `model_executor/models/config.py`, `LlamaBidirectionalConfig`).
/// Gemma-4 says "vision": image tokens only, and PaliGemma means its prefix.
pub(super) fn bidirectional(fields: &Fields<'_>) -> Result<bool, Unsupported> {
    if fields
        .root
        .get("model_type")
        .and_then(serde_json::Value::as_str)
        == Some("paligemma")
    {
        return Ok(false);
    }

    if fields.class.contains("Bidirectional") || fields.flag("is_causal")? == Some(false) {
        return Ok(true);
    }

    match fields.value("use_bidirectional_attention") {
        Some(serde_json::Value::String(word)) if word == "vision" => Ok(false),
        Some(serde_json::Value::String(word)) if word == "all" => Ok(true),
        _ => Ok(fields.flag("use_bidirectional_attention")? == Some(true)),
    }
}

/// Gemma-4: full-attention layers have their own head size, and KV heads of their own where K and V
/// are one projection (transformers `modeling_gemma4.py`: `attention_k_eq_v` selects
/// `num_global_key_value_heads`).
fn global_heads(fields: &Fields<'_>) -> Result<Option<Heads>, Unsupported> {
    let Some(dim) = fields.size(&["global_head_dim"])? else {
        return Ok(None);
    };

    let local = heads::heads(fields)?;
    let kv_heads = match fields.flag("attention_k_eq_v")? {
        Some(true) => fields
            .size(&["num_global_key_value_heads"])?
            .unwrap_or(local.kv),
        _ => local.kv,
    };

    heads::divides(fields, local.query, kv_heads)?;
    Ok(Some(Heads {
        kv: kv_heads,
        key_dim: dim,
        value_dim: dim,
        ..local
    }))
}

/// Heads of each layer: alike, or by per-layer lists (OpenELM's `num_query_heads` and
/// `num_kv_heads`, DeciLM's `num_key_value_heads_per_layer`).
fn per_layer(fields: &Fields<'_>, layers: usize) -> Result<Vec<Heads>, Unsupported> {
    let list = |keys: &[&'static str]| -> Result<Option<Vec<u64>>, Unsupported> {
        let Some(key) = keys
            .iter()
            .find(|key| fields.value(key).is_some_and(serde_json::Value::is_array))
        else {
            return Ok(None);
        };

        let numbers = fields.numbers(key)?.unwrap_or_default();
        if numbers.len() == layers {
            Ok(Some(numbers))
        } else {
            Err(fields.length(key, numbers.len(), layers))
        }
    };

    let queries = list(&[
        "num_query_heads",
        "num_attention_heads_per_layer",
        "num_attention_heads",
    ])?;

    let keys = list(&[
        "num_kv_heads",
        "num_key_value_heads_per_layer",
        "num_key_value_heads",
    ])?;
    if queries.is_none() && keys.is_none() {
        return Ok(vec![heads::heads(fields)?; layers]);
    }

    let alike = if queries.is_none() {
        Some(fields.need(heads::HEADS)?)
    } else {
        None
    };

    let one = |layer: usize| {
        let heads = match &queries {
            Some(list) => list.get(layer).copied(),
            None => alike,
        };

        let heads = heads
            .filter(|heads| *heads > 0)
            .ok_or_else(|| fields.missing("num_attention_heads"))?;
        let kv_heads = match &keys {
            Some(list) => list.get(layer).copied().unwrap_or(heads),
            None => fields.size(heads::KV_HEADS)?.unwrap_or(heads),
        };

        heads::divides(fields, heads, kv_heads)?;
        let dim = heads::head_dim(fields, heads)?;

        Ok(Heads {
            query: heads,
            kv: kv_heads,
            key_dim: dim,
            value_dim: dim,
        })
    };

    (0..layers).map(one).collect()
}
