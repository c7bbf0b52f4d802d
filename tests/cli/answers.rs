//! Answers on declared devices: as a person reads them, and as a program does.

use super::run::{MODEL, Outcome, program, run};

#[test]
fn the_first_command_of_the_readme_answers_without_gpu_and_network() {
    let outcome = run(&format!("fits {MODEL} --gpus 2x24GiB"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);

    assert_eq!(
        outcome.err,
        "answered in process: no daemon answers at /nonexistent/api.sock\n"
    );
}

#[test]
fn a_no_says_what_is_short_and_what_would_help() {
    let outcome = run(&format!("fits {MODEL} --gpus T4 --local"));
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);
}

/// One snapshot for every other shape of an answer.
#[test]
fn every_shape_of_an_answer_reads_well() {
    for (name, line, code) in [
        ("tight", "fits {MODEL} --gpus RTX-4090 --context 36000", 0),
        (
            "over_nvlink",
            "fits {MODEL} --gpus 8xA100-40GB --sequences 20",
            0,
        ),
        (
            "in_stages",
            "fits {MODEL} --gpus RTX-4090,RTX-5070 --context 8192 --sequences 12",
            0,
        ),
        (
            "mig",
            "fits {MODEL} --gpus H100:3g.40gb,H100:2g.20gb,H100:2g.20gb",
            0,
        ),
        (
            "shared_card",
            "fits {MODEL} --gpus H100-80GB@30GiB --frontier",
            0,
        ),
        (
            "no_room_on_a_shared_card",
            "fits {MODEL} --gpus H100-80GB@62GiB --context 8192",
            1,
        ),
        (
            "offload",
            "fits {MODEL} --gpus T4,host:64GiB --engine transformers --context 4096 --offload allow",
            0,
        ),
        (
            "host_not_known",
            "fits {MODEL} --gpus T4 --engine transformers --context 4096 --offload allow",
            1,
        ),
        ("estimate", "estimate {MODEL}", 0),
        (
            "no_legal_split",
            "fits {MODEL} --gpus 3xH100 --tensor-parallel 3",
            1,
        ),
    ] {
        let outcome = run(&format!("{} --local", line.replace("{MODEL}", MODEL)));
        assert_eq!(outcome.code, code, "{line}: {}{}", outcome.out, outcome.err);
        insta::assert_snapshot!(name, outcome.out);
    }
}

/// A cache that nobody understands is not guessed at.
#[test]
fn an_unknown_architecture_reads_as_unknown() {
    // Under a name of one length, for text is wrapped.
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("FOLDER");
    std::fs::create_dir(&folder).unwrap();
    let json = r#"{"x.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}  "#;
    let file = [
        &(json.len() as u64).to_le_bytes()[..],
        json.as_bytes(),
        &[0; 16],
    ]
    .concat();

    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"model_type": "brand_new"}"#).unwrap();
    let line = "fits ./FOLDER --gpus H100 --local";
    let outcome: Outcome = program()
        .current_dir(parent.path())
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into();

    assert_eq!(outcome.code, 3, "{}{}", outcome.out, outcome.err);
    insta::assert_snapshot!("unknown", outcome.out);
}

#[test]
fn no_line_of_an_answer_is_wider_than_a_terminal() {
    for gpus in ["T4", "24GiB", "8xH100", "H100-80GB@30GiB", "4xL4"] {
        let outcome = run(&format!("fits {MODEL} --gpus {gpus} --local"));
        // What is pasted into a shell is not broken inside a word.
        let wide =
            |line: &&str| line.chars().count() > 80 && !line.contains("CUDA_VISIBLE_DEVICES");
        assert_eq!(outcome.out.lines().find(wide), None, "{gpus}");
    }
}

#[test]
fn an_estimate_by_the_logical_minimum_is_exact() {
    let outcome = run(&format!(
        "estimate {MODEL} --engine reference --context 32768 --local --json"
    ));
    let answer = outcome.json();
    assert_eq!(outcome.code, 0);
    assert_eq!(answer["model"]["weights_bytes"], 16_381_470_720_u64);
    assert_eq!(answer["model"]["parameters"], 8_190_735_360_u64);

    let of = |name: &str| {
        let parts = answer["requirement"]["components"].as_array().unwrap();
        parts.iter().find(|part| part["name"] == name).unwrap()["likely_bytes"].clone()
    };

    assert_eq!(of("weights"), 16_381_470_720_u64);

    // 36 layers x 8 heads x (128 + 128) elements x 2 bytes x 32768 tokens.
    assert_eq!(of("kv_cache"), 147_456_u64 * 32_768);
    assert_eq!(
        answer["requirement"]["kv_cache"]["bytes_per_token"],
        147_456
    );
}

#[test]
fn what_a_placement_says_fits_when_it_is_asked_back() {
    let first = run(&format!(
        "fits {MODEL} --gpus 24GiB --context 4096 --local --json"
    ))
    .json();
    let longest = first["placement"]["max_context"].as_u64().unwrap();

    let asked = |context: u64| {
        run(&format!(
            "fits {MODEL} --gpus 24GiB --context {context} --local --json"
        ))
        .json()["verdict"]
            .clone()
    };

    assert_eq!(asked(longest), "fits");
    assert_ne!(asked(longest + 16), "fits");
}

