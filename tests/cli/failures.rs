//! Invalid input: the documented exit code, a message with the cause, and one JSON object.

use std::fs;

use super::run::{MODEL, run};

/// Each case has a command line, an exit code, a reason, and a text that the message must contain.
#[test]
fn failures_name_code_reason_and_cause() {
    let cases = [
        ("fits", 2, "usage", "MODEL"),
        ("fits a/b --context none", 2, "usage", "--context"),
        ("fits a/b --sequences 0", 2, "usage", "--sequences"),
        ("fits a/b --frobnicate", 2, "usage", "--frobnicate"),
        ("fits a/b --set nonsense", 2, "usage", "KEY=VALUE"),
        (&format!("fits {MODEL} --gpus 0xFOO"), 2, "usage", "0xFOO"),
        (&format!("fits {MODEL} --gpus 8xH10"), 2, "usage", "H10"),
        (
            &format!("fits {MODEL} --gpus 24GiB --engine vlm"),
            2,
            "usage",
            "did you mean 'vllm'",
        ),
        (
            &format!("fits {MODEL} --gpus 24GiB --set max_num_seq=1"),
            2,
            "usage",
            "max_num_seqs",
        ),
        (
            &format!("fits {MODEL} --gpus 24GiB --set max_num_seqs=-1"),
            2,
            "usage",
            "max_num_seqs",
        ),
        (
            &format!("fits {MODEL} --gpus 24GiB --on GPU-7"),
            2,
            "usage",
            "GPU-7",
        ),
        (
            &format!("fits {MODEL} --gpus 24GiB --engine llama.cpp"),
            3,
            "unsupported_architecture",
            "GGUF",
        ),
        (
            &format!("fits {MODEL} --gpus 2x24GiB --tensor-parallel 3"),
            1,
            "no_legal_split",
            "3",
        ),
        ("fits ./nowhere --gpus 24GiB", 5, "not_found", "./nowhere"),
        (
            "fits nobody/nothing --gpus 24GiB",
            75,
            "hub_unreachable",
            "nobody/nothing",
        ),
        (
            &format!("fits {MODEL} --nvml /nonexistent/libnvidia-ml.so.1"),
            4,
            "nvml_unavailable",
            "/nonexistent",
        ),
        (
            "gpus --nvml /nonexistent/libnvidia-ml.so.1",
            4,
            "nvml_unavailable",
            "/nonexistent",
        ),
        (
            "explain --at now --journal /nonexistent",
            5,
            "not_found",
            "/nonexistent",
        ),
        ("explain --at 60y", 2, "usage", "1970"),
        (
            &format!("fits {MODEL} --reserve --wait 500000000000y"),
            2,
            "usage",
            "100 years",
        ),
        ("health", 69, "daemon_unreachable", "/nonexistent/api.sock"),
        (
            "health --strict",
            69,
            "daemon_unreachable",
            "/nonexistent/api.sock",
        ),
        // Commands that need the daemon reject --local; commands that open no driver reject --nvml.
        ("health --local", 2, "usage", "--local"),
        ("health --nvml /nonexistent", 2, "usage", "--nvml"),
        ("lease list --local", 2, "usage", "--local"),
        ("lease renew 1-2 --local", 2, "usage", "--local"),
        (
            "lease release 1-2 --nvml /nonexistent",
            2,
            "usage",
            "--nvml",
        ),
        ("run --model a/b --local -- true", 2, "usage", "--no-lease"),
        (
            &format!("estimate {MODEL} --nvml /nonexistent"),
            2,
            "usage",
            "--nvml",
        ),
    ];

    for (line, code, reason, named) in cases {
        let outcome = run(&format!("{line} --json"));
        let answer = outcome.json();
        assert_eq!(
            (outcome.code, answer["reason"].as_str()),
            (code, Some(reason)),
            "{line}: {}",
            outcome.out
        );

        let text = format!("{} {}", answer["detail"], answer["message"]);
        assert!(text.contains(named), "{line}: {text}");
        assert_eq!(answer["schema_version"], 1, "{line}");
        let for_people = run(line);
        assert_eq!(for_people.code, code, "{line}");

        assert!(
            format!("{}{}", for_people.out, for_people.err).contains(named.trim_matches('\'')),
            "{line}: {}",
            for_people.err
        );
    }
}

#[test]
fn local_is_suggested_only_if_possible() {
    for line in [
        "health",
        "lease list",
        "lease renew 1-2",
        "lease release 1-2",
        &format!("fits {MODEL} --reserve"),
    ] {
        let outcome = run(line);
        assert_eq!(
            (outcome.code, outcome.err.contains("--local")),
            (69, false),
            "{line}: {}",
            outcome.err
        );
        assert!(outcome.err.contains("\nhint: "), "{line}: {}", outcome.err);
    }
}

