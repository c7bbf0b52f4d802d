//! Tests of arguments: their checks, their defaults, and the launch line.

use super::*;

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
