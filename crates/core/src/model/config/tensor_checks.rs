//! Checks that a configuration agrees with the names and shapes of the stored tensors.

use std::collections::BTreeSet;

use super::super::architecture::{Architecture, Mixer, Unsupported};
use super::super::dtype::Dtype;
use super::super::tensors::{Inventory, TensorClass};

/// Returns whether embedding and output head are one tensor; `None` without tensor names.
pub(super) fn has_tied_embeddings(tensors: &Inventory) -> Option<bool> {
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

/// Counts the multi-token-prediction layers under `mtp.layers.*`, which no configuration states.
pub(super) fn stored_mtp_layers(tensors: &Inventory) -> u32 {
    let classes = tensors
        .classes
        .iter()
        .filter(|class| class.pattern.starts_with("mtp.layers.*."));

    classes
        .flat_map(|class| class.layers.iter().map(|run| run.last.saturating_add(1)))
        .max()
        .unwrap_or(0)
}

/// Compares the stored projections, experts and layers with the configuration.
pub(super) fn check(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    check_every_layer_stored(architecture, tensors)?;
    for class in tensors.classes.iter().filter(|class| is_decoder(class)) {
        check_projection(architecture, class)?;
    }

    check_experts(architecture, tensors)?;
    check_layers(architecture, tensors)
}

/// Checks that a stored key or value projection has the rows that the configuration states.
fn check_projection(architecture: &Architecture, class: &TensorClass) -> Result<(), Unsupported> {
    let (Some(projection), &[rows, columns]) = (projection(&class.pattern), &*class.shape) else {
        return Ok(());
    };

    // Each quantization method packs rows or columns in its own way, so only unpacked elements
    // have the logical shape.
    let is_unpacked = matches!(
        class.dtype(),
        Some(Dtype::I8 | Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E4M3Fnuz)
    ) || class.dtype().is_some_and(Dtype::is_float);
    if columns <= 1 || !is_unpacked {
        return Ok(());
    }

    let layers = class
        .layers
        .iter()
        .flat_map(|run| run.first..=run.last.min(run.first.saturating_add(4096)));
    for layer in layers {
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

    Ok(())
}

/// Checks that no layer stores more experts than are configured.
///
/// The number of stacked experts must be exactly the configured one. transformers saves
/// LongCat-Flash with its experts that compute nothing (`LongcatFlashExperts`).
fn check_experts(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    let Some(experts) = architecture.experts else {
        return Ok(());
    };

    let zero_experts = architecture.zero_experts().unwrap_or(0);
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
                .filter(|each| *each > experts.count.saturating_add(zero_experts)),
            (None, 3..) => class
                .shape
                .first()
                .copied()
                .filter(|stacked| *stacked != experts.count)
                .filter(|stacked| *stacked != experts.count.saturating_add(zero_experts)),
            _ => None,
        };

        if let Some(stored) = stored {
            return Err(Unsupported::Contradiction {
                key: "num_experts".to_owned(),
                value: experts.count.to_string(),
                why: format!("a layer stores {stored} experts"),
            });
        }
    }

    Ok(())
}

/// Checks that the files hold the configured layers, and no others than prediction layers.
fn check_layers(architecture: &Architecture, tensors: &Inventory) -> Result<(), Unsupported> {
    let decoder = tensors.classes.iter().filter(|class| is_decoder(class));
    let Some(last) = decoder
        .flat_map(|class| class.layers.iter().map(|run| run.last))
        .max()
    else {
        return Ok(());
    };

    let (stored, configured) = (last.saturating_add(1), architecture.layer_count());
    let max = configured.saturating_add(
        architecture
            .mtp_layers
            .max(trailing_mtp_layers(tensors, configured)),
    );

    if stored < configured || stored > max {
        return Err(Unsupported::Contradiction {
            key: "num_hidden_layers".to_owned(),
            value: configured.to_string(),
            why: format!("the files hold {stored} layers"),
        });
    }

    Ok(())
}

/// Checks that the weights hold every configured layer.
///
/// A missing layer would be counted as 0 bytes. Only names that are known to number the decoder's
/// layers are checked.
fn check_every_layer_stored(
    architecture: &Architecture,
    tensors: &Inventory,
) -> Result<(), Unsupported> {
    let configured = architecture.layer_count();
    let decoder: Vec<&TensorClass> = tensors
        .classes
        .iter()
        .filter(|class| is_decoder(class))
        .collect();

    let has_only_embeddings = decoder.is_empty()
        && tensors.classes.iter().all(|class| class.layers.is_empty())
        && root_names(tensors).any(|name| name.ends_with("embed_tokens.weight"))
        // The only layer of an EAGLE-3 head has no number.
        && !root_names(tensors).any(|name| name.starts_with("midlayer."));
    if decoder.is_empty() && !has_only_embeddings {
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

/// Counts the multi-token-prediction layers after the last configured layer.
///
/// Their own tensors (`eh_proj`, `enorm`) identify them.
pub(super) fn trailing_mtp_layers(tensors: &Inventory, configured: u32) -> u32 {
    let last = tensors
        .classes
        .iter()
        .filter(|class| is_decoder(class) && is_mtp_projection(&class.pattern))
        .flat_map(|class| class.layers.iter().map(|run| run.last))
        .max();

    last.map_or(0, |last| last.saturating_add(1).saturating_sub(configured))
}

fn is_mtp_projection(pattern: &str) -> bool {
    [".eh_proj.", ".enorm."]
        .iter()
        .any(|part| pattern.contains(part))
}

/// Returns whether a class belongs to the decoder's layers.
///
/// Its name contains `model.layers.*.` under any wrapper, but under no tower or draft model.
pub(super) fn is_decoder(class: &TensorClass) -> bool {
    const NOT_DECODERS: &[&str] = &[
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
        && !NOT_DECODERS.iter().any(|other| prefix.contains(other))
}

/// Returns the projection of a name: `k_proj` for `...self_attn.k_proj.weight`.
pub(super) fn projection(pattern: &str) -> Option<&str> {
    let (_, rest) = pattern.split_once(".self_attn.")?;
    rest.strip_suffix(".weight")
        .or_else(|| rest.strip_suffix(".weight_packed"))
}
