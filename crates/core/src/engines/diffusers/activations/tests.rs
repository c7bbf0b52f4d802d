use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::DiffusersSettings;
use super::super::pipeline::Pipeline;
use super::*;
use crate::engines::sample::{inventory, pipeline};
use crate::engines::{AskedWorkload, EngineRequest};
use crate::model::{Dtype, Model};

/// Rows of `referees/diffusers 0.42.1`.
const ROWS: &str = include_str!("referee_0.42.1.tsv");

/// A row of the referee.
struct Row<'r> {
    text: &'r str,
    model: &'r str,
    component: &'r str,
    dtype: &'r str,
    parameters: BTreeMap<String, Value>,
    live: Bytes,
    with_layouts: Bytes,
}

fn row(text: &str) -> Row<'_> {
    let fields: Vec<&str> = text.split('\t').collect();
    let number = |at: usize| fields[at].parse::<u64>().unwrap();
    let mut parameters = BTreeMap::from([
        ("height".to_owned(), json!(number(3))),
        ("width".to_owned(), json!(number(4))),
        ("num_frames".to_owned(), json!(number(5))),
        ("num_images_per_prompt".to_owned(), json!(number(6))),
        ("use_resolution_binning".to_owned(), json!(false)),
    ]);

    match fields[7] {
        "tiling" => drop(parameters.insert("enable_vae_tiling".to_owned(), json!(true))),
        "slicing" => drop(parameters.insert("enable_vae_slicing".to_owned(), json!(true))),
        "unguided" => drop(parameters.insert("guidance_scale".to_owned(), json!(1.0))),
        other => assert_eq!(other, "-"),
    }

    // The rows of Qwen-Image are of its longest prompt, those of PixArt-alpha of its own.
    let tokens = match fields[0] {
        "QwenImage" => Some(1024),
        "PixArtAlpha" => Some(120),
        _ => None,
    };
    if let Some(tokens) = tokens {
        parameters.insert("max_sequence_length".to_owned(), json!(tokens));
    }

    Row {
        text,
        model: fields[0],
        component: fields[1],
        dtype: fields[2],
        parameters,
        live: Bytes::new(number(8)),
        with_layouts: Bytes::new(number(9)),
    }
}

