//! Tests of figures: published models, caches by phase, cards, splits.

use super::*;

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
