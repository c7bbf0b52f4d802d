//! Engine parameters by the engine's names: counted, without effect, not counted, or unknown.

use super::run::{MODEL, Outcome, run};

fn fits(set: &str) -> Outcome {
    run(&format!(
        "fits {MODEL} --gpus 80GiB --local --json --context 4096 --set {set}"
    ))
}

#[test]
fn uncounted_parameter_is_unknown() {
    for set in [
        "enable_sleep_mode=true",
        "data_parallel_size=2",
        "load_format=tensorizer",
        "kv_offloading_size=8",
    ] {
        let outcome = fits(set);
        let answer = outcome.json();
        let found = (
            outcome.code,
            answer["verdict"].as_str(),
            answer["reason"].as_str(),
        );

        assert_eq!(
            found,
            (3, Some("unknown"), Some("unsupported_parameter")),
            "{set}: {}",
            outcome.out
        );

        let name = set.split('=').next().unwrap();
        assert!(
            answer["message"].as_str().unwrap().contains(name),
            "{}",
            answer["message"]
        );
    }
}

#[test]
fn harmless_parameter_is_accepted() {
    let plain = run(&format!(
        "fits {MODEL} --gpus 80GiB --local --json --context 4096"
    ))
    .json();

    for set in [
        "enable_sleep_mode=false",
        "data-parallel-size=1",
        "speculative_config=null",
        "api_server_count=4",
        "no-enable-dbo=",
    ] {
        let outcome = fits(set);
        assert_eq!(outcome.code, 0, "{set}: {}", outcome.out);
        assert_eq!(outcome.json()["requirement"], plain["requirement"], "{set}");
    }
}

#[test]
fn unknown_parameter_is_usage_error() {
    for (set, says) in [
        ("enable_sleep_modes=true", "enable_sleep_mode"),
        ("swap_space=2", "before 0.21"),
    ] {
        let outcome = fits(set);
        assert_eq!(
            (outcome.code, outcome.json()["reason"].as_str()),
            (2, Some("usage")),
            "{set}: {}",
            outcome.out
        );
        assert!(outcome.out.contains(says), "{set}: {}", outcome.out);
    }
}
