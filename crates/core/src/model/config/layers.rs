//! The layers of a decoder, family by family, and what each of them must remember.

use super::super::architecture::{Attention, FeedForward, Mixer, Span, Unsupported};
use super::families::{FamilyKind, Spans};
use super::fields::Fields;
use super::heads::{self, Heads};
use super::overrides::Overrides;
use super::{
    blocks, convolved, latent, linear_attention, looped, mamba_hybrids, recurrent, spans,
    sparse_latent,
};

/// The mixers of one layer, before its feed-forward is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LayerMixers {
    pub(super) mixer: Mixer,
    pub(super) second_mixer: Option<Mixer>,
    /// Set if the layer pattern itself states what follows the mixer.
    pub(super) feed_forward: Option<FeedForward>,
    /// Times that one pass over the tokens runs the layer.
    pub(super) passes: u32,
}

impl LayerMixers {
    /// Iterates over the layer's one or two mixers.
    pub(super) fn mixers(&self) -> impl Iterator<Item = &Mixer> {
        std::iter::once(&self.mixer).chain(self.second_mixer.as_ref())
    }
}

impl From<Mixer> for LayerMixers {
    fn from(mixer: Mixer) -> Self {
        Self {
            mixer,
            second_mixer: None,
            feed_forward: None,
            passes: 1,
        }
    }
}

