//! Tests of group offloading.

use serde_json::json;

use super::super::AskedWorkload;
use super::super::sample::{pipeline, prepare, sum};
use super::*;

/// A pipeline of two lists of blocks, one block of the first being the largest, and a decoder.
fn blocks(vae_class: &str) -> Model {
    let transformer = json!({"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128,
        "num_attention_heads": 24, "in_channels": 64, "joint_attention_dim": 4096});
    let mut tensors = vec![(
        "transformer".to_owned(),
        "proj_out.weight".to_owned(),
        1_000_u64,
    )];
    for block in 0..3 {
        for (list, elements) in [
            ("transformer_blocks", 300_000),
            ("single_transformer_blocks", 100_000),
        ] {
            tensors.push((
                "transformer".to_owned(),
                format!("{list}.{block}.ff.weight"),
                elements,
            ));
        }
    }
    tensors.push(("vae".to_owned(), "decoder.conv_in.weight".to_owned(), 500));

    let mut builder = crate::model::tensors::InventoryBuilder::default();
    for (component, name, elements) in &tensors {
        let stored = crate::model::Storage::Known(Dtype::BF16);
        builder.add(
            component,
            name,
            stored,
            &[*elements],
            Bytes::new(elements * 2),
        );
    }

    let vae = json!({"_class_name": vae_class, "block_out_channels": [128, 256, 512, 512]});
    pipeline(
        &[
            ("transformer", "FluxTransformer2DModel", transformer),
            ("vae", vae_class, vae),
        ],
        builder.finish(),
    )
}

fn parameters(given: &[(&str, Value)]) -> BTreeMap<String, Value> {
    let on = ("enable_group_offload".to_owned(), json!(true));
    let named = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    std::iter::once(on).chain(named).collect()
}

fn refusal(model: &Model, given: &BTreeMap<String, Value>) -> String {
    let refused = prepare(&Diffusers, model, AskedWorkload::default(), (None, given));
    refused.err().unwrap().to_string()
}

/// The transformer's weights on the device: the decoder's part has fewer.
fn group_weights(given: &[(&str, Value)]) -> [u64; 3] {
    let model = blocks("AutoencoderKL");
    let given = parameters(given);
    let settings = DiffusersSettings::new(&EngineRequest {
        model: &model,
        version: None,
        parameters: &given,
        asked: AskedWorkload::default(),
        devices: &[],
    });

    let settings = settings.unwrap();
    let pipeline = Pipeline::new(&model, &settings).unwrap();
    let phases = phases::phases(&pipeline, &settings, Offload::None, 1);
    let weights = phases[0].weights;
    [weights.low.get(), weights.likely.get(), weights.high.get()]
}

#[test]
fn groups_hold_largest_blocks() {
    let per_group = ("num_blocks_per_group", json!(1));
    let streamed = ("use_stream", json!(true));
    let leaves = ("offload_type", json!("leaf_level"));

    // 2000 bytes are outside of lists; blocks have 600,000 and 200,000 bytes.
    assert_eq!(
        group_weights(std::slice::from_ref(&per_group)),
        [202_000, 602_000, 602_000]
    );
    assert_eq!(
        group_weights(&[("num_blocks_per_group", json!(2))]),
        [202_000, 1_202_000, 1_202_000]
    );
    assert_eq!(
        group_weights(&[per_group.clone(), streamed.clone()]),
        [202_000, 1_202_000, 1_802_000]
    );
    assert_eq!(
        group_weights(std::slice::from_ref(&leaves)),
        [0, 600_000, 600_000]
    );
    assert_eq!(
        group_weights(&[leaves, streamed.clone()]),
        [0, 800_000, 1_200_000]
    );

    // Freed groups may wait for the stream, and an excluded part stays whole.
    let whole = 2_000 + 3 * 800_000;
    let recorded = ("record_stream", json!(true));
    assert_eq!(
        group_weights(&[per_group.clone(), streamed, recorded])[2],
        whole
    );
    let excluded = ("exclude_modules", json!("transformer"));
    assert_eq!(group_weights(&[per_group, excluded]), [whole; 3]);
}

#[test]
fn streams_pin_host_memory() {
    let model = blocks("AutoencoderKL");
    let host_with = |given: &[(&str, Value)]| {
        let given = parameters(given);
        let prepared =
            prepare(&Diffusers, &model, AskedWorkload::default(), (None, &given)).unwrap();
        assert!(prepared.moves_to_host());
        let host = prepared
            .host(&Split::single(0), prepared.workload())
            .unwrap();
        sum(&host, ComponentName::Host).likely.get()
    };

    let weights = 2_000 + 3 * 800_000 + 1_000;
    let per_group = ("num_blocks_per_group", json!(1));
    let streamed = ("use_stream", json!(true));
    assert_eq!(host_with(std::slice::from_ref(&per_group)), weights);

    // torch pins each tensor in a power of two: 2048, 1024, 3 times 2^20 and 3 times 2^18 bytes.
    let pinned = 2_048 + 1_024 + 3 * (1 << 20) + 3 * (1 << 18);
    assert_eq!(host_with(&[per_group.clone(), streamed.clone()]), pinned);
    let late = ("low_cpu_mem_usage", json!(true));
    assert_eq!(host_with(&[per_group, streamed, late]), weights);
}

#[test]
fn impossible_groups_are_rejected() {
    let model = blocks("AutoencoderKLQwenImage");
    let per_group = ("num_blocks_per_group", json!(1));
    let cases: [(&[(&str, Value)], &str); 4] = [
        (&[], "needs num_blocks_per_group"),
        (
            std::slice::from_ref(&per_group),
            "name it in exclude_modules",
        ),
        (
            &[per_group.clone(), ("record_stream", json!(true))],
            "it needs use_stream=true",
        ),
        (
            &[("num_block_per_group", json!(1))],
            "did you mean 'num_blocks_per_group'?",
        ),
    ];

    for (given, why) in cases {
        let message = refusal(&model, &parameters(given));
        assert!(message.contains(why), "{message}");
    }

    let alone = BTreeMap::from([("use_stream".to_owned(), json!(true))]);
    let message = refusal(&model, &alone);
    assert!(
        message.contains("it needs enable_group_offload=true"),
        "{message}"
    );

    // The decoder may stay on the device; another offload may not come on top.
    let given = parameters(&[per_group, ("exclude_modules", json!(["vae"]))]);
    let prepared = prepare(&Diffusers, &model, AskedWorkload::default(), (None, &given)).unwrap();
    let components = Split {
        offload: Offload::Components,
        ..Split::single(0)
    };
    assert!(prepared.check(&Split::single(0)).is_ok() && prepared.check(&components).is_err());
}
