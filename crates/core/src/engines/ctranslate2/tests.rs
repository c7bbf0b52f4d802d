//! Figures of Whisper models.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::bytes::Bytes;
use crate::engines::component::device_sum;
use crate::engines::sample::{components, device, sum, tokens};
use crate::engines::{
    AskedWorkload, Component, ComponentName, DeviceSupport, Interval, LaunchPlan, Split, Workload,
    by_name, prepare,
};
use crate::model::ctranslate2::sample::WhisperSizes;
use crate::model::ctranslate2::{Reading, Walk, Walked, Window, whisper};
use crate::model::{Dtype, Inventory};

/// Reads the model of `sizes`.
fn walked(sizes: WhisperSizes) -> Walked {
    let file = sizes.file();
    let mut walk = Walk::new(file.length, Reading::Predicted);
    while let Some(Window { start, bytes }) = walk.window() {
        walk.feed(&file.window(start, bytes)).unwrap();
    }

    walk.finish().unwrap()
}

/// The tensors of the model of `sizes`.
pub(super) fn inventory(sizes: WhisperSizes) -> Inventory {
    walked(sizes).inventory
}

pub(super) fn model(sizes: WhisperSizes) -> Model {
    let Walked {
        model, inventory, ..
    } = walked(sizes);
    let architecture = whisper::architecture(&model, &inventory);

    Model::bare("owner/name", Format::Ctranslate2, architecture, inventory)
}

fn parameters(given: &[(&str, Value)]) -> BTreeMap<String, Value> {
    given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// The engine prepared for `sizes` with `given` parameters, through the rules for all engines.
fn prepared<R>(
    (sizes, device): (WhisperSizes, DeviceFacts),
    given: &[(&str, Value)],
    asked: AskedWorkload,
    act: impl FnOnce(&dyn PreparedEngine, &DeviceFacts) -> R,
) -> Result<R, EngineError> {
    let (model, parameters) = (model(sizes), parameters(given));
    let devices = [device];
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked,
        devices: &devices,
    };
    let prepared = prepare(&Ctranslate2, &request)?;

    Ok(act(&*prepared, &devices[0]))
}

/// All components on an H100.
fn figures(sizes: WhisperSizes, given: &[(&str, Value)]) -> Result<Vec<Component>, EngineError> {
    let asked = AskedWorkload::default();
    prepared((sizes, device()), given, asked, |prepared, _| {
        components(prepared, &Split::single(1), 0)
    })
}

fn likely(sizes: WhisperSizes, given: &[(&str, Value)], name: ComponentName) -> u64 {
    sum(&figures(sizes, given).unwrap(), name).likely.get()
}

fn cache(sizes: WhisperSizes, given: &[(&str, Value)]) -> Interval {
    sum(&figures(sizes, given).unwrap(), ComponentName::KvCache)
}

#[test]
fn published_models_have_worked_figures() {
    let int8 = |sizes: WhisperSizes| sizes.stored_as(Dtype::I8, Dtype::F16);
    let batch = |size: u64| vec![("batch_size", json!(size))];

    // Parameters of the published checkpoints, with the key biases of 0 that fused projections have
    // (encoder layers + 2 x decoder layers, of the width each), and 51872 padded rows of the output
    // layer.
    // Caches: layers x 2 x 1280 x 2 bytes for each of 448 tokens x 5 candidates (227 x 5 beams x 16
    // chunks in a batch) and 1500 positions x 5 candidates (x 16 chunks, once for all beams).
    let padded = 51_872 * (1280 * 2 + 2);
    let row = |layers: u64| layers * 2 * 1280 * 2;
    let cases = [
        (
            WhisperSizes::LARGE_V3,
            Vec::new(),
            (1_543_490_560 + 96 * 1280) * 2 + padded,
            row(32) * (448 * 5 + 1500 * 5),
        ),
        (
            int8(WhisperSizes::LARGE_V3),
            Vec::new(),
            1_556_643_944 + 51_872 * (1280 + 4 + 2),
            row(32) * (448 * 5 + 1500 * 5),
        ),
        (
            WhisperSizes::TURBO,
            batch(16),
            (808_878_080 + 40 * 1280) * 2 + padded,
            row(4) * 16 * (227 * 5 + 1500),
        ),
        (
            WhisperSizes::DISTIL_LARGE_V3,
            Vec::new(),
            (756_405_760 + 36 * 1280) * 2 + padded,
            row(2) * (448 * 5 + 1500 * 5),
        ),
        (
            WhisperSizes::TINY,
            vec![("temperature", json!(0))],
            (37_760_640 + 12 * 384) * 2 + 51_872 * (384 * 2 + 2),
            4 * 2 * 384 * 2 * (448 * 5 + 1500),
        ),
    ];

    for (sizes, given, weights, cache) in cases {
        assert_eq!(
            (
                likely(sizes, &given, ComponentName::Weights),
                likely(sizes, &given, ComponentName::KvCache)
            ),
            (weights, cache),
            "{sizes:?}"
        );
    }
}

