//! Tests of videos, of arguments in the launch line, and of implausible configurations.

use serde_json::json;

use super::super::AskedWorkload;
use super::super::sample::{components, device, inventory, pipeline, prepare, sum};
use super::*;

fn model(name: &str, class: &str, config: Value) -> Model {
    pipeline(
        &[(name, class, config)],
        inventory(&[(name, "w", Dtype::F16, &[100])]),
    )
}

fn unet(blocks: u64) -> Model {
    let config = json!({"_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4,
        "block_out_channels": [320, 640], "attention_head_dim": 8, "cross_attention_dim": 768,
        "layers_per_block": blocks, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]});
    model("unet", "UNet2DConditionModel", config)
}

fn given(parameters: &[(&str, Value)]) -> BTreeMap<String, Value> {
    parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn activations(model: &Model, parameters: &[(&str, Value)]) -> Interval {
    let parameters = given(parameters);
    let asked = AskedWorkload::default();
    let prepared = prepare(&Diffusers, model, asked, (None, &parameters)).unwrap();
    let parts = components(prepared.as_ref(), &Split::single(0), 0);
    sum(&parts, ComponentName::Activations)
}

fn refusal(model: &Model, parameters: &[(&str, Value)], sequences: Option<u64>) -> String {
    let asked = AskedWorkload {
        sequences,
        ..AskedWorkload::default()
    };
    let parameters = given(parameters);
    let refused = prepare(&Diffusers, model, asked, (None, &parameters));
    refused.err().expect("a refusal").to_string()
}

fn script(model: &Model, parameters: &[(&str, Value)]) -> String {
    let parameters = given(parameters);
    let asked = AskedWorkload::default();
    let prepared = prepare(&Diffusers, model, asked, (None, &parameters)).unwrap();
    let facts = device();
    let launch = prepared.launch(&LaunchPlan {
        split: &Split::single(0),
        workload: prepared.workload(),
        devices: &[super::super::LaunchDevice {
            facts: &facts,
            available: Bytes::ZERO,
            required: Bytes::ZERO,
            free: None,
        }],
    });
    launch.args[2].clone()
}

#[test]
fn implausible_blocks_are_not_walked() {
    assert!(activations(&unet(64), &[]).high > Bytes::ZERO);

    // As many blocks as a configuration can state: the walk would take minutes.
    let assumed = activations(&unet(1 << 24), &[]);
    assert_eq!(assumed.high, assumed.likely * 3);
}

#[test]
fn unknown_videos_need_length() {
    let class = "UNetSpatioTemporalConditionModel";
    let video = model("unet", class, json!({"block_out_channels": [320, 640]}));
    let sizes = [("width", json!(1024)), ("height", json!(576))];
    assert!(refusal(&video, &sizes, None).contains("set num_frames"));

    let with_frames = |frames: u64| {
        let [width, height] = sizes.clone();
        activations(&video, &[width, height, ("num_frames", json!(frames))])
    };
    assert_eq!(with_frames(25).high, with_frames(1).high * 25);

    let script = script(&video, &[("num_frames", json!(25))]);
    assert!(
        script.contains("num_frames=25, num_videos_per_prompt=1"),
        "{script}"
    );
}

#[test]
fn images_take_no_frames() {
    let why = refusal(&unet(2), &[("num_frames", json!(16))], None);
    assert!(why.contains("makes images"), "{why}");

    let mut moving = unet(2);
    let mut adapter = moving.components[0].clone();
    adapter.name = "motion_adapter".to_owned();
    moving.components.push(adapter);
    assert!(refusal(&moving, &[], None).contains("motion modules"));
}

#[test]
fn contradictory_counts_are_rejected() {
    let model = unet(2);
    let four = ("num_images_per_prompt", json!(4));
    assert!(refusal(&model, std::slice::from_ref(&four), Some(1)).contains("asks for 1"));

    let videos = ("num_videos_per_prompt", json!(2));
    assert!(refusal(&model, &[four, videos], None).contains("asks for 4"));
}

#[test]
fn launch_line_has_counted_arguments() {
    let script = script(
        &unet(2),
        &[
            ("guidance_scale", json!(1.0)),
            ("max_sequence_length", json!(64)),
        ],
    );
    assert!(
        script.contains("guidance_scale=1, max_sequence_length=64"),
        "{script}"
    );

    let why = refusal(&unet(2), &[("true_cfg_scale", json!(1.0))], None);
    assert!(why.contains("guidance_scale instead"), "{why}");
}
