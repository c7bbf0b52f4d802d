//! A diffusion transformer: the sets of tensors that live at the peak of a block, by family.
//!
//! Source: diffusers 0.42.1 `models/transformers/transformer_*.py`, whose blocks ran on the meta
//! device; the tensors that lived at the peak are the rows of the tables here.

use super::super::family::ModuleFamily;
use super::super::pipeline::{Pipeline, PipelinePart};
use crate::bytes::Bytes;

/// Tensors that live at once, counted for each sample of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LiveSet {
    /// Tensors of the model's width for each token of the image.
    image: u64,
    /// The same for each token of the prompt.
    text: u64,
    /// The same for each token of image and prompt joined.
    joint: u64,
    /// Tensors of the feed-forward's width.
    image_wide: u64,
    text_wide: u64,
    joint_wide: u64,
    /// Tensors of the model's width in 32 bits, for rotary embeddings and normalization.
    float_image: u64,
    float_joint: u64,
    /// Tensors of the feed-forward's width in 32 bits.
    float_wide: u64,
}

/// A set without tensors, to name only those that live.
const NONE: LiveSet = LiveSet {
    image: 0,
    text: 0,
    joint: 0,
    image_wide: 0,
    text_wide: 0,
    joint_wide: 0,
    float_image: 0,
    float_joint: 0,
    float_wide: 0,
};

/// Flux: rotary embedding in a single block; its concatenation before the output projection.
const FLUX: &[LiveSet] = &[
    LiveSet {
        joint: 11,
        float_joint: 3,
        ..NONE
    },
    LiveSet { joint: 15, ..NONE },
];

/// Qwen-Image: the feed-forward of the image, and of the prompt.
const QWEN_IMAGE: &[LiveSet] = &[
    LiveSet {
        image: 7,
        text: 5,
        image_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 8,
        text: 7,
        text_wide: 2,
        ..NONE
    },
];

/// Stable Diffusion 3: the feed-forward of the image; attention.
const STABLE_DIFFUSION_3: &[LiveSet] = &[
    LiveSet {
        image: 4,
        text: 2,
        joint: 1,
        image_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 4,
        text: 6,
        joint: 4,
        ..NONE
    },
];

/// Stable Diffusion 3.5 medium, whose blocks attend twice.
const STABLE_DIFFUSION_3_DUAL: &[LiveSet] = &[
    LiveSet {
        image: 6,
        text: 3,
        image_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 6,
        text: 2,
        joint: 1,
        image_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 7,
        text: 4,
        text_wide: 2,
        ..NONE
    },
];

/// PixArt: the feed-forward.
const PIXART: &[LiveSet] = &[LiveSet {
    image: 4,
    text: 1,
    image_wide: 2,
    ..NONE
}];

/// Lumina 2: the gate of the feed-forward in 32 bits; the product of a model in 32 bits.
const LUMINA_2: &[LiveSet] = &[LiveSet {
    joint: 6,
    joint_wide: 1,
    float_wide: 2,
    ..NONE
}];

/// Z-Image: the product of the gated feed-forward.
const Z_IMAGE: &[LiveSet] = &[LiveSet {
    image: 1,
    text: 1,
    joint: 4,
    joint_wide: 4,
    ..NONE
}];

/// Wan: the feed-forward; normalization in 32 bits.
const WAN: &[LiveSet] = &[
    LiveSet {
        image: 4,
        text: 1,
        image_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 5,
        text: 3,
        float_image: 3,
        ..NONE
    },
];

/// LTX-Video: rotary embedding over the whole width; the feed-forward.
const LTX: &[LiveSet] = &[
    LiveSet {
        image: 6,
        text: 1,
        float_image: 5,
        ..NONE
    },
    LiveSet {
        image: 4,
        text: 1,
        float_image: 2,
        image_wide: 2,
        ..NONE
    },
];

/// CogVideoX: the feed-forward.
const COGVIDEOX: &[LiveSet] = &[LiveSet {
    image: 1,
    text: 2,
    joint: 3,
    joint_wide: 2,
    ..NONE
}];

/// CogVideoX with rotary embeddings.
const COGVIDEOX_ROTARY: &[LiveSet] = &[
    LiveSet {
        image: 1,
        text: 2,
        joint: 3,
        joint_wide: 2,
        ..NONE
    },
    LiveSet {
        image: 2,
        text: 1,
        joint: 5,
        float_image: 3,
        ..NONE
    },
];

/// HunyuanVideo: rotary embedding in a single block; its concatenation.
const HUNYUAN_VIDEO: &[LiveSet] = &[
    LiveSet {
        image: 2,
        text: 1,
        joint: 10,
        float_image: 3,
        ..NONE
    },
    LiveSet { joint: 16, ..NONE },
];

