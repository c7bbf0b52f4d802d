use serde_json::json;

use super::super::AskedWorkload;
use super::super::sample::{components, device, inventory, pipeline, prepare, sum};
use super::*;
use crate::model::Inventory;

const NONE: &BTreeMap<String, Value> = &BTreeMap::new();

/// The sizes of FLUX.1-dev's components, each as one tensor.
fn flux() -> Model {
    let tensors: Inventory = inventory(&[
        ("transformer", "a.weight", Dtype::BF16, &[11_901_408_320]),
        ("text_encoder_2", "a.weight", Dtype::BF16, &[4_762_310_656]),
        ("text_encoder", "a.weight", Dtype::BF16, &[123_060_480]),
        ("vae", "a.weight", Dtype::BF16, &[83_819_683]),
    ]);

    let transformer = json!({"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128,
        "num_attention_heads": 24, "guidance_embeds": true, "patch_size": 1, "in_channels": 64,
        "joint_attention_dim": 4096});
    let vae = json!({"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
        "force_upcast": true, "latent_channels": 16, "layers_per_block": 2, "sample_size": 1024,
        "use_post_quant_conv": false});
    let t5 = json!({"d_model": 4096, "d_ff": 10240, "num_heads": 64});
    let clip = json!({"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12});

    pipeline(
        &[
            ("transformer", "FluxTransformer2DModel", transformer),
            ("text_encoder_2", "T5EncoderModel", t5),
            ("text_encoder", "CLIPTextModel", clip),
            ("vae", "AutoencoderKL", vae),
        ],
        tensors,
    )
}

fn need(model: &Model, offload: Offload, parameters: &BTreeMap<String, Value>) -> (u64, Interval) {
    let prepared = prepare(
        &Diffusers,
        model,
        AskedWorkload::default(),
        (None, parameters),
    )
    .unwrap();

    let split = Split {
        offload,
        ..Split::single(0)
    };

    prepared.check(&split).unwrap();
    let parts = components(prepared.as_ref(), &split, 0);

    (
        sum(&parts, ComponentName::Weights).likely.get(),
        sum(&parts, ComponentName::Activations),
    )
}

#[test]
fn flux_peaks_match_shapes() {
    let model = flux();
    let (weights, peak) = need(&model, Offload::None, NONE);
    assert_eq!(weights, 33_741_198_278);

    // The decoder's last block at 1024 x 1024, 3 x 256 x 1024 x 1024 x 2 bytes, and the latents.
    assert_eq!(peak.likely, Bytes::new(1_611_137_024));
    let (weights, peak) = need(&model, Offload::Components, NONE);
    assert_eq!(weights, 23_802_816_640);

    // 4608 tokens of 3072 channels, 11 widths of 2 and 3 of 4 bytes; latents, prompt, positions.
    let inputs = 4096 * 64 * 2 + 512 * 4096 * 2 + 4608 * 128 * 8;
    assert_eq!(peak.likely, Bytes::new(4608 * 3072 * 34 + inputs));
    let host = prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).unwrap();

    let split = Split {
        offload: Offload::Components,
        ..Split::single(0)
    };

    assert_eq!(
        sum(
            &host.host(&split, host.workload()).unwrap(),
            ComponentName::Host
        )
        .likely
        .get(),
        33_741_198_278
    );
}

#[test]
fn size_batch_and_dtype_change_need() {
    let model = flux();
    let peak_with = |name: &str, value: Value| {
        need(
            &model,
            Offload::None,
            &BTreeMap::from([(name.to_owned(), value)]),
        )
        .1
        .likely
    };

    let base = need(&model, Offload::None, NONE).1.likely;
    assert_eq!(peak_with("num_images_per_prompt", json!(3)), base * 3);
    assert_eq!(peak_with("width", json!(2048)), base * 2);

    // A tile has the side of the configuration's `sample_size`, which here is the whole image's.
    assert_eq!(peak_with("enable_vae_tiling", json!(true)), base);

    let asked = AskedWorkload {
        dtype: Some("float32".to_owned()),
        ..AskedWorkload::default()
    };

    let prepared = prepare(&Diffusers, &model, asked, (None, NONE)).unwrap();
    let parts = components(prepared.as_ref(), &Split::single(0), 0);
    assert_eq!(
        sum(&parts, ComponentName::Weights).likely.get(),
        2 * 33_741_198_278
    );
}

#[test]
fn guided_unet_runs_twice() {
    let unet = json!({"_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D"]});
    let model = pipeline(
        &[("unet", "UNet2DConditionModel", unet)],
        inventory(&[("unet", "w", Dtype::F16, &[100])]),
    );
    let prepared = prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).unwrap();
    assert_eq!(
        (
            prepared.parameters()["width"].clone(),
            prepared.parameters()["height"].clone()
        ),
        (json!(512), json!(512))
    );

    let guided = need(&model, Offload::None, NONE).1.likely;
    let alone = need(
        &model,
        Offload::None,
        &BTreeMap::from([("guidance_scale".to_owned(), json!(1.0))]),
    )
    .1
    .likely;
    assert_eq!(guided, alone * 2);
}