#[test]
fn condition_fails_unless_yes_or_no() {
    for (line, code) in [
        (format!("fits {MODEL} --gpus 2x24GiB --condition"), 0),
        (format!("fits {MODEL} --gpus T4 --condition"), 1),
        (
            format!("fits {MODEL} --gpus 24GiB --engine llama.cpp --condition"),
            255,
        ),
        (
            format!("fits {MODEL} --nvml /nonexistent/x --condition"),
            255,
        ),
        (
            "fits nobody/nothing --gpus 24GiB --condition".to_owned(),
            255,
        ),
    ] {
        assert_eq!(run(&line).code, code, "{line}");
    }
}

/// Each file is no valid model, and has its own folder.
#[test]
fn damaged_files_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let header_bytes =
        |length: u64, json: &str| [&length.to_le_bytes()[..], json.as_bytes()].concat();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("truncated", header_bytes(1000, "{}"), "1000"),
        (
            "endless",
            header_bytes(1 << 63, "{}"),
            "9223372036854775808",
        ),
        ("not_json", header_bytes(4, "{a:}"), "model.safetensors"),
        (
            "past_end",
            header_bytes(
                62,
                r#"{"a":{"dtype":"F32","shape":[4096],"data_offsets":[0,16384]}}   "#,
            ),
            "a",
        ),
        ("empty", Vec::new(), "model.safetensors"),
    ];

    for (name, bytes, named) in cases {
        let folder = directory.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("model.safetensors"), bytes).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        let outcome = run(&format!("fits {} --gpus 24GiB --json", folder.display()));
        let answer = outcome.json();
        assert_eq!(
            (outcome.code, answer["reason"].as_str()),
            (3, Some("missing_metadata")),
            "{name}: {}",
            outcome.out
        );

        assert!(
            answer["detail"].as_str().unwrap().contains(named),
            "{name}: {}",
            outcome.out
        );
    }
}

#[test]
fn unknown_architecture_has_exact_weights() {
    let directory = tempfile::tempdir().unwrap();
    let json = r#"{"x.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}  "#;
    let file = [
        &(json.len() as u64).to_le_bytes()[..],
        json.as_bytes(),
        &[0; 16],
    ]
    .concat();

    fs::write(directory.path().join("model.safetensors"), file).unwrap();
    fs::write(
        directory.path().join("config.json"),
        r#"{"model_type": "brand_new", "state_of_mind": 7}"#,
    )
    .unwrap();

    let outcome = run(&format!(
        "fits {} --gpus 24GiB --json",
        directory.path().display()
    ));
    let answer = outcome.json();
    assert_eq!(outcome.code, 3, "{}", outcome.out);

    assert_eq!(
        (answer["verdict"].as_str(), answer["reason"].as_str()),
        (Some("unknown"), Some("unsupported_architecture"))
    );
    assert_eq!(answer["model"]["weights_bytes"], 16);
    assert_eq!(answer["requirement"]["total"], serde_json::Value::Null);
    assert_eq!(answer["short_by_bytes"], serde_json::Value::Null);
}

#[test]
fn check_config_reports_invalid_files() {
    assert_eq!(run("check-config config.example.toml").code, 0);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    fs::write(&file, "[socket]\nmode = \"0660\"\nfrobnicate = 1\n").unwrap();
    let outcome = run(&format!("check-config {}", file.display()));
    assert_eq!(outcome.code, 78);

    assert!(
        outcome.err.contains("unknown field `frobnicate`") && outcome.err.contains('3'),
        "{}",
        outcome.err
    );

    // These files parse, but the daemon does not start with them.
    for (content, why) in [
        (
            "[engines.profiles.vllm.constants]\nfrobnicate = 1\n",
            "frobnicate",
        ),
        (
            "[engines]\ndefault_engine = \"vlm\"\n",
            "did you mean 'vllm'",
        ),
        (
            "[access]\ntoken_users = [\"nobody-of-this-name\"]\n",
            "nobody-of-this-name",
        ),
        (
            "[leases.users.nobody-of-this-name]\nleases = 1\n",
            "nobody-of-this-name",
        ),
        ("[devices]\ndeclared = \"3xBogus\"\n", "Bogus"),
        (
            "[hub]\ntoken_file = \"/nonexistent/token\"\n",
            "hub.token_file",
        ),
        ("[hub]\nendpoint = \"ftp://hub\"\n", "hub.endpoint"),
    ] {
        fs::write(&file, content).unwrap();
        let outcome = run(&format!("check-config {}", file.display()));
        assert_eq!(outcome.code, 78, "{content}: {}", outcome.err);
        assert!(outcome.err.contains(why), "{content}: {}", outcome.err);
        let daemon = run(&format!("daemon --config {}", file.display()));
        assert_eq!(daemon.code, 78, "{content}: {}", daemon.err);
    }
}
