//! The vision tower, limited to the sizes that determine its memory.

use super::super::architecture::{Unsupported, VisionTower};
use super::fields::{Fields, Object};

/// Reads the tower of a multimodal configuration.
///
/// Returns `None` if there is none or its sizes are not stated.
///
/// An invalid tower must not make the language model unreadable, so it is ignored with a warning.
pub(super) fn tower(fields: &Fields<'_>) -> Option<VisionTower> {
    let vision = ["vision_config", "vision_encoder", "vit_config"]
        .iter()
        .find_map(|key| nested(fields.root, key));
    let vision =
        vision.or_else(|| nested(nested(fields.root, "thinker_config")?, "vision_config"))?;
    let tower = read(&fields.inside(vision), &fields.inside(fields.root));

    tower.unwrap_or_else(|why| {
        fields.ignore_part(&format!(
            "{why}; the vision tower's activations are not counted"
        ));
        None
    })
}

/// Returns whether there is an audio tower.
pub(super) fn audio(fields: &Fields<'_>) -> bool {
    ["audio_config", "audio_encoder_config", "speech_config"]
        .iter()
        .any(|key| nested(fields.root, key).is_some())
        || nested(fields.root, "thinker_config")
            .is_some_and(|thinker| nested(thinker, "audio_config").is_some())
}

fn nested<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    object.get(key).and_then(serde_json::Value::as_object)
}

fn read(vision: &Fields<'_>, root: &Fields<'_>) -> Result<Option<VisionTower>, Unsupported> {
    let layers = vision.size(&["depth", "num_hidden_layers", "layers", "num_layers"])?;

    // In Qwen2-VL, `hidden_size` is the width of the merger's output, `embed_dim` that of the
    // tower.
    let hidden_size = vision.size(&["embed_dim", "hidden_size", "width"])?;
    let (Some(layers), Some(hidden_size)) = (layers, hidden_size) else {
        return Ok(None);
    };

    let intermediate_size = match vision.size(&["intermediate_size"])? {
        Some(width) => width,
        None => super::floor_of(hidden_size, vision.factor("mlp_ratio")?.unwrap_or(4.0)),
    };

    let heads = vision
        .size(&["num_heads", "num_attention_heads", "attention_heads"])?
        .unwrap_or(16);
    let side = match (vision.size(&["image_size"])?, vision.size(&["patch_size"])?) {
        (Some(image), Some(patch)) => Some(image / patch),
        _ => None,
    };

    let patches_per_item = side.map(|side| side.saturating_mul(side));
    let tokens_per_item = root.size(&["mm_tokens_per_image", "vision_soft_tokens_per_image"])?;

    Ok(Some(VisionTower {
        layers,
        hidden_size,
        intermediate_size,
        heads,
        tokens_per_item,
        patches_per_item,
    }))
}