/// The published configuration of a denoiser.
fn denoiser(model: &str) -> (&'static str, Value) {
    let transformer = |class: &str, config: Value| {
        let mut config = config;
        config["_class_name"] = json!(class);
        ("transformer", config)
    };
    let sd3 = |heads: u64| {
        json!({"sample_size": 128, "patch_size": 2, "in_channels": 16, "attention_head_dim": 64,
            "num_attention_heads": heads, "joint_attention_dim": 4096})
    };
    let unet = |config: Value| ("unet", config);

    match model {
        "Flux" => transformer(
            "FluxTransformer2DModel",
            json!({"attention_head_dim": 128, "num_attention_heads": 24, "guidance_embeds": true,
                "patch_size": 1, "in_channels": 64, "joint_attention_dim": 4096}),
        ),
        "QwenImage" => transformer(
            "QwenImageTransformer2DModel",
            json!({"attention_head_dim": 128, "num_attention_heads": 24, "in_channels": 64,
                "joint_attention_dim": 3584, "patch_size": 2}),
        ),
        "Sd3" => transformer("SD3Transformer2DModel", sd3(24)),
        "Sd35Large" => transformer("SD3Transformer2DModel", sd3(38)),
        "Sd35Medium" => {
            let mut config = sd3(24);
            config["dual_attention_layers"] = json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            transformer("SD3Transformer2DModel", config)
        }
        "PixArtAlpha" | "PixArtSigma" => transformer(
            "PixArtTransformer2DModel",
            json!({"attention_head_dim": 72, "num_attention_heads": 16, "in_channels": 4,
                "patch_size": 2, "sample_size": 128, "caption_channels": 4096}),
        ),
        "Lumina2" => transformer(
            "Lumina2Transformer2DModel",
            json!({"hidden_size": 2304, "in_channels": 16, "patch_size": 2, "cap_feat_dim": 2304}),
        ),
        "ZImage" => transformer(
            "ZImageTransformer2DModel",
            json!({"dim": 3840, "in_channels": 16, "cap_feat_dim": 2560}),
        ),
        "Wan13" => transformer(
            "WanTransformer3DModel",
            json!({"attention_head_dim": 128, "num_attention_heads": 12, "ffn_dim": 8960,
                "in_channels": 16, "text_dim": 4096, "patch_size": [1, 2, 2]}),
        ),
        "Wan14" => transformer(
            "WanTransformer3DModel",
            json!({"attention_head_dim": 128, "num_attention_heads": 40, "ffn_dim": 13824,
                "in_channels": 16, "text_dim": 4096, "patch_size": [1, 2, 2]}),
        ),
        "Ltx" => transformer(
            "LTXVideoTransformer3DModel",
            json!({"attention_head_dim": 64, "num_attention_heads": 32, "in_channels": 128,
                "caption_channels": 4096, "patch_size": 1}),
        ),
        "Cog2" => transformer(
            "CogVideoXTransformer3DModel",
            json!({"attention_head_dim": 64, "num_attention_heads": 30, "in_channels": 16,
                "patch_size": 2, "text_embed_dim": 4096}),
        ),
        "Cog5" => transformer(
            "CogVideoXTransformer3DModel",
            json!({"attention_head_dim": 64, "num_attention_heads": 48, "in_channels": 16,
                "patch_size": 2, "text_embed_dim": 4096, "use_rotary_positional_embeddings": true}),
        ),
        "Hunyuan" => transformer(
            "HunyuanVideoTransformer3DModel",
            json!({"attention_head_dim": 128, "num_attention_heads": 24, "in_channels": 16,
                "patch_size": 2, "text_embed_dim": 4096}),
        ),
        "Sdxl" => unet(
            json!({"_class_name": "UNet2DConditionModel", "in_channels": 4,
            "addition_embed_type": "text_time", "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 2, "mid_block_type": "UNetMidBlock2DCrossAttn"}),
        ),
        "Sd15" => unet(
            json!({"_class_name": "UNet2DConditionModel", "in_channels": 4,
            "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768, "layers_per_block": 2,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D"]}),
        ),
        other => panic!("no configuration of {other}"),
    }
}

/// The published configuration of a decoder.
fn vae(model: &str) -> Value {
    let kl = |latents: u64, convolves: bool, side: u64| {
        json!({"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D",
                "UpDecoderBlock2D"], "force_upcast": true, "sample_size": side,
            "layers_per_block": 2, "latent_channels": latents, "use_post_quant_conv": convolves})
    };

    match model {
        "Sd15" => kl(4, true, 512),
        "Sdxl" => kl(4, true, 1024),
        "Wan13" | "Wan14" => json!({"_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16,
            "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}),
        "QwenImage" => json!({"_class_name": "AutoencoderKLQwenImage", "base_dim": 96, "z_dim": 16,
            "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}),
        "Ltx" => json!({"_class_name": "AutoencoderKLLTXVideo", "latent_channels": 128,
            "block_out_channels": [128, 256, 512, 512]}),
        "Cog2" => json!({"_class_name": "AutoencoderKLCogVideoX", "latent_channels": 16,
            "block_out_channels": [128, 256, 256, 512]}),
        "Hunyuan" => json!({"_class_name": "AutoencoderKLHunyuanVideo", "latent_channels": 16,
            "block_out_channels": [128, 256, 512, 512]}),
        _ => kl(16, false, 1024),
    }
}

/// A pipeline of a denoiser and a decoder, each with one tensor.
fn published(model: &str) -> Model {
    let ((name, config), vae) = (denoiser(model), vae(model));
    let class = |config: &Value| config["_class_name"].as_str().unwrap().to_owned();
    let (denoiser_class, vae_class) = (class(&config), class(&vae));

    pipeline(
        &[(name, &denoiser_class, config), ("vae", &vae_class, vae)],
        inventory(&[
            (name, "w", Dtype::BF16, &[1]),
            ("vae", "w", Dtype::BF16, &[1]),
        ]),
    )
}

/// The activations of a row's part, without its weights.
fn stage(row: &Row<'_>) -> StagePeak {
    let model = published(row.model);
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &row.parameters,
        asked: AskedWorkload {
            dtype: Some(row.dtype.to_owned()),
            ..AskedWorkload::default()
        },
        devices: &[],
    };

    let settings = DiffusersSettings::new(&request).unwrap();
    let pipeline = Pipeline::new(&model, &settings).unwrap();
    let part = pipeline
        .parts
        .iter()
        .find(|part| part.name == row.component)
        .unwrap();
    peak(part, &pipeline, &settings, settings.images)
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "print only")]
fn laws_match_live_tensors() {
    let mut wrong = Vec::new();
    for text in ROWS.lines().filter(|line| !line.starts_with('#')) {
        let row = row(text);
        let StagePeak { bytes, basis } = stage(&row);
        let percent = bytes.likely.get() as f64 / row.live.get() as f64 * 100.0 - 100.0;
        println!("{percent:+7.2} % {text}");

        let holds = bytes.low <= row.live && bytes.high >= row.live.max(row.with_layouts);
        if !holds || basis != Basis::Formula || percent.abs() > 5.0 {
            wrong.push(format!("{percent:+.2} % {bytes:?} {}", row.text));
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn encoders_match_live_tensors() {
    // (class, configuration, tokens, live bytes in bfloat16), by the same referee with
    // transformers 5.20.2.
    let cases = [
        (
            "CLIPTextModelWithProjection",
            json!({"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}),
            77,
            8_280_064,
        ),
        (
            "T5EncoderModel",
            json!({"d_model": 4096, "d_ff": 10240, "num_heads": 64}),
            512,
            96_604_160,
        ),
        (
            "Qwen2_5_VLForConditionalGeneration",
            json!({"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
                "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152_064}),
            1058,
            602_400_256,
        ),
    ];

    for (class, config, tokens, live) in cases {
        let model = pipeline(
            &[("text_encoder", class, config)],
            inventory(&[("text_encoder", "w", Dtype::BF16, &[1])]),
        );
        let parameters = BTreeMap::from([("max_sequence_length".to_owned(), json!(tokens))]);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &[],
        };

        let settings = DiffusersSettings::new(&request).unwrap();
        let pipeline = Pipeline::new(&model, &settings).unwrap();
        let bytes = peak(&pipeline.parts[0], &pipeline, &settings, 4).bytes;
        let live = Bytes::new(live);
        let near = bytes.likely >= live.scale(95, 100) && bytes.likely <= live.scale(115, 100);
        assert!(
            near && bytes.low <= live && bytes.high >= live,
            "{class}: {bytes:?}"
        );
    }
}

#[test]
fn unknown_tiles_are_bounded() {
    // As the program knows it without its configuration: the channels only.
    let vae = json!({"block_out_channels": [128, 256, 512, 512]});
    let model = pipeline(
        &[("vae", "diffusers.AutoencoderKL", vae)],
        inventory(&[("vae", "w", Dtype::F16, &[1])]),
    );
    let bytes_with = |tiling: bool| {
        let parameters = BTreeMap::from([("enable_vae_tiling".to_owned(), json!(tiling))]);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &[],
        };
        let settings = DiffusersSettings::new(&request).unwrap();
        let pipeline = Pipeline::new(&model, &settings).unwrap();
        peak(&pipeline.parts[0], &pipeline, &settings, 1)
    };

    let (whole, tiled) = (bytes_with(false), bytes_with(true));
    assert_eq!((whole.basis, tiled.basis), (Basis::Formula, Basis::Assumed));
    assert_eq!(tiled.bytes.high, whole.bytes.high);
    assert!(tiled.bytes.likely < whole.bytes.likely.scale(1, 3));
    assert!(tiled.bytes.low < tiled.bytes.likely.scale(1, 3));
}