#[test]
fn tight_is_a_yes_unless_strict() {
    // Between the likely and the high end of the need: found by asking, so that a better estimate
    // moves it.
    let total = |end: &str| {
        let answer = run(&format!("estimate {MODEL} --gpus 28GiB --local --json")).json();
        answer["requirement"]["total"][end].as_u64().unwrap()
    };

    let mib = u64::midpoint(total("likely_bytes"), total("high_bytes")) / (1 << 20);
    let line = format!("fits {MODEL} --gpus {mib}MiB --context 40960 --local --json");
    let lax = run(&line);
    assert_eq!(
        (lax.code, &lax.json()["verdict"]),
        (0, &"tight".into()),
        "{}",
        lax.out
    );

    assert_eq!(run(&format!("{line} --strict")).code, 1);
}

#[test]
fn completions_manual_and_help_are_data() {
    for line in [
        "completions bash",
        "completions zsh",
        "completions fish",
        "manual",
        "--help",
        "fits --help",
        "--version",
    ] {
        let outcome = run(line);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{line}");
        assert!(outcome.out.contains("hf-mem-probe"), "{line}");
    }
}

/// Weights that a parameter puts into host memory fit only where it is known how much there is.
#[test]
fn host_memory_that_a_parameter_asks_for_must_be_known() {
    for (host, code) in [("", 1), (",host:4GiB", 1), (",host:64GiB", 0)] {
        let line = format!("fits {MODEL} --gpus 24GiB{host} --context 8192 --set cpu_offload_gb=8");
        let outcome = run(&line);
        assert_eq!(outcome.code, code, "{line}: {}", outcome.out);
    }
}

#[test]
fn estimate_judges_nothing() {
    let outcome = run(&format!("estimate {MODEL} --json --local"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let answer = outcome.json();
    assert_eq!(
        (&answer["verdict"], &answer["reason"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert!(answer["placement"]["devices"][0]["required_bytes"].is_u64());
    assert!(!outcome.out.contains("short_by_bytes"), "{}", outcome.out);

    // Declared devices are judged.
    let judged = run(&format!("estimate {MODEL} --gpus T4 --json --local"));
    assert_eq!(
        (judged.code, &judged.json()["reason"]),
        (0, &serde_json::json!("insufficient_memory"))
    );
    assert!(judged.json()["short_by_bytes"].as_u64().unwrap() > 0);
}

/// Every hint that is typed as options leads to the verdict that it names.
#[test]
fn hints_hold_as_typed() {
    for line in [
        "--gpus 2xH100 --tensor-parallel 3",
        "--gpus RTX-4090 --set gpu_memory_utilization=0.9",
        "--gpus 2x12GiB --tensor-parallel 1 --pipeline-parallel 1 --context 8192",
        "--gpus 2xT4 --on declared-0 --engine vllm@0.19 --sequences 4",
    ] {
        let asked: Vec<&str> = line.split(' ').collect();
        let first = run(&format!("fits {MODEL} --local {line}"));
        let hints: Vec<String> = hints(&first.out);
        assert!(!hints.is_empty(), "{line}: {}", first.out);

        for hint in hints
            .iter()
            .filter(|hint| hint.starts_with("--") || hint.starts_with("without"))
        {
            let (options, tight) = options(hint);
            let then = run(&format!(
                "fits {MODEL} --local {}",
                followed(&asked, &options).join(" ")
            ));
            let verdict = if tight { "tight: " } else { "fits: " };
            assert!(
                then.out.starts_with(verdict),
                "{line}: {hint}: {}{}",
                then.out,
                then.err
            );
        }
    }
}

/// The hints of an answer, each in one line.
fn hints(out: &str) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for line in out.lines() {
        match (line.strip_prefix("hint: "), hints.last_mut()) {
            (Some(hint), _) => hints.push(hint.to_owned()),
            (None, Some(last)) if line.starts_with("  ") => last.push_str(&line[1..]),
            _ => {}
        }
    }

    hints
}

/// The options of a hint, and whether it says "tight".
fn options(hint: &str) -> (Vec<&str>, bool) {
    let (typed, _) = hint.split_once(": ").unwrap();
    let (typed, tight) = typed
        .strip_suffix(" (tight)")
        .map_or((typed, false), |typed| (typed, true));
    (typed.split(' ').collect(), tight)
}

/// `asked` with the options of a hint: what it names replaces what was asked, what is "without" is
/// left out.
fn followed(asked: &[&str], hint: &[&str]) -> Vec<String> {
    let at = hint
        .iter()
        .position(|word| *word == "without")
        .unwrap_or(hint.len());
    let pairs = |words: &[&str]| -> Vec<(String, String)> {
        words
            .chunks(2)
            .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
            .collect()
    };

    let key = |(flag, value): &(String, String)| match flag.as_str() {
        "--set" => format!("--set {}", value.split('=').next().unwrap()),
        flag => flag.to_owned(),
    };

    let added = pairs(&hint[..at]);
    let left_out = hint.get(at + 1..).unwrap_or_default().join(" ");
    let mut kept = pairs(asked);
    kept.retain(|pair| {
        added.iter().all(|other| key(other) != key(pair)) && !left_out.contains(&key(pair))
    });

    kept.into_iter()
        .chain(added)
        .flat_map(|(flag, value)| [flag, value])
        .collect()
}
