//! Lists of the tensors of vision models: a decoder, a vision tower and the layers between them.
//!
//! Names and shapes are those of transformers' `modeling_idefics3.py`, `modeling_qwen2_vl.py`,
//! `modeling_qwen2_5_vl.py` and `modeling_qwen3_vl.py`. A repository stores an output head or ties
//! it to the embeddings, so each configuration has two lists.

use serde_json::Value;

use super::super::MAX_LAYERS;
use super::super::sizes::{layers, size};
use super::{TensorList, Tensors, decoder, product};

/// Channels of a picture, if the configuration does not state them.
///
/// A wrong guess changes the number of elements.
const COLORS: u64 = 3;

/// Lists the tensors of Idefics3 and SmolVLM.
pub(super) fn idefics3(config: &Value) -> Option<Vec<TensorList>> {
    let vision = config.get("vision_config")?;
    let (hidden, width) = (
        size(vision, "hidden_size")?,
        size(vision, "intermediate_size")?,
    );
    let (image, patch) = (size(vision, "image_size")?, size(vision, "patch_size")?);
    let patches_a_side = image.checked_div(patch)?;
    let text_hidden = size(config.get("text_config")?, "hidden_size")?;
    let scale = size(config, "scale_factor")?;

    let mut tower = Tensors::default();
    let prefix = "model.vision_model";
    tower.pair(
        &format!("{prefix}.embeddings.patch_embedding"),
        &[hidden, COLORS, patch, patch],
        hidden,
    );

    let positions = product(&[patches_a_side, patches_a_side])?;
    tower.weight(
        &format!("{prefix}.embeddings.position_embedding"),
        &[positions, hidden],
    );

    for layer in 0..layers(vision, "num_hidden_layers")? {
        let layer = format!("{prefix}.encoder.layers.{layer}");
        for projection in ["k_proj", "v_proj", "q_proj", "out_proj"] {
            tower.linear(&format!("{layer}.self_attn.{projection}"), hidden, hidden);
        }
        tower.norm(&format!("{layer}.layer_norm1"), hidden);
        tower.norm(&format!("{layer}.layer_norm2"), hidden);
        tower.linear(&format!("{layer}.mlp.fc1"), width, hidden);
        tower.linear(&format!("{layer}.mlp.fc2"), hidden, width);
    }

    tower.norm(&format!("{prefix}.post_layernorm"), hidden);
    let connected = product(&[hidden, scale, scale])?;
    tower.weight(
        "model.connector.modality_projection.proj",
        &[text_hidden, connected],
    );

    // All published text configurations have the `model_type` "llama".
    let is_llama = config
        .pointer("/text_config/model_type")
        .and_then(Value::as_str)
        == Some("llama");

    is_llama.then(|| with_decoder(config, "llama", "model.text_model.", &tower))?
}

/// Lists the tensors of Qwen2-VL.
pub(super) fn qwen2_vl(config: &Value) -> Option<Vec<TensorList>> {
    let vision = config.get("vision_config")?;
    let hidden = size(vision, "embed_dim")?;
    let width = product(&[hidden, size(vision, "mlp_ratio")?])?;

    let mut tower = Tensors::default();
    tower.weight("visual.patch_embed.proj", &patch_embedding(vision, hidden)?);

    for block in 0..layers(vision, "depth")? {
        let block = format!("visual.blocks.{block}");
        tower.norm(&format!("{block}.norm1"), hidden);
        tower.norm(&format!("{block}.norm2"), hidden);
        tower.linear(&format!("{block}.attn.qkv"), hidden * 3, hidden);
        tower.linear(&format!("{block}.attn.proj"), hidden, hidden);
        tower.linear(&format!("{block}.mlp.fc1"), width, hidden);
        tower.linear(&format!("{block}.mlp.fc2"), hidden, width);
    }

    tower.norm("visual.merger.ln_q", hidden);
    let merged = merged(vision, hidden)?;
    tower.linear("visual.merger.mlp.0", merged, merged);
    tower.linear("visual.merger.mlp.2", size(vision, "hidden_size")?, merged);

    with_decoder(config, "qwen2", "model.", &tower)
}