/// Tokens and widths of a step.
struct Widths {
    image: u64,
    text: u64,
    model: u64,
    feed_forward: u64,
    element: u64,
}

/// The peak of one step on `batch` samples; `None` if the family has no rows.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    element: u64,
    batch: u64,
) -> Option<Bytes> {
    let sets = live_sets(part, pipeline.family)?;
    let model = model_width(part, pipeline.family)?;
    let widths = Widths {
        image: pipeline.patches().get(),
        text: pipeline.text_tokens,
        model,
        feed_forward: feed_forward_width(part, pipeline.family, model),
        element,
    };

    let highest = sets.iter().map(|set| widths.bytes(set)).max()?;
    Some((highest + inputs(part, pipeline.family, &widths)) * batch)
}

/// The sets of a family; `None` for a class that no referee ran.
fn live_sets(part: &PipelinePart, family: ModuleFamily) -> Option<&'static [LiveSet]> {
    Some(match family {
        ModuleFamily::Flux => FLUX,
        ModuleFamily::QwenImage => QWEN_IMAGE,
        ModuleFamily::StableDiffusion3 if part.numbers("dual_attention_layers").is_empty() => {
            STABLE_DIFFUSION_3
        }
        ModuleFamily::StableDiffusion3 => STABLE_DIFFUSION_3_DUAL,
        ModuleFamily::PixArt => PIXART,
        ModuleFamily::Lumina2 => LUMINA_2,
        ModuleFamily::ZImage => Z_IMAGE,
        ModuleFamily::Wan => WAN,
        ModuleFamily::Ltx => LTX,
        ModuleFamily::CogVideoX if part.flag("use_rotary_positional_embeddings") => {
            COGVIDEOX_ROTARY
        }
        ModuleFamily::CogVideoX => COGVIDEOX,
        ModuleFamily::HunyuanVideo => HUNYUAN_VIDEO,
        ModuleFamily::UNet | ModuleFamily::Other => return None,
    })
}

/// The width of a token.
fn model_width(part: &PipelinePart, family: ModuleFamily) -> Option<u64> {
    match family {
        ModuleFamily::Lumina2 => part.number("hidden_size"),
        ModuleFamily::ZImage => part.number("dim"),
        _ => part
            .number("num_attention_heads")?
            .checked_mul(part.number("attention_head_dim")?),
    }
}

/// The width of a feed-forward: 4 times that of a token, unless the configuration or the class
/// says otherwise.
fn feed_forward_width(part: &PipelinePart, family: ModuleFamily, model: u64) -> u64 {
    match family {
        ModuleFamily::Wan => part.number("ffn_dim").unwrap_or(model.saturating_mul(4)),
        ModuleFamily::ZImage => model.saturating_mul(8) / 3,
        _ => model.saturating_mul(4),
    }
}

/// Latents and prompt of one sample, and the tables of rotary embeddings.
fn inputs(part: &PipelinePart, family: ModuleFamily, widths: &Widths) -> Bytes {
    let patch = part.number("patch_size").unwrap_or(1);
    let channels = part.number("in_channels").unwrap_or(64);
    let context = [
        "joint_attention_dim",
        "text_embed_dim",
        "caption_channels",
        "cap_feat_dim",
        "text_dim",
    ]
    .iter()
    .find_map(|name| part.number(name))
    .unwrap_or(4096);

    let latents = Bytes::product([widths.image, patch, patch, channels, widths.element]);
    let prompt = Bytes::product([widths.text, context, widths.element]);
    let rotates = match family {
        ModuleFamily::StableDiffusion3 | ModuleFamily::PixArt => false,
        ModuleFamily::CogVideoX => part.flag("use_rotary_positional_embeddings"),
        _ => true,
    };
    let positions = if rotates {
        Bytes::product([widths.image.saturating_add(widths.text), 128, 8])
    } else {
        Bytes::ZERO
    };

    latents + prompt + positions
}

impl Widths {
    /// Bytes of a set, for one sample.
    fn bytes(&self, set: &LiveSet) -> Bytes {
        let (image, text) = (Bytes::new(self.image), Bytes::new(self.text));
        let joint = image + text;
        let narrow = image * set.image + text * set.text + joint * set.joint;
        let wide = image * set.image_wide + text * set.text_wide + joint * set.joint_wide;
        let floats = image * set.float_image + joint * set.float_joint;

        (narrow * self.element + floats * 4) * self.model
            + (wide * self.element + joint * (set.float_wide * 4)) * self.feed_forward
    }
}