#[test]
fn invalid_requests_are_rejected() {
    let model = Model {
        format: Format::Safetensors,
        ..flux()
    };

    assert!(prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).is_err());
    let given = BTreeMap::from([("widht".to_owned(), json!(512))]);
    let model = flux();
    let error = prepare(&Diffusers, &model, AskedWorkload::default(), (None, &given))
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "diffusers has no parameter 'widht'; did you mean 'width'?"
    );
    let given = BTreeMap::from([("height".to_owned(), json!(1001))]);
    assert!(prepare(&Diffusers, &model, AskedWorkload::default(), (None, &given)).is_err());
}

#[test]
fn launch_line_enables_offload() {
    let model = flux();
    let prepared = prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).unwrap();
    let facts = device();
    let launch_device = super::super::LaunchDevice {
        facts: &facts,
        available: Bytes::ZERO,
        required: Bytes::ZERO,
        free: None,
    };

    let split = Split {
        offload: Offload::Components,
        ..Split::single(0)
    };

    let launch = prepared.launch(&LaunchPlan {
        split: &split,
        workload: prepared.workload(),
        devices: &[launch_device],
    });
    let script = &launch.args[2];
    assert!(
        script.contains("torch_dtype=torch.bfloat16")
            && script.contains("pipe.enable_model_cpu_offload()"),
        "{script}"
    );

    assert_eq!(launch.env["CUDA_VISIBLE_DEVICES"], "GPU-1");
}

#[test]
fn calls_default_to_pipelines_sizes() {
    // (class, its configuration, width, height, frames), by the pipelines of diffusers 0.42.1.
    let cases = [
        ("FluxTransformer2DModel", json!({}), 1024, 1024, 1),
        ("QwenImageTransformer2DModel", json!({}), 1024, 1024, 1),
        (
            "SD3Transformer2DModel",
            json!({"sample_size": 128}),
            1024,
            1024,
            1,
        ),
        (
            "PixArtTransformer2DModel",
            json!({"sample_size": 64}),
            512,
            512,
            1,
        ),
        ("Lumina2Transformer2DModel", json!({}), 1024, 1024, 1),
        ("ZImageTransformer2DModel", json!({}), 1024, 1024, 1),
        ("WanTransformer3DModel", json!({}), 832, 480, 81),
        ("LTXVideoTransformer3DModel", json!({}), 704, 512, 161),
        (
            "CogVideoXTransformer3DModel",
            json!({"sample_width": 90, "sample_height": 60, "sample_frames": 49}),
            720,
            480,
            49,
        ),
        ("HunyuanVideoTransformer3DModel", json!({}), 1280, 720, 129),
    ];

    for (class, mut config, width, height, frames) in cases {
        config["_class_name"] = json!(class);
        let model = pipeline(
            &[("transformer", class, config)],
            inventory(&[("transformer", "w", Dtype::BF16, &[100])]),
        );
        let prepared = prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).unwrap();
        let parameters = prepared.parameters();
        let sizes =
            ["width", "height", "num_frames"].map(|name| parameters[name].as_u64().unwrap());
        assert_eq!(sizes, [width, height, frames], "{class}");
    }
}

#[test]
fn unknown_classes_are_assumed() {
    let config = json!({"_class_name": "SanaTransformer2DModel", "num_attention_heads": 70,
        "attention_head_dim": 32});
    let model = pipeline(
        &[("transformer", "SanaTransformer2DModel", config)],
        inventory(&[("transformer", "w", Dtype::BF16, &[100])]),
    );
    let prepared = prepare(&Diffusers, &model, AskedWorkload::default(), (None, NONE)).unwrap();
    let parts = components(prepared.as_ref(), &Split::single(0), 0);
    let part = parts
        .iter()
        .find(|part| part.name == ComponentName::Activations)
        .unwrap();

    assert_eq!(part.basis, Basis::Assumed);
    assert_eq!(part.bytes.high, part.bytes.likely * 3);
    let named = "no formula covers the activations of SanaTransformer2DModel";
    assert!(
        prepared
            .assumptions()
            .iter()
            .any(|sentence| sentence.starts_with(named))
    );
}
