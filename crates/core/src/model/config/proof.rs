//! What the tensors' names and shapes prove: that a configuration is right, or that an unknown type
//! is an ordinary one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::architecture::{Architecture, Mixer, Unsupported};
use super::super::dtype::Dtype;
use super::super::tensors::{Inventory, TensorClass};
use super::families::{Family, FamilyKind, Rope, Spans};
use super::fields::Fields;
use super::heads;

/// Whether embedding and output head are one tensor, as the names tell; `None` without names.
pub(super) fn tied(tensors: &Inventory) -> Option<bool> {
    const HEADS: &[&str] = &[
        "lm_head.",
        "output.weight",
        "output_layer.weight",
        "embed_out.weight",
        "lm_head_",
        "head.weight",
        "wte_head",
    ];

    let mut names = root_names(tensors).peekable();
    names.peek()?;

    Some(!names.any(|name| {
        HEADS
            .iter()
            .any(|head| name.starts_with(head) || name.contains(&format!(".{head}")))
    }))
}

fn root_names(tensors: &Inventory) -> impl Iterator<Item = &str> {
    tensors
        .classes
        .iter()
        .filter(|class| class.component.is_empty())
        .map(|class| &*class.pattern)
}

/// Multi-token-prediction layers that only the names show (`mtp.layers.*`).
pub(super) fn mtp_layers(tensors: &Inventory) -> u32 {
    let classes = tensors
        .classes
        .iter()
        .filter(|class| class.pattern.starts_with("mtp.layers.*."));

    classes
        .flat_map(|class| class.layers.iter().map(|run| run.last.saturating_add(1)))
        .max()
        .unwrap_or(0)
}

/// Compares stored projections and layers with what the configuration says of them.
pub(super) fn check(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    every_layer_is_stored(architecture, tensors)?;
    for class in tensors.classes.iter().filter(|class| is_decoder(class)) {
        let Some(projection) = projection(&class.pattern) else {
            continue;
        };

        let &[rows, columns] = &*class.shape else {
            continue;
        };

        // Packed weights fold rows or columns, each method in its own way: only plain elements show
        // the shape.
        let plain = matches!(
            class.dtype(),
            Some(Dtype::I8 | Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E4M3Fnuz)
        ) || class.dtype().is_some_and(Dtype::is_float);
        if columns <= 1 || !plain {
            continue;
        }

        for run in &class.layers {
            for layer in run.first..=run.last.min(run.first.saturating_add(4096)) {
                let Some(Mixer::Attention(attention)) = architecture
                    .layers
                    .get(layer as usize)
                    .map(|layer| &layer.mixer)
                else {
                    continue;
                };

                let expected = match projection {
                    "k_proj" => attention.kv_heads.saturating_mul(attention.key_dim),
                    "v_proj" => attention.kv_heads.saturating_mul(attention.value_dim),
                    _ => continue,
                };

                if rows != expected {
                    return Err(Unsupported::Contradiction {
                        key: "num_key_value_heads x head_dim".to_owned(),
                        value: expected.to_string(),
                        why: format!("layer {layer} stores a {projection} of {rows} rows"),
                    });
                }
            }
        }
    }

    check_experts(architecture, tensors)?;
    check_layers(architecture, tensors)
}

/// No layer stores more experts than are configured; stacked experts are exactly as many.
fn check_experts(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    let Some(experts) = architecture.experts else {
        return Ok(());
    };

    let contradiction = |stored: u64| Unsupported::Contradiction {
        key: "num_experts".to_owned(),
        value: experts.count.to_string(),
        why: format!("a layer stores {stored} experts"),
    };

    for class in tensors.classes.iter().filter(|class| is_decoder(class)) {
        let Some((_, rest)) = class.pattern.split_once(".experts.") else {
            continue;
        };

        let stored = match (rest.strip_prefix("*."), class.shape.len()) {
            (Some(_), _) => class
                .layers
                .iter()
                .map(|run| run.each)
                .max()
                .filter(|each| *each > experts.count),
            (None, 3..) => class
                .shape
                .first()
                .copied()
                .filter(|stacked| *stacked != experts.count),
            _ => None,
        };

        if let Some(stored) = stored {
            return Err(contradiction(stored));
        }
    }

    Ok(())
}

