//! Answers on declared devices, as text and as JSON.

use super::run::{MODEL, Outcome, program, run};

#[test]
fn readme_command_needs_no_gpu() {
    let outcome = run(&format!("fits {MODEL} --gpus 2x24GiB"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);

    assert_eq!(
        outcome.err,
        "answered in process: no daemon answers at /nonexistent/api.sock\n"
    );
}

#[test]
fn no_names_shortage_and_help() {
    let outcome = run(&format!("fits {MODEL} --gpus T4 --local"));
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);
}

/// One snapshot for every other shape of an answer.
#[test]
fn answer_shapes_match_snapshots() {
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

/// The need of an unknown cache is never guessed.
#[test]
fn unknown_architecture_prints_unknown() {
    // The folder's name has a fixed length, because text is wrapped.
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
fn answer_lines_fit_terminal_width() {
    for columns in [50, 80, 160] {
        for gpus in ["T4", "24GiB", "8xH100", "H100-80GB@30GiB", "4xL4"] {
            for detail in ["", "-v", "-vv"] {
                let outcome = run_in_columns(
                    columns,
                    &format!("fits {MODEL} --gpus {gpus} --local {detail}"),
                );
                let is_too_wide = |line: &&str| line.chars().count() > columns;
                let too_wide = outcome.out.lines().find(is_too_wide);
                assert_eq!(too_wide, None, "{columns} {gpus} {detail}");
            }
        }
    }
}

/// Runs a command line in a terminal of this width.
fn run_in_columns(columns: usize, line: &str) -> Outcome {
    program()
        .env("COLUMNS", columns.to_string())
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into()
}

#[test]
fn readme_answer_fits_one_screen() {
    for columns in [50, 80, 160] {
        let outcome = run_in_columns(columns, &format!("fits {MODEL} --gpus 2x24GiB --local"));
        insta::assert_snapshot!(format!("first_screen_{columns}"), outcome.out);
    }

    let outcome = run(&format!("fits {MODEL} --gpus 2x24GiB --local"));
    assert!(outcome.out.lines().count() <= 20, "{}", outcome.out);

    let page = include_str!("../../README.md");
    assert!(
        page.contains(&outcome.out),
        "README.md shows another answer"
    );
}

#[test]
fn equal_devices_share_line() {
    let outcome = run(&format!(
        "fits {MODEL} --gpus 8xH100 --tensor-parallel 8 --local"
    ));
    let lines: Vec<&str> = outcome
        .out
        .lines()
        .filter(|line| line.starts_with("  GPU"))
        .collect();

    assert_eq!(lines.len(), 1, "{}", outcome.out);
    assert!(
        lines[0].starts_with("  GPU 0-7") && lines[0].ends_with("left each"),
        "{}",
        lines[0]
    );
}

#[test]
fn details_match_snapshots() {
    for (name, detail) in [("parts", "-v"), ("everything", "-vv")] {
        let outcome = run(&format!("fits {MODEL} --gpus 2x24GiB --local {detail}"));
        insta::assert_snapshot!(name, outcome.out);
    }
}

#[test]
fn quiet_answers_are_one_line() {
    for (line, expected) in [
        (
            "fits {MODEL} --gpus 2x24GiB",
            "fits {MODEL} vllm@0.33 tp=2 need=30.3GiB left=8.9GiB\n",
        ),
        (
            "fits {MODEL} --gpus T4",
            "does_not_fit {MODEL} vllm@0.33 need=24.6GiB short=10.2GiB \
             reason=insufficient_memory\n",
        ),
        (
            "estimate {MODEL}",
            "estimate {MODEL} vllm@0.33 need=26.5GiB left=52.6GiB\n",
        ),
    ] {
        let outcome = run(&format!("{} --local -q", line.replace("{MODEL}", MODEL)));
        assert_eq!(outcome.out, expected.replace("{MODEL}", MODEL), "{line}");
    }
}

#[test]
fn color_follows_its_flag() {
    let line = format!("fits {MODEL} --gpus 2x24GiB --local --color");
    let colored = run(&format!("{line} always")).out;
    let plain = run(&format!("{line} never")).out;

    assert!(colored.starts_with("\u{1b}[1m\u{1b}[32mOK "), "{colored:?}");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert_eq!(
        plain,
        run(&format!("fits {MODEL} --gpus 2x24GiB --local")).out
    );
}

#[test]
fn reference_estimate_is_exact() {
    let outcome = run(&format!(
        "estimate {MODEL} --engine reference --context 32768 --local --json"
    ));
    let answer = outcome.json();
    assert_eq!(outcome.code, 0);
    assert_eq!(answer["model"]["weights_bytes"], 16_381_470_720_u64);
    assert_eq!(answer["model"]["parameters"], 8_190_735_360_u64);

    let component_bytes = |name: &str| {
        let parts = answer["requirement"]["components"].as_array().unwrap();
        parts.iter().find(|part| part["name"] == name).unwrap()["likely_bytes"].clone()
    };

    assert_eq!(component_bytes("weights"), 16_381_470_720_u64);

    // 36 layers x 8 heads x (128 + 128) elements x 2 bytes x 32768 tokens.
    assert_eq!(component_bytes("kv_cache"), 147_456_u64 * 32_768);
    assert_eq!(
        answer["requirement"]["kv_cache"]["bytes_per_token"],
        147_456
    );
}

#[test]
fn stated_longest_context_fits() {
    let first = run(&format!(
        "fits {MODEL} --gpus 24GiB --context 4096 --local --json"
    ))
    .json();
    let longest = first["placement"]["max_context"].as_u64().unwrap();

    let verdict_of = |context: u64| {
        run(&format!(
            "fits {MODEL} --gpus 24GiB --context {context} --local --json"
        ))
        .json()["verdict"]
            .clone()
    };

    assert_eq!(verdict_of(longest), "fits");
    assert_ne!(verdict_of(longest + 16), "fits");
}

#[test]
fn tight_succeeds_unless_strict() {
    // The size is between the likely and the high need. The test reads both, so that it stays valid
    // after a change of the estimate.
    let total_bytes = |end: &str| {
        let answer = run(&format!("estimate {MODEL} --gpus 28GiB --local --json")).json();
        answer["requirement"]["total"][end].as_u64().unwrap()
    };

    let mib = u64::midpoint(total_bytes("likely_bytes"), total_bytes("high_bytes")) / (1 << 20);
    let line = format!("fits {MODEL} --gpus {mib}MiB --context 40960 --local --json");
    let lenient = run(&line);
    assert_eq!(
        (lenient.code, &lenient.json()["verdict"]),
        (0, &"tight".into()),
        "{}",
        lenient.out
    );

    assert_eq!(run(&format!("{line} --strict")).code, 1);
}

#[test]
fn completions_manual_and_help_print() {
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

#[test]
fn detailed_version_names_verified_releases() {
    let outcome = run("--version -v");
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    for line in [
        "vllm          verified from 0.7 to 0.33",
        "transformers  verified from 5.23 to 5.24",
    ] {
        assert!(outcome.out.contains(line), "{}", outcome.out);
    }

    assert!(!run("--version").out.contains("verified"));
}

#[test]
fn answer_names_newest_verified_release() {
    for (engine, newest) in [("vllm@0.19", Some("0.33")), ("reference", None)] {
        let answer = run(&format!(
            "estimate {MODEL} --json --local --engine {engine}"
        ))
        .json();
        assert_eq!(
            answer["engine"]["newest_verified"].as_str(),
            newest,
            "{engine}"
        );
    }
}

/// Weights that a parameter moves to host memory fit only if the host's memory is known.
#[test]
fn host_offload_needs_known_memory() {
    for (host, code) in [("", 1), (",host:4GiB", 1), (",host:64GiB", 0)] {
        let line = format!("fits {MODEL} --gpus 24GiB{host} --context 8192 --set cpu_offload_gb=8");
        let outcome = run(&line);
        assert_eq!(outcome.code, code, "{line}: {}", outcome.out);
    }
}

#[test]
fn estimate_has_no_verdict() {
    let outcome = run(&format!("estimate {MODEL} --json --local"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let answer = outcome.json();
    assert_eq!(
        (&answer["verdict"], &answer["reason"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert!(answer["placement"]["devices"][0]["required_bytes"].is_u64());
    assert!(!outcome.out.contains("short_by_bytes"), "{}", outcome.out);

    // With declared devices, an estimate has a verdict.
    let judged = run(&format!("estimate {MODEL} --gpus T4 --json --local"));
    assert_eq!(
        (judged.code, &judged.json()["reason"]),
        (0, &serde_json::json!("insufficient_memory"))
    );
    assert!(judged.json()["short_by_bytes"].as_u64().unwrap() > 0);
}

/// Following a hint gives the verdict that it names.
#[test]
fn typed_hints_hold() {
    for line in [
        "--gpus 2xH100 --tensor-parallel 3",
        "--gpus RTX-4090 --set gpu_memory_utilization=0.9",
        "--gpus 2x12GiB --tensor-parallel 1 --pipeline-parallel 1 --context 8192",
        "--gpus 2xT4 --on declared-0 --engine vllm@0.19 --sequences 4",
    ] {
        let asked: Vec<&str> = line.split(' ').collect();
        let first = run(&format!("fits {MODEL} --local -v {line}"));
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
            let verdict = if tight { "~ " } else { "OK " };
            assert!(
                then.out.starts_with(verdict),
                "{line}: {hint}: {}{}",
                then.out,
                then.err
            );
        }
    }
}

/// Returns the hints of an answer, each in one line.
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

/// Returns the options of a hint, and whether it says "tight".
fn options(hint: &str) -> (Vec<&str>, bool) {
    let (typed, _) = hint.split_once(": ").unwrap();
    let (typed, tight) = typed
        .strip_suffix(" (tight)")
        .map_or((typed, false), |typed| (typed, true));
    (typed.split(' ').collect(), tight)
}

/// Returns the options `asked` with those of a hint applied.
///
/// The hint's options replace equal ones. Options after "without" are removed.
fn followed(asked: &[&str], hint: &[&str]) -> Vec<String> {
    let at = hint
        .iter()
        .position(|word| *word == "without")
        .unwrap_or(hint.len());
    let to_pairs = |words: &[&str]| -> Vec<(String, String)> {
        words
            .chunks(2)
            .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
            .collect()
    };

    let option_name = |(flag, value): &(String, String)| match flag.as_str() {
        "--set" => format!("--set {}", value.split('=').next().unwrap()),
        flag => flag.to_owned(),
    };

    let added = to_pairs(&hint[..at]);
    let left_out = hint.get(at + 1..).unwrap_or_default().join(" ");
    let mut options_left = to_pairs(asked);
    options_left.retain(|pair| {
        added
            .iter()
            .all(|other| option_name(other) != option_name(pair))
            && !left_out.contains(&option_name(pair))
    });

    options_left
        .into_iter()
        .chain(added)
        .flat_map(|(flag, value)| [flag, value])
        .collect()
}