/// Peaks that faster-whisper 1.2.1's README measured with Whisper large-v2 on an RTX 3070 Ti.
#[test]
fn published_peaks_are_inside() {
    let card = DeviceFacts {
        compute_capability: Some((8, 6)),
        multiprocessors: Some(48),
        ..device()
    };
    let rows = [
        ("float16", None, 4525),
        ("float16", Some(8), 6090),
        ("int8", None, 2926),
        ("int8", Some(8), 4500),
    ];

    for (compute, batch, mib) in rows {
        let mut given = vec![("compute_type", json!(compute))];
        given.extend(batch.map(|batch| ("batch_size", json!(batch))));
        let case = (WhisperSizes::LARGE_V2, card.clone());
        let total = prepared(case, &given, AskedWorkload::default(), |prepared, card| {
            let split = Split::single(1);
            let mut parts = prepared.fixed(&split, 0, card).unwrap();
            let workload = prepared.workload();
            parts.extend(prepared.variable(&split, 0, card, workload).unwrap());
            device_sum(&parts)
        })
        .unwrap();

        let measured = Bytes::mib(mib);
        assert!(
            total.low <= measured && measured <= total.high,
            "{compute} {batch:?}: {measured:?} outside {total:?}"
        );
    }
}

#[test]
fn only_sampling_copies_the_audio_cache() {
    let sizes = WhisperSizes::LARGE_V3;
    let one = 32 * 2 * 1280 * 2 * 1500;
    let text = |tokens: u64| 32 * 2 * 1280 * 2 * tokens;

    let greedy = cache(
        sizes,
        &[("temperature", json!([0.0])), ("beam_size", json!(1))],
    );
    assert_eq!(greedy.high.get(), one + text(448));
    let beams = cache(sizes, &[("temperature", json!(0)), ("beam_size", json!(7))]);
    assert_eq!(beams.high.get(), one + text(448 * 7));
    let sampled = cache(sizes, &[("best_of", json!(3)), ("beam_size", json!(1))]);
    assert_eq!(
        (sampled.low.get(), sampled.high.get()),
        (one, 3 * one + text(448 * 3))
    );
    let batched = cache(sizes, &[("batch_size", json!(4)), ("best_of", json!(9))]);
    assert_eq!(batched.high.get(), 4 * one + text(227 * 5 * 4));
}

#[test]
fn prompts_fill_the_context() {
    let context = |given: &[(&str, Value)], asked: AskedWorkload| {
        prepared(
            (WhisperSizes::TINY, device()),
            given,
            asked,
            |prepared, _| prepared.workload().context,
        )
        .unwrap()
    };
    let plain = AskedWorkload::default;

    assert_eq!(context(&[], plain()), 448);
    assert_eq!(
        context(&[("condition_on_previous_text", json!(false))], plain()),
        227
    );
    assert_eq!(context(&[("batch_size", json!(2))], plain()), 227);
    assert_eq!(
        context(
            &[("batch_size", json!(2)), ("hotwords", json!("a name"))],
            plain()
        ),
        448
    );
    assert_eq!(
        context(
            &[("batch_size", json!(2)), ("max_new_tokens", json!(100))],
            plain()
        ),
        104
    );
    let names = [("hotwords", json!("a name")), ("max_new_tokens", json!(10))];
    assert_eq!(context(&names, plain()), 448, "after the previous text");
    assert_eq!(
        context(&[], tokens(8192)),
        448,
        "there are no more positions"
    );

    let batch = ("batch_size", json!(2));
    assert_eq!(context(&[batch], tokens(448)), 448);
}