/// Every configured layer is stored, and none beyond the prediction layers.
fn check_layers(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    let decoder = tensors.classes.iter().filter(|class| is_decoder(class));
    let Some(last) = decoder
        .flat_map(|class| class.layers.iter().map(|run| run.last))
        .max()
    else {
        return Ok(());
    };

    let (stored, configured) = (last.saturating_add(1), architecture.layer_count());
    let most = configured.saturating_add(
        architecture
            .mtp_layers
            .max(stored_behind(tensors, configured)),
    );

    if stored < configured || stored > most {
        return Err(Unsupported::Contradiction {
            key: "num_hidden_layers".to_owned(),
            value: configured.to_string(),
            why: format!("the files hold {stored} layers"),
        });
    }

    Ok(())
}

/// Refuses weights that lack whole layers of the configuration: what is not there would be counted
/// as nothing. Only names that are known to number the decoder's layers are held against it.
fn every_layer_is_stored(
    architecture: &Architecture,
    tensors: &Inventory,
) -> Result<(), Unsupported> {
    let configured = architecture.layer_count();
    let decoder: Vec<&TensorClass> = tensors
        .classes
        .iter()
        .filter(|class| is_decoder(class))
        .collect();

    let bare = decoder.is_empty()
        && tensors.classes.iter().all(|class| class.layers.is_empty())
        && root_names(tensors).any(|name| name.ends_with("embed_tokens.weight"));
    if decoder.is_empty() && !bare {
        return Ok(());
    }

    let runs = decoder.iter().flat_map(|class| &class.layers);
    let stored: BTreeSet<u32> = runs
        .flat_map(|run| run.first..run.last.saturating_add(1).min(configured))
        .collect();

    match (0..configured).find(|layer| !stored.contains(layer)) {
        None => Ok(()),
        Some(layer) => Err(Unsupported::Contradiction {
            key: "num_hidden_layers".into(),
            value: configured.to_string(),
            why: format!(
                "the weights hold no tensor of layer {layer}; the download may be incomplete"
            ),
        }),
    }
}

/// Layers behind the last configured one that are prediction layers by their own tensors
/// (`eh_proj`, `enorm`).
pub(super) fn stored_behind(tensors: &Inventory, configured: u32) -> u32 {
    let marked = |class: &&TensorClass| {
        is_decoder(class)
            && [".eh_proj.", ".enorm."]
                .iter()
                .any(|part| class.pattern.contains(part))
    };

    let last = tensors
        .classes
        .iter()
        .filter(marked)
        .flat_map(|class| class.layers.iter().map(|run| run.last))
        .max();

    last.map_or(0, |last| last.saturating_add(1).saturating_sub(configured))
}

/// Whether a class belongs to the decoder's layers: `model.layers.*.`, under any wrapper, but of no
/// tower or draft.
fn is_decoder(class: &TensorClass) -> bool {
    const OTHERS: &[&str] = &[
        "vision",
        "visual",
        "vit.",
        "audio",
        "encoder",
        "mtp",
        "eagle",
        "draft",
        "talker",
        "qformer",
        "perceiver",
        "resampler",
    ];

    let Some((prefix, _)) = class.pattern.split_once("layers.*.") else {
        return false;
    };

    class.component.is_empty()
        && [
            "",
            "model.",
            "language_model.model.",
            "model.language_model.",
            "language_model.",
        ]
        .contains(&prefix)
        && !OTHERS.iter().any(|other| prefix.contains(other))
}

/// `k_proj` of `...self_attn.k_proj.weight`.
fn projection(pattern: &str) -> Option<&str> {
    let (_, rest) = pattern.split_once(".self_attn.")?;
    rest.strip_suffix(".weight")
        .or_else(|| rest.strip_suffix(".weight_packed"))
}