impl Heads {
    /// Returns an attention layer with these heads.
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

/// Returns all decoder layers.
pub(super) fn layers(
    fields: &Fields<'_>,
    kind: FamilyKind,
) -> Result<Vec<LayerMixers>, Unsupported> {
    if !matches!(
        kind,
        FamilyKind::Attention(_) | FamilyKind::MimoV2 | FamilyKind::Step | FamilyKind::Dots3
    ) && fields.value("per_layer_config").is_some()
    {
        Overrides::reject(
            fields,
            fields
                .size(heads::LAYERS)?
                .map_or(usize::MAX, |layers| layers.try_into().unwrap_or(usize::MAX)),
        )?;
    }

    let mixers = match kind {
        FamilyKind::Attention(rule) => return attention(fields, rule),
        FamilyKind::NemotronH => return mamba_hybrids::nemotron_h(fields),
        // DeciLM-7B lists only the KV heads of its layers.
        FamilyKind::BlockList if fields.value("block_configs").is_none() => {
            return attention(fields, Spans::Full);
        }
        FamilyKind::BlockList => return blocks::nemotron_nas(fields),
        FamilyKind::FalconH1 => return mamba_hybrids::falcon_h1(fields),
        FamilyKind::Zamba(generation) => return mamba_hybrids::zamba(fields, generation),
        FamilyKind::DoubleLatent => return latent::longcat_flash(fields),
        FamilyKind::MinimaxM3 => return sparse_latent::minimax_m3(fields),
        FamilyKind::Inkling => return convolved::inkling(fields),
        FamilyKind::Zaya => return convolved::zaya(fields),
        FamilyKind::HrmText => return looped::hrm_text(fields),
        FamilyKind::Dory => return looped::dory(fields),
        FamilyKind::Qwen4Exp => return linear_attention::qwen4_exp(fields),
        FamilyKind::Latent => latent::latent(fields),
        FamilyKind::HyV4 => sparse_latent::hy_v4(fields),
        FamilyKind::MistralLarge4 => sparse_latent::mistral_large4(fields),
        FamilyKind::Dots3 => sparse_latent::dots3(fields),
        FamilyKind::Glm5Next => sparse_latent::glm5_next(fields),
        FamilyKind::DeepseekV4 => latent::deepseek_v4(fields),
        FamilyKind::MimoV2 => blocks::mimo_v2(fields),
        FamilyKind::Step => blocks::step_3_5(fields),
        FamilyKind::Mamba1 => every(fields, recurrent::mamba1),
        FamilyKind::Mamba2 => every(fields, recurrent::mamba2),
        FamilyKind::Rwkv(generation) => every(fields, |fields| recurrent::rwkv(fields, generation)),
        FamilyKind::Jamba => mamba_hybrids::jamba(fields),
        FamilyKind::Bamba => mamba_hybrids::bamba(fields),
        FamilyKind::Plamo2 => mamba_hybrids::plamo2(fields),
        FamilyKind::GatedDelta => linear_attention::gated_delta(fields),
        FamilyKind::KimiLinear => linear_attention::kimi_linear(fields),
        FamilyKind::MiniMax01 => linear_attention::minimax_01(fields),
        FamilyKind::BailingLinear => linear_attention::bailing_linear(fields),
        FamilyKind::Lfm2 => linear_attention::lfm2(fields),
        FamilyKind::Mllama => blocks::mllama(fields),
        FamilyKind::Encoder
        | FamilyKind::EncoderDecoder
        | FamilyKind::T5Gemma
        | FamilyKind::CrossDecoder => Err(fields.family("an encoder has no decoder layers")),
    }?;

    Ok(mixers.into_iter().map(LayerMixers::from).collect())
}

/// Reads L, bounded by the largest supported number of layers.
pub(super) fn count(fields: &Fields<'_>) -> Result<usize, Unsupported> {
    bounded(fields, heads::LAYERS)
}

/// Reads a number of layers under other names.
pub(super) fn bounded(fields: &Fields<'_>, keys: &[&str]) -> Result<usize, Unsupported> {
    const MAX_LAYERS: u64 = 2048;

    let layers = fields.need(keys)?;
    if layers > MAX_LAYERS {
        let key = keys
            .iter()
            .find(|key| fields.value(key).is_some())
            .copied()
            .unwrap_or_default();
        return Err(super::fields::contradiction(
            key,
            &layers.into(),
            "more than 2048 layers",
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

/// Returns the layers of a decoder with attention in each layer.
pub(super) fn attention(fields: &Fields<'_>, rule: Spans) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let mut spans = spans::spans(fields, rule, layers)?;
    if bidirectional(fields)? {
        spans = vec![Span::Bidirectional; layers];
    }

    let overrides = Overrides::read(fields, layers)?;
    let heads = per_layer(fields, layers)?;
    let shared = fields.count(&["num_kv_shared_layers"])?.unwrap_or(0);
    let own = layers.saturating_sub(usize::try_from(shared).unwrap_or(usize::MAX));
    if shared > 0 && own == 0 && !is_assistant(fields) {
        return Err(fields.length("num_kv_shared_layers", layers, layers));
    }
    // Hunyuan-Large: only each n-th layer has its own keys and values (`use_cla`,
    // `cla_share_factor`).
    let every = match fields.flag("use_cla")? {
        Some(true) => usize::try_from(fields.need(&["cla_share_factor"])?).unwrap_or(usize::MAX),
        _ => 1,
    };

    // `per_layer_config` replaces the global heads (transformers `Gemma4TextConfig`).
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

            Ok(LayerMixers::from(mixer))
        });

    mixers.collect()
}

/// Returns whether attention sees both directions and has no cache.
///
/// This holds for Gemma-3 text models trained as encoders and for embedding models made of decoders
/// (vLLM `model_executor/models/config.py`, `LlamaBidirectionalConfig`). It does not hold for
/// Gemma-4's value "vision", which covers image tokens only, nor for PaliGemma, where the flag
/// covers the prefix.
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

/// Returns whether the model drafts for another one, whose caches all its layers read (transformers
/// `Gemma4UnifiedAssistantForCausalLM`).
fn is_assistant(fields: &Fields<'_>) -> bool {
    let root_type = fields.inside(fields.root).text("model_type");
    root_type.is_some_and(|name| name.ends_with("_assistant"))
}

/// Returns the heads of Gemma-4's full-attention layers, which have their own head size.
///
/// They also have their own number of KV heads if K and V are one projection (transformers
/// `modeling_gemma4.py`: `attention_k_eq_v` selects `num_global_key_value_heads`).
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

    heads::check_kv_heads(fields, local.query, kv_heads)?;
    Ok(Some(Heads {
        kv: kv_heads,
        key_dim: dim,
        value_dim: dim,
        ..local
    }))
}

/// Returns the heads of each layer, equal or by per-layer lists.
///
/// OpenELM has lists in `num_query_heads` and `num_kv_heads`, DeciLM in
/// `num_key_value_heads_per_layer`.
fn per_layer(fields: &Fields<'_>, layers: usize) -> Result<Vec<Heads>, Unsupported> {
    let query_list = heads_list(
        fields,
        &[
            "num_query_heads",
            "num_attention_heads_per_layer",
            "num_attention_heads",
        ],
        layers,
    )?;

    let kv_list = heads_list(
        fields,
        &[
            "num_kv_heads",
            "num_key_value_heads_per_layer",
            "num_key_value_heads",
        ],
        layers,
    )?;

    if query_list.is_none() && kv_list.is_none() {
        return Ok(vec![heads::heads(fields)?; layers]);
    }

    let query_lists = match query_list {
        Some(list) => list,
        None => vec![fields.need(heads::HEADS)?; layers],
    };

    query_lists
        .into_iter()
        .enumerate()
        .map(|(layer, heads)| listed_heads(fields, layer, heads, kv_list.as_deref()))
        .collect()
}

/// Reads the first of `keys` that holds a list, with one number for each layer.
fn heads_list(
    fields: &Fields<'_>,
    keys: &[&'static str],
    layers: usize,
) -> Result<Option<Vec<u64>>, Unsupported> {
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
}

/// Returns the heads of one layer with `heads` query heads.
fn listed_heads(
    fields: &Fields<'_>,
    layer: usize,
    heads: u64,
    kv_list: Option<&[u64]>,
) -> Result<Heads, Unsupported> {
    if heads == 0 {
        return Err(fields.missing("num_attention_heads"));
    }

    let kv_heads = match kv_list {
        Some(list) => list.get(layer).copied().unwrap_or(heads),
        None => fields.size(heads::KV_HEADS)?.unwrap_or(heads),
    };

    heads::check_kv_heads(fields, heads, kv_heads)?;
    let dim = heads::head_dim(fields, heads)?;

    Ok(Heads {
        query: heads,
        kv: kv_heads,
        key_dim: dim,
        value_dim: dim,
    })
}