#[test]
fn short_contexts_are_refused() {
    let context = |given: &[(&str, Value)], asked| {
        prepared(
            (WhisperSizes::TINY, device()),
            given,
            tokens(asked),
            |prepared, _| prepared.workload().context,
        )
        .map_err(|error| error.to_string())
    };
    let batch = ("batch_size", json!(2));

    for (given, asked) in [(vec![], 10), (vec![], 447), (vec![batch.clone()], 226)] {
        let error = context(&given, asked).expect_err("a context that no argument sets");
        assert!(error.contains("cannot limit") && error.contains("max_new_tokens"));
    }
    assert_eq!(context(std::slice::from_ref(&batch), 227), Ok(227));
    let short = [batch, ("max_new_tokens", json!(10))];
    assert_eq!(context(&short, 14), Ok(14));
}

#[test]
fn batches_hold_requested_sequences() {
    let ask = |sequences, batch: u64| {
        let asked = AskedWorkload {
            sequences: Some(sequences),
            ..AskedWorkload::default()
        };
        let given = [("batch_size", json!(batch))];
        let case = (WhisperSizes::TINY, device());
        prepared(case, &given, asked, |prepared, device| {
            let split = Split::single(1);
            let workload = prepared.workload();
            let said = prepared.assumptions().concat().contains("chunks at once");
            let smaller = Workload {
                sequences: 1,
                ..workload
            };
            let need = |workload| prepared.variable_sum(&split, 0, device, workload);
            assert_eq!(need(smaller), need(workload), "the line decodes the batch");
            (workload.sequences, said)
        })
        .map_err(|error| error.to_string())
    };

    assert_eq!(ask(8, 8), Ok((8, false)));
    assert_eq!(ask(3, 8), Ok((8, true)));
    let error = ask(9, 8).unwrap_err();
    assert!(
        error.contains("batch_size") && error.contains('9'),
        "{error}"
    );
}

/// For each counted parameter: the question without it, its value, and its text in the line.
#[test]
fn counted_arguments_are_launched() {
    let batch = ("batch_size", json!(2));
    let greedy = ("temperature", json!(0));
    let fresh = ("condition_on_previous_text", json!(false));
    let rows = [
        (None, "compute_type", json!("int8"), "compute_type=\"int8\""),
        (None, "num_workers", json!(2), "num_workers=2"),
        (None, "batch_size", json!(4), "batch_size=4"),
        (Some(greedy), "beam_size", json!(2), "beam_size=2"),
        (None, "best_of", json!(9), "best_of=9"),
        (None, "temperature", json!(0), "temperature=0"),
        (
            Some(batch.clone()),
            "max_new_tokens",
            json!(10),
            "max_new_tokens=10",
        ),
        (
            None,
            "condition_on_previous_text",
            json!(false),
            "condition_on_previous_text=False",
        ),
        (
            Some(fresh),
            "initial_prompt",
            json!("a \"b\""),
            "initial_prompt=\"a \\\"b\\\"\"",
        ),
        (
            Some(batch.clone()),
            "hotwords",
            json!("name"),
            "hotwords=\"name\"",
        ),
        (Some(batch), "prefix", json!("so"), "prefix=\"so\""),
    ];
    let ask = |given: &[(&str, Value)]| {
        let case = (WhisperSizes::TINY, device());
        prepared(case, given, AskedWorkload::default(), |prepared, device| {
            let split = Split::single(1);
            let plan = LaunchPlan {
                split: &split,
                workload: prepared.workload(),
                devices: &[],
            };
            let workload = prepared.workload();
            let mut need = prepared.fixed(&split, 0, device).unwrap();
            need.extend(prepared.variable(&split, 0, device, workload).unwrap());
            (device_sum(&need), prepared.launch(&plan).args.join(" "))
        })
        .unwrap()
    };

    let mut names: Vec<&str> = rows.iter().map(|(_, name, ..)| *name).collect();
    let mut counted = settings::PARAMETERS.counted_names().unwrap().to_vec();
    names.sort_unstable();
    counted.sort_unstable();
    assert_eq!(names, counted);

    for (base, name, value, text) in rows {
        let base = Vec::from_iter(base);
        let (before, _) = ask(&base);
        let given = [base, vec![(name, value)]].concat();
        let (after, line) = ask(&given);
        assert_ne!(before.high, after.high, "{name} changes the figures");
        assert!(line.contains(text), "{name}: {line}");
    }
}