/// The rules for a model type that nobody here has read: ordinary grouped-query attention, when
/// every key that could concern the cache is known and the stored projections are plain ones; else
/// the refusal that names what is not known.
pub(super) fn unknown(fields: &Fields<'_>, tensors: &Inventory) -> Result<Family, Unsupported> {
    if let Some((key, value)) = fields
        .own
        .iter()
        .find(|(key, value)| is_suspicious(key, value))
    {
        let value: String = value.to_string().chars().take(40).collect();
        return Err(fields.family(format!(
            "{} = {value}",
            key.chars().take(60).collect::<String>()
        )));
    }

    let refuse = |why: &str| fields.unproved(why);
    let heads = heads::heads(fields)
        .map_err(|_| refuse("its attention heads are not stated in known keys"))?;

    if fields.value("sliding_window").is_some()
        && fields.value("layer_types").is_none()
        && fields.flag("use_sliding_window")? != Some(false)
    {
        return Err(fields.family("sliding_window without layer_types"));
    }

    let classes: Vec<&TensorClass> = tensors
        .classes
        .iter()
        .filter(|class| is_decoder(class))
        .collect();
    if classes.is_empty() {
        return Err(refuse("no tensor names prove its attention"));
    }

    for class in &classes {
        if let Some(part) = class.pattern.split('.').find(|part| !is_plain_module(part)) {
            return Err(refuse(&format!("module {part} is not understood")));
        }
    }

    let layers = fields.need(heads::LAYERS)?;
    for (name, rows) in [
        ("q_proj", heads.query.saturating_mul(heads.key_dim)),
        ("k_proj", heads.kv.saturating_mul(heads.key_dim)),
        ("v_proj", heads.kv.saturating_mul(heads.value_dim)),
    ] {
        let proven = classes
            .iter()
            .filter(|class| projection(&class.pattern) == Some(name));
        let proven: u64 = proven
            .filter(|class| class.shape.first() == Some(&rows))
            .map(|class| class.count)
            .sum();
        if proven != layers {
            return Err(refuse(&format!(
                "{proven} of {layers} layers store a {name} of {rows} rows"
            )));
        }
    }

    Ok(Family {
        types: &[],
        kind: FamilyKind::Attention(Spans::Full),
        rope: Rope::Standard,
        tied: false,
    })
}

/// Whether an unread key may concern what is remembered.
fn is_suspicious(key: &str, value: &Value) -> bool {
    const KNOWN: &[&str] = &[
        "num_attention_heads",
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "head_dim",
        "attention_bias",
        "attention_dropout",
        "attn_dropout",
        "attn_pdrop",
        "attention_probs_dropout_prob",
        "attention_multiplier",
        "attention_scale",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "attention_softmax_in_fp32",
        "attn_logit_softcapping",
        "use_cache",
        "num_attention_groups",
        "attention_out_bias",
        "attention_qkv_bias",
        "attention_output_bias",
        "cache_implementation",
        "chunk_size_feed_forward",
        "is_decoder",
        "add_cross_attention",
        "query_pre_attn_scalar",
        "kv_channels",
        "attn_output_gate",
        "use_attention_gate",
        "attention_value_scale",
        "num_attention_heads_per_layer",
        "num_local_experts",
    ];

    const WORDS: &[&str] = &[
        "attn",
        "attention",
        "window",
        "ssm",
        "mamba",
        "linear_",
        "latent",
        "lora_rank",
        "kv_",
        "_kv",
        "conv",
        "state",
        "chunk",
        "compress",
        "cache",
        "recurrent",
        "rnn",
        "hybrid",
        "pattern",
        "block_config",
        "cross",
        "share",
        "sparse",
        "index",
        "memory",
        "lightning",
        "delta",
        "retention",
        "rwkv",
        "hyena",
        "yoco",
        "global_",
        "local_",
        "nope",
        "swa",
    ];

    const HARMLESS: &[&str] = &[
        "shared_expert",
        "share_expert",
        "_token_index",
        "token_id",
        "initializer",
        "shared_intermediate",
        "decoder_sparse_step",
    ];

    let inactive = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };

    let key = key.to_ascii_lowercase();
    !inactive
        && !KNOWN.contains(&key.as_str())
        && !HARMLESS.iter().any(|word| key.contains(word))
        && WORDS.iter().any(|word| key.contains(word))
}

/// Names that the layers of an ordinary decoder are made of.
fn is_plain_module(part: &str) -> bool {
    const PLAIN: &[&str] = &[
        "*",
        "model",
        "language_model",
        "layers",
        "self_attn",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "q_norm",
        "k_norm",
        "mlp",
        "gate_proj",
        "up_proj",
        "down_proj",
        "gate_up_proj",
        "experts",
        "shared_expert",
        "shared_experts",
        "gate",
        "router",
        "shared_expert_gate",
        "block_sparse_moe",
        "w1",
        "w2",
        "w3",
        "weight",
        "bias",
        "rotary_emb",
        "inv_freq",
        "fc1",
        "fc2",
        "feed_forward",
        "weight_packed",
        "weight_scale",
        "weight_scale_inv",
        "input_scale",
        "weight_shape",
        "e_score_correction_bias",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "c_fc",
        "c_proj",
        "dense_h_to_4h",
        "dense_4h_to_h",
    ];

    PLAIN.contains(&part) || part.contains("norm") || part.contains("ln_")
}