/// Lists the tensors of Qwen2.5-VL.
///
/// Its tower has gated feed-forward blocks and norms without a bias.
pub(super) fn qwen2_5_vl(config: &Value) -> Option<Vec<TensorList>> {
    let vision = config.get("vision_config")?;
    let (hidden, width) = (
        size(vision, "hidden_size")?,
        size(vision, "intermediate_size")?,
    );

    let mut tower = Tensors::default();
    tower.weight("visual.patch_embed.proj", &patch_embedding(vision, hidden)?);

    for block in 0..layers(vision, "depth")? {
        let block = format!("visual.blocks.{block}");
        tower.weight(&format!("{block}.norm1"), &[hidden]);
        tower.weight(&format!("{block}.norm2"), &[hidden]);
        tower.linear(&format!("{block}.attn.qkv"), hidden * 3, hidden);
        tower.linear(&format!("{block}.attn.proj"), hidden, hidden);
        tower.linear(&format!("{block}.mlp.gate_proj"), width, hidden);
        tower.linear(&format!("{block}.mlp.up_proj"), width, hidden);
        tower.linear(&format!("{block}.mlp.down_proj"), hidden, width);
    }

    tower.weight("visual.merger.ln_q", &[hidden]);
    let merged = merged(vision, hidden)?;
    tower.linear("visual.merger.mlp.0", merged, merged);

    tower.linear(
        "visual.merger.mlp.2",
        size(vision, "out_hidden_size")?,
        merged,
    );

    with_decoder(config, "qwen2", "model.", &tower)
}

/// Lists the tensors of Qwen3-VL with a dense decoder.
pub(super) fn qwen3_vl(config: &Value) -> Option<Vec<TensorList>> {
    let vision = config.get("vision_config")?;
    let (hidden, width) = (
        size(vision, "hidden_size")?,
        size(vision, "intermediate_size")?,
    );

    let (positions, out) = (
        size(vision, "num_position_embeddings")?,
        size(vision, "out_hidden_size")?,
    );

    let mut tower = Tensors::default();
    tower.pair(
        "model.visual.patch_embed.proj",
        &patch_embedding(vision, hidden)?,
        hidden,
    );

    tower.weight("model.visual.pos_embed", &[positions, hidden]);

    for block in 0..layers(vision, "depth")? {
        let block = format!("model.visual.blocks.{block}");
        tower.norm(&format!("{block}.norm1"), hidden);
        tower.norm(&format!("{block}.norm2"), hidden);
        tower.linear(&format!("{block}.attn.qkv"), hidden * 3, hidden);
        tower.linear(&format!("{block}.attn.proj"), hidden, hidden);
        tower.linear(&format!("{block}.mlp.linear_fc1"), width, hidden);
        tower.linear(&format!("{block}.mlp.linear_fc2"), hidden, width);
    }

    let merged = merged(vision, hidden)?;
    let mut add_merger = |module: &str, norm: u64| {
        tower.norm(&format!("{module}.norm"), norm);
        tower.linear(&format!("{module}.linear_fc1"), merged, merged);
        tower.linear(&format!("{module}.linear_fc2"), out, merged);
    };

    add_merger("model.visual.merger", hidden);
    let taps = vision.get("deepstack_visual_indexes")?.as_array()?.len() as u64;
    for tap in 0..(taps <= MAX_LAYERS).then_some(taps)? {
        add_merger(&format!("model.visual.deepstack_merger_list.{tap}"), merged);
    }

    with_decoder(config, "qwen3", "model.language_model.", &tower)
}

/// Lists the tower with a decoder, both without and with an output head.
fn with_decoder(
    config: &Value,
    model_type: &'static str,
    prefix: &str,
    tower: &Tensors,
) -> Option<Vec<TensorList>> {
    // Older files have the decoder's sizes at their top level.
    let text = config.get("text_config").unwrap_or(config);

    [false, true]
        .into_iter()
        .map(|has_head| {
            let mut tensors = decoder(text, model_type, prefix, has_head)?;
            tensors.extend(tower.0.iter().cloned());
            Some(tensors)
        })
        .collect()
}

/// Returns the shape of a convolution over patches of a few frames.
fn patch_embedding(vision: &Value, hidden: u64) -> Option<[u64; 5]> {
    let channels = ["in_channels", "in_chans"]
        .into_iter()
        .find_map(|key| size(vision, key))
        .unwrap_or(COLORS);
    let (frames, patch) = (
        size(vision, "temporal_patch_size")?,
        size(vision, "patch_size")?,
    );

    Some([hidden, channels, frames, patch, patch])
}

/// Returns the width of the square of patches that the merger combines.
fn merged(vision: &Value, hidden: u64) -> Option<u64> {
    let side = size(vision, "spatial_merge_size")?;
    product(&[hidden, side, side])
}
