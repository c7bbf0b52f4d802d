//! Names of all tensors of a decoder that is published as one file.

use super::sizes::Sizes;

/// How the names of an architecture's layers differ from the plain decoder.
struct LayerNames {
    /// Names of the norms of a layer.
    norms: &'static [&'static str],
    /// Names of the norms of queries and keys.
    head_norms: &'static [&'static str],
    /// Name of the feed-forward block.
    block: &'static str,
    /// Names of the feed-forward projections.
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
const POST_NORMS: &[&str] = &["post_attention_layernorm", "post_feedforward_layernorm"];
const HEADS: &[&str] = &["q_norm", "k_norm"];
const GATED: &[&str] = &["gate_proj", "up_proj", "down_proj"];
const MIXED: &[&str] = &["input_linear", "output_linear", "router.layer"];

fn layer(model_type: &str) -> Option<LayerNames> {
    let plain = LayerNames {
        norms: TWO,
        head_norms: &[],
        block: "mlp",
        feed_forward: GATED,
        fused: false,
        norm_bias: false,
    };

    Some(match model_type {
        "llama" | "mistral" | "qwen2" | "gemma" | "granite" => plain,
        "granitemoe" => LayerNames {
            block: "block_sparse_moe",
            feed_forward: MIXED,
            ..plain
        },
        "qwen3" => LayerNames {
            head_norms: HEADS,
            ..plain
        },
        "gemma2" => LayerNames {
            norms: FOUR,
            ..plain
        },
        "gemma3_text" => LayerNames {
            norms: FOUR,
            head_norms: HEADS,
            ..plain
        },
        "olmo2" => LayerNames {
            norms: POST_NORMS,
            head_norms: HEADS,
            ..plain
        },
        "hunyuan_v1_dense" => LayerNames {
            head_norms: &["query_layernorm", "key_layernorm"],
            ..plain
        },
        "phi3" => LayerNames {
            feed_forward: &["gate_up_proj", "down_proj"],
            fused: true,
            ..plain
        },
        "stablelm" => LayerNames {
            norm_bias: true,
            ..plain
        },
        "starcoder2" => LayerNames {
            feed_forward: &["c_fc", "c_proj"],
            norm_bias: true,
            ..plain
        },
        "cohere" | "cohere2" => LayerNames {
            norms: &["input_layernorm"],
            ..plain
        },
        _ => return None,
    })
}

/// Returns the names of all tensors; `None` for architectures that always have an index.
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

    let mut add_module = |number: u64, module: &str, bias: bool| {
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
            add_module(number, norm, layer.norm_bias);
        }

        for norm in layer.head_norms {
            add_module(number, &format!("self_attn.{norm}"), false);
        }

        for projection in projections {
            add_module(number, &format!("self_attn.{projection}"), sizes.qkv_bias);
        }

        add_module(number, "self_attn.o_proj", sizes.output_bias);
        for projection in layer.feed_forward {
            add_module(
                number,
                &format!("{}.{projection}", layer.block),
                sizes.mlp_bias,
            );
        }
    }

    Some(names)
}
