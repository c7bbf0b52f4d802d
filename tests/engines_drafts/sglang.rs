//! Drafts under SGLang 0.5.23.

use std::collections::BTreeMap;
use std::sync::Arc;

use hf_mem_core::engines::{Component, ComponentName, by_name, companions};
use serde_json::{Value, json};

use super::{components, draft_weights, eagle3, h100, hub_model, refusal, request, small_target};

fn parameters(pairs: &Value) -> BTreeMap<String, Value> {
    serde_json::from_value(pairs.clone()).unwrap()
}

/// The draft's pool, low and high.
fn draft_pool(parts: &[Component]) -> (u64, u64) {
    let pool = parts
        .iter()
        .find(|part| part.name == ComponentName::KvCache && part.detail == "the draft's pool")
        .unwrap();

    (pool.bytes.low.get(), pool.bytes.high.get())
}

#[test]
fn pools_match_planner() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let Some(small) = hub_model("meta-llama/Llama-3.2-1B-Instruct") else {
        return;
    };

    // (draft, parameters, bytes that the planner's pool sets apart for a token of the draft, bytes
    // that its layers take, slots of a request of 8192 tokens, with one of padding)
    let rows = [
        (
            small,
            json!({"speculative_algorithm": "STANDALONE"}),
            196_608 - 131_072,
            32_768,
            8192 + 2 * 4 + 1,
        ),
        (
            eagle3(32_000, true),
            json!({"speculative_algorithm": "EAGLE3"}),
            135_168 - 131_072,
            4096,
            8192 + 2 * 5 * 4 + 1,
        ),
    ];
    for (draft, asked, set_apart, taken, slots) in rows {
        let both = target.clone().with_draft(Arc::new(draft));
        let parts = components("sglang", &both, &parameters(&asked));
        assert_eq!(
            draft_pool(&parts),
            (taken * slots, set_apart * slots),
            "{asked}"
        );
        assert!(draft_weights(&parts).0 > 0);
    }
}

#[test]
fn head_allocates_both_vocabularies() {
    let target = small_target();
    let asked = parameters(&json!({"speculative_algorithm": "EAGLE3"}));
    let own: u64 = 587_491_328 + 128_256;
    let (embedding, head) = (128_256 * 4096 * 2, 32_000 * 4096 * 2);

    // The embedding is allocated whether the checkpoint holds one or not.
    for embeds in [true, false] {
        let both = target.clone().with_draft(Arc::new(eagle3(32_000, embeds)));
        let (low, likely, high) = draft_weights(&components("sglang", &both, &asked));
        assert!(low.abs_diff(own) <= 200_000, "{low}");
        assert!(
            likely.abs_diff(own + embedding + head) <= 200_000,
            "{likely}"
        );
        assert!(high >= likely);
    }
}

#[test]
fn uncounted_drafts_are_refused() {
    let target = small_target();
    let both = target.clone().with_draft(Arc::new(eagle3(32_000, true)));
    for (model, asked, version, why) in [
        (
            &target,
            json!({"speculative_algorithm": "NEXTN"}),
            None,
            "name it with --draft",
        ),
        (
            &target,
            json!({"speculative_algorithm": "NGRAM"}),
            None,
            "name it with --draft",
        ),
        (&both, json!({}), None, "needs its algorithm"),
        (
            &both,
            json!({"speculative_algorithm": "DFLASH"}),
            None,
            "is not counted",
        ),
        (
            &both,
            json!({"speculative_algorithm": "EAGLE3", "speculative_num_steps": 3}),
            None,
            "together",
        ),
        (
            &both,
            json!({"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "a/b"}),
            None,
            "not the draft",
        ),
        (
            &both,
            json!({"speculative_algorithm": "EAGLE3", "quantization": "fp8"}),
            None,
            "quantization at load",
        ),
        (
            &both,
            json!({"speculative_algorithm": "EAGLE3"}),
            Some("0.5.20"),
            "0.5.23 and later",
        ),
    ] {
        let refused = refusal("sglang", model, &parameters(&asked), version);
        assert!(refused.contains(why), "{asked}: {refused}");
    }
}

#[test]
fn launch_line_names_the_draft() {
    let both = small_target().with_draft(Arc::new(eagle3(32_000, true)));
    let asked = parameters(&json!({"speculative_algorithm": "EAGLE3"}));
    let devices = [h100()];
    let engine = by_name("sglang").unwrap();
    let prepared = companions::prepare(engine, &request(&both, &asked, &devices)).unwrap();

    let split = prepared.splits(1).unwrap().remove(0);
    let launch = prepared.launch(&hf_mem_core::engines::LaunchPlan {
        split: &split,
        workload: prepared.workload(),
        devices: &[],
    });
    let line = launch.args.join(" ");
    for flag in [
        "--speculative-algorithm EAGLE3",
        "--speculative-draft-model-path yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
        "--speculative-num-steps 5 --speculative-eagle-topk 4 --speculative-num-draft-tokens 8",
        "--max-running-requests 48",
        "--max-total-tokens 8232",
    ] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
}
