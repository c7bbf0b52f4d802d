//! The names of all tensors of a decoder that is published as one file.

use super::sizes::Sizes;

/// Norms of a layer, and what else sets an architecture apart from the plain decoder.
struct LayerName {
    norms: &'static [&'static str],
    /// Names of the norms of queries and keys.
    head_norms: &'static [&'static str],
    /// The feed-forward block.
    block: &'static str,
    /// Projections of the feed-forward block.
    feed_forward: &'static [&'static str],
    /// Whether queries, keys and values are one projection.
    fused: bool,
    /// Whether norms have a bias.
    norm_bias: bool,
}

const TWO: &[&str] = &["input_layernorm", "post_attention_layernorm"];
const FOUR: &[&str] = &[
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
];
const BEHIND: &[&str] = &["post_attention_layernorm", "post_feedforward_layernorm"];
const HEADS: &[&str] = &["q_norm", "k_norm"];
const GATED: &[&str] = &["gate_proj", "up_proj", "down_proj"];
const MIXED: &[&str] = &["input_linear", "output_linear", "router.layer"];

fn layer(model_type: &str) -> Option<LayerName> {
    let plain = LayerName {
        norms: TWO,
        head_norms: &[],
        block: "mlp",
        feed_forward: GATED,
        fused: false,
        norm_bias: false,
    };

    Some(match model_type {
        "llama" | "mistral" | "qwen2" | "gemma" | "granite" => plain,
        "granitemoe" => LayerName {
            block: "block_sparse_moe",
            feed_forward: MIXED,
            ..plain
        },
        "qwen3" => LayerName {
            head_norms: HEADS,
            ..plain
        },
        "gemma2" => LayerName {
            norms: FOUR,
            ..plain
        },
        "gemma3_text" => LayerName {
            norms: FOUR,
            head_norms: HEADS,
            ..plain
        },
        "olmo2" => LayerName {
            norms: BEHIND,
            head_norms: HEADS,
            ..plain
        },
        "hunyuan_v1_dense" => LayerName {
            head_norms: &["query_layernorm", "key_layernorm"],
            ..plain
        },
        "phi3" => LayerName {
            feed_forward: &["gate_up_proj", "down_proj"],
            fused: true,
            ..plain
        },
        "stablelm" => LayerName {
            norm_bias: true,
            ..plain
        },
        "starcoder2" => LayerName {
            feed_forward: &["c_fc", "c_proj"],
            norm_bias: true,
            ..plain
        },
        "cohere" | "cohere2" => LayerName {
            norms: &["input_layernorm"],
            ..plain
        },
        _ => return None,
    })
}

pub(super) fn all(
    model_type: &str,
    sizes: &Sizes,
    prefix: &str,
    head: bool,
) -> Option<Vec<String>> {
    let layer = layer(model_type)?;
    let mut names = vec![
        format!("{prefix}embed_tokens.weight"),
        format!("{prefix}norm.weight"),
    ];
    if layer.norm_bias {
        names.push(format!("{prefix}norm.bias"));
    }

    if head {
        names.push("lm_head.weight".into());
    }

    let mut module = |number: u64, module: &str, bias: bool| {
        names.push(format!("{prefix}layers.{number}.{module}.weight"));
        if bias {
            names.push(format!("{prefix}layers.{number}.{module}.bias"));
        }
    };

    let projections: &[&str] = if layer.fused {
        &["qkv_proj"]
    } else {
        &["q_proj", "k_proj", "v_proj"]
    };

    for number in 0..sizes.layers {
        for norm in layer.norms {
            module(number, norm, layer.norm_bias);
        }

        for norm in layer.head_norms {
            module(number, &format!("self_attn.{norm}"), false);
        }

        for projection in projections {
            module(number, &format!("self_attn.{projection}"), sizes.bias.0);
        }

        module(number, "self_attn.o_proj", sizes.bias.1);
        for projection in layer.feed_forward {
            module(
                number,
                &format!("{}.{projection}", layer.block),
                sizes.mlp_bias,
            );
        }
    }

    Some(names)
}
