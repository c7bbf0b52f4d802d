//! Answers on declared devices: as a person reads them, and as a program does.

use super::run::{MODEL, run};

#[test]
fn the_first_command_of_the_readme_answers_without_gpu_and_network() {
    let outcome = run(&format!("fits {MODEL} --gpus 2x24GiB"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);
    assert_eq!(outcome.err, "answered in process: no daemon answers at /nonexistent/api.sock\n");
}

#[test]
fn a_no_says_what_is_short_and_what_would_help() {
    let outcome = run(&format!("fits {MODEL} --gpus T4 --local"));
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);
}

#[test]
fn an_estimate_by_the_logical_minimum_is_exact() {
    let outcome = run(&format!("estimate {MODEL} --engine reference --context 32768 --local --json"));
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
    assert_eq!(answer["requirement"]["kv_cache"]["bytes_per_token"], 147_456);
}

#[test]
fn what_a_placement_says_fits_when_it_is_asked_back() {
    let first = run(&format!("fits {MODEL} --gpus 24GiB --context 4096 --local --json")).json();
    let longest = first["placement"]["max_context"].as_u64().unwrap();
    let asked = |context: u64| {
        run(&format!("fits {MODEL} --gpus 24GiB --context {context} --local --json")).json()["verdict"].clone()
    };
    assert_eq!(asked(longest), "fits");
    assert_ne!(asked(longest + 16), "fits");
}

#[test]
fn tight_is_a_yes_unless_strict() {
    // Between the likely and the high end of the need: found by asking, so that a better estimate moves it.
    let total = |end: &str| {
        let answer = run(&format!("estimate {MODEL} --gpus 28GiB --local --json")).json();
        answer["requirement"]["total"][end].as_u64().unwrap()
    };
    let mib = u64::midpoint(total("likely_bytes"), total("high_bytes")) / (1 << 20);
    let line = format!("fits {MODEL} --gpus {mib}MiB --context 40960 --local --json");
    let lax = run(&line);
    assert_eq!((lax.code, &lax.json()["verdict"]), (0, &"tight".into()), "{}", lax.out);
    assert_eq!(run(&format!("{line} --strict")).code, 1);
}

#[test]
fn completions_manual_and_help_are_data() {
    for line in
        ["completions bash", "completions zsh", "completions fish", "manual", "--help", "fits --help", "--version"]
    {
        let outcome = run(line);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{line}");
        assert!(outcome.out.contains("hf-mem-probe"), "{line}");
    }
}