#[test]
fn workers_share_only_weights() {
    let one = figures(WhisperSizes::TURBO, &[]).unwrap();
    let four = figures(WhisperSizes::TURBO, &[("inter_threads", json!(4))]).unwrap();
    let cache = |parts: &[Component]| sum(parts, ComponentName::KvCache).high;
    assert_eq!(cache(&four), cache(&one) * 4);

    let weights = |parts: &[Component]| sum(parts, ComponentName::Weights).high;
    let padded = Bytes::new(51_872 * (1280 * 2 + 2));
    assert_eq!(weights(&four), weights(&one) + padded * 3);
    let context = |parts: &[Component]| sum(parts, ComponentName::Context);
    assert_eq!(context(&four), context(&one));
}

#[test]
fn wrong_parameters_are_named() {
    let refused = |name: &str, value: Value| {
        figures(WhisperSizes::TINY, &[(name, value)])
            .expect_err(name)
            .to_string()
    };

    assert!(refused("beam_sise", json!(5)).contains("beam_size"));
    assert!(refused("device_index", json!([0, 1])).contains("each device"));
    assert!(refused("flash_attention", json!(true)).contains("built without it"));
    assert!(refused("word_timestamps", json!(true)).contains("aligns words"));
    assert!(refused("compute_type", json!("int4")).contains("int8_float16"));
    assert!(refused("max_length", json!(100)).contains("max_new_tokens"));
    assert!(refused("prefix", json!(7)).contains("word"));
    assert!(refused("initial_prompt", json!(true)).contains("list of tokens"));
    for wrong in [
        json!("warm"),
        json!("nan"),
        json!("[0, inf]"),
        json!([]),
        json!(-1),
    ] {
        assert!(refused("temperature", wrong).contains("list of numbers"));
    }

    for (name, value) in [
        ("device_index", json!(0)),
        ("flash_attention", json!(false)),
        ("vad_filter", json!(true)),
        ("chunk_length", json!(20)),
    ] {
        assert!(
            figures(WhisperSizes::TINY, &[(name, value)]).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn dtype_is_the_compute_type() {
    let asked = |dtype: &str, cache: Option<&str>| AskedWorkload {
        dtype: Some(dtype.to_owned()),
        kv_cache_dtype: cache.map(ToOwned::to_owned),
        ..AskedWorkload::default()
    };
    let name = |asked| {
        prepared((WhisperSizes::TINY, device()), &[], asked, |prepared, _| {
            (
                prepared.parameters()["compute_type"].clone(),
                prepared.kv_cache_dtype(),
            )
        })
    };

    assert_eq!(
        name(asked("auto", None)).unwrap(),
        (json!("float16"), "float16".to_owned())
    );
    assert_eq!(
        name(asked("int8_bfloat16", Some("bfloat16"))).unwrap(),
        (json!("int8_bfloat16"), "bfloat16".to_owned())
    );
    assert!(name(asked("float32", Some("float16"))).is_err());
    assert!(name(asked("q4_0", None)).is_err());
}

#[test]
fn old_devices_convert_or_refuse() {
    let fitness = |capability, given: &[(&str, Value)]| {
        let device = DeviceFacts {
            compute_capability: Some(capability),
            ..device()
        };
        let case = (WhisperSizes::TINY, device);
        prepared(case, given, AskedWorkload::default(), |prepared, device| {
            prepared.device_fitness(device)
        })
        .unwrap()
    };

    assert_eq!(fitness((8, 6), &[]), DeviceSupport::Able);
    assert!(matches!(
        fitness((6, 1), &[]),
        DeviceSupport::Degraded(why) if why.contains("float16 to float32")
    ));
    let int8 = [("compute_type", json!("int8_float16"))];
    assert_eq!(fitness((7, 5), &int8), DeviceSupport::Able);
    assert!(matches!(fitness((6, 1), &int8), DeviceSupport::Unable(_)));
}

#[test]
fn launch_names_the_folder() {
    let launched = |repo: &str, parameters: &BTreeMap<String, Value>| {
        let mut model = model(WhisperSizes::TINY);
        model.identity.repo = repo.to_owned();
        let devices = [device()];
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters,
            asked: AskedWorkload::default(),
            devices: &devices,
        };
        let prepared = Ctranslate2.prepare(&request).unwrap();
        let plan = LaunchPlan {
            split: &Split::single(4),
            workload: prepared.workload(),
            devices: &[],
        };
        prepared.launch(&plan).args.join(" ")
    };

    let line = launched("/models/tiny/model.bin", &BTreeMap::new());
    assert!(line.contains("WhisperModel(\"/models/tiny\","), "{line}");
    assert!(line.contains("best_of=5, beam_size=5)"), "{line}");

    let batch = parameters(&[("batch_size", json!(4)), ("compute_type", json!("int8"))]);
    let line = launched("owner/name", &batch);
    assert!(
        line.contains("\"owner/name\"") && line.contains("batch_size=4"),
        "{line}"
    );
    assert!(line.contains("compute_type=\"int8\""), "{line}");
}

#[test]
fn one_device_holds_a_model() {
    prepared(
        (WhisperSizes::TINY, device()),
        &[],
        AskedWorkload::default(),
        |prepared, _| {
            assert!(prepared.splits(1).is_ok());
            assert!(prepared.splits(2).is_err());
            assert!(prepared.check(&Split::tensor(2, 4)).is_err());
        },
    )
    .unwrap();
}

#[test]
fn other_engines_name_this_one() {
    let model = model(WhisperSizes::TINY);
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &BTreeMap::new(),
        asked: AskedWorkload::default(),
        devices: &[device()],
    };

    for engine in ["vllm", "transformers"] {
        let error = by_name(engine).unwrap().prepare(&request).err().unwrap();
        assert!(
            error.to_string().contains("use the ctranslate2 engine"),
            "{error}"
        );
    }
    for engine in ["sglang", "llama.cpp", "ollama", "diffusers"] {
        assert!(
            by_name(engine).unwrap().prepare(&request).is_err(),
            "{engine}"
        );
    }

    let other = Model {
        format: Format::Safetensors,
        ..model.clone()
    };
    let request = EngineRequest {
        model: &other,
        ..request.clone()
    };
    let error = Ctranslate2.prepare(&request).err().unwrap();
    assert!(
        error.to_string().contains("ct2-transformers-converter"),
        "{error}"
    );
}

/// Cards before Volta compute 16-bit models in 32 bits, and a declared size may be such a card.
#[test]
fn unknown_cards_may_widen_floats() {
    let unknown = DeviceFacts {
        compute_capability: None,
        ..device()
    };
    let total = |device: &DeviceFacts, given: &[(&str, Value)]| {
        let case = (WhisperSizes::TINY, device.clone());
        let parts = prepared(case, given, AskedWorkload::default(), |prepared, card| {
            let mut parts = prepared.fixed(&Split::single(1), 0, card).unwrap();
            let workload = prepared.workload();
            let rest = prepared.variable(&Split::single(1), 0, card, workload);
            parts.extend(rest.unwrap());
            parts
        });
        let parts = parts.unwrap();
        [ComponentName::Weights, ComponentName::KvCache].map(|name| sum(&parts, name))
    };

    let [weights, cache] = total(&unknown, &[]);
    let old = DeviceFacts {
        compute_capability: Some((6, 1)),
        ..device()
    };
    let [old_weights, old_cache] = total(&old, &[]);
    assert!(weights.likely < old_weights.likely && old_weights.high <= weights.high);
    assert!(cache.likely < old_cache.likely && old_cache.high <= cache.high);

    // A named type is refused there, so no fallback is counted.
    let [named, _] = total(&unknown, &[("compute_type", json!("float16"))]);
    assert!(named.high < weights.high, "{named:?} {weights:?}");
}
