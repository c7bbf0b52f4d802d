//! Lists of the tensors of HuBERT, which has convolutions over the sound, then an encoder.
//!
//! Source: transformers `models/hubert/modeling_hubert.py`.

use serde_json::Value;

use super::super::sizes::{layers_or, size_or, sizes_or};
use super::{TensorList, Tensors};

/// Lists the tensors of a model without a task's head. Unstated sizes are those of `HubertConfig`.
pub(super) fn hubert(config: &Value) -> Option<Vec<TensorList>> {
    let (hidden, width) = (
        size_or(config, "hidden_size", 768)?,
        size_or(config, "intermediate_size", 3072)?,
    );
    let mut body = Tensors::default();
    let features = convolutions(config, &mut body)?;

    if flag_or(config, "feat_proj_layer_norm", true)? {
        body.norm("feature_projection.layer_norm", features);
    }

    body.linear("feature_projection.projection", hidden, features);

    for layer in 0..layers_or(config, "num_hidden_layers", 12)? {
        let layer = format!("encoder.layers.{layer}");
        for projection in ["k_proj", "v_proj", "q_proj", "out_proj"] {
            body.linear(&format!("{layer}.attention.{projection}"), hidden, hidden);
        }

        body.norm(&format!("{layer}.layer_norm"), hidden);
        body.linear(
            &format!("{layer}.feed_forward.intermediate_dense"),
            width,
            hidden,
        );

        body.linear(&format!("{layer}.feed_forward.output_dense"), hidden, width);
        body.norm(&format!("{layer}.final_layer_norm"), hidden);
    }

    body.norm("encoder.layer_norm", hidden);

    // The names of the weight norm: before torch 2.0, and since.
    let mut lists = Vec::new();
    for names in [
        ["weight_g", "weight_v"],
        [
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
        ],
    ] {
        for has_mask in [true, false] {
            let mut tensors = body.clone();
            positions(config, hidden, names, &mut tensors)?;
            if has_mask {
                tensors.add("masked_spec_embed".to_owned(), &[hidden]);
            }
            lists.push(tensors.0);
        }
    }

    Some(lists)
}

/// Adds the convolutions and returns the width of the last one.
fn convolutions(config: &Value, tensors: &mut Tensors) -> Option<u64> {
    let widths = sizes_or(config, "conv_dim", &[512; 7])?;
    let kernels = sizes_or(config, "conv_kernel", &[10, 3, 3, 3, 3, 2, 2])?;
    let has_bias = flag_or(config, "conv_bias", false)?;

    let norm_everywhere = match config.get("feat_extract_norm").map(Value::as_str) {
        None | Some(Some("group")) => false,
        Some(Some("layer")) => true,
        Some(_) => return None,
    };

    if widths.len() != kernels.len() {
        return None;
    }

    let mut inputs = 1;
    for (number, (width, kernel)) in widths.into_iter().zip(kernels).enumerate() {
        let layer = format!("feature_extractor.conv_layers.{number}");
        let (convolution, shape) = (format!("{layer}.conv"), [width, inputs, kernel]);
        if has_bias {
            tensors.pair(&convolution, &shape, width);
        } else {
            tensors.weight(&convolution, &shape);
        }

        if norm_everywhere || number == 0 {
            tensors.norm(&format!("{layer}.layer_norm"), width);
        }

        inputs = width;
    }

    Some(inputs)
}

/// Adds the positional convolution, whose weight is stored as length and direction.
fn positions(
    config: &Value,
    hidden: u64,
    [length, direction]: [&str; 2],
    tensors: &mut Tensors,
) -> Option<()> {
    if flag_or(config, "conv_pos_batch_norm", false)? {
        return None;
    }

    let kernel = size_or(config, "num_conv_pos_embeddings", 128)?;
    let groups = size_or(config, "num_conv_pos_embedding_groups", 16)?;
    let convolution = "encoder.pos_conv_embed.conv";

    tensors.add(format!("{convolution}.bias"), &[hidden]);
    tensors.add(format!("{convolution}.{length}"), &[1, 1, kernel]);

    tensors.add(
        format!("{convolution}.{direction}"),
        &[hidden, hidden.checked_div(groups)?, kernel],
    );

    Some(())
}

/// Reads a flag, or `default` if it is absent. Returns `None` for an invalid value.
fn flag_or(config: &Value, key: &str, default: bool) -> Option<bool> {
    match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_bool(),
    }
}
