//! A speech model and a language model on one card.

use std::sync::Arc;
use std::time::SystemTime;

use hf_mem_core::engines::Engines;
use hf_mem_core::evaluate::{HostView, Rules, answer, together};
use hf_mem_core::model::ctranslate2::sample::WhisperSizes;
use hf_mem_core::model::ctranslate2::{Reading, Walk, Window, whisper};
use hf_mem_core::model::{Dtype, Format, Model};
use hf_mem_core::placement::Policy;
use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::question::Question;
use hf_mem_probe::repository::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};
use serde_json::{Value, json};

fn whisper() -> Arc<Model> {
    let file = WhisperSizes::LARGE_V3
        .stored_as(Dtype::I8, Dtype::F16)
        .file();
    let mut walk = Walk::new(file.length, Reading::Predicted);
    while let Some(Window { start, bytes }) = walk.window() {
        walk.feed(&file.window(start, bytes)).expect("a model");
    }

    let walked = walk.finish().expect("a model");
    let architecture = whisper::architecture(&walked.model, &walked.inventory);
    let format = Format::Ctranslate2;

    Arc::new(Model::bare(
        "a/whisper",
        format,
        architecture,
        walked.inventory,
    ))
}

async fn qwen() -> Arc<Model> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");
    let hub = HubSettings::from_environment(|_| None).expect("settings");
    let client = SourceClient::new(SourceSettings::new(hub));
    let reference = ModelReference::parse(path, None, |_| true).expect("a path");
    let described = client.describe(&reference, &Auth::Anonymous, SystemTime::UNIX_EPOCH);

    described.await.expect("a model").model
}

fn question(repo: &str, parameters: &Value, workload: &Value) -> Question {
    let question = json!({
        "model": {"repo": repo},
        "engine": {"parameters": parameters},
        "workload": workload,
    });
    serde_json::from_value(question).expect("a question")
}

/// large-v3 in 8 bits needs up to 4.7 GiB, or 3.5 without sampling; Qwen3-8B needs 19.4 with 2048
/// tokens, and 4.2 more with 32768.
#[tokio::test]
async fn speech_shares_card_with_language() {
    let models = [whisper(), qwen().await];
    let host = HostView::declared("RTX-4090", SystemTime::UNIX_EPOCH).expect("a card");
    let rules = Rules {
        engines: Engines::embedded().expect("profiles"),
        policy: Policy::default(),
    };

    let ask = |parameters: &Value, context: u64| {
        let questions = [
            question("a/whisper", parameters, &json!({})),
            question("a/qwen", &json!({}), &json!({"context": context})),
        ];
        together(&questions, &models, &host, &rules).expect("an answer")
    };

    let short = ask(&json!({"temperature": 0}), 2048);
    assert_eq!(short.verdict, Verdict::Fits, "{}", short.message);
    let engines: Vec<_> = short
        .answers
        .iter()
        .map(|answer| answer.engine.as_ref().expect("an engine").name.as_str())
        .collect();
    assert_eq!(engines, ["ctranslate2", "vllm"]);

    let sampled = ask(&json!({}), 2048);
    assert_eq!(sampled.verdict, Verdict::Tight, "{}", sampled.message);
    let long = ask(&json!({"temperature": 0}), 32_768);
    assert_ne!(long.verdict, Verdict::Fits, "{}", long.message);
}

/// The limits of a question with a batch, and its suggestions, can be asked as questions.
#[test]
fn batch_bounds_suggested_sequences() {
    let rules = Rules {
        engines: Engines::embedded().expect("profiles"),
        policy: Policy::default(),
    };
    let ask = |card: &str, parameters: &Value, workload: &Value| {
        let host = HostView::declared(card, SystemTime::UNIX_EPOCH).expect("a card");
        let question = question("a/whisper", parameters, workload);
        answer(&question, &whisper(), &host, &rules).expect("an answer")
    };
    let batch = |size: u64| json!({"batch_size": size});

    let fits = ask("RTX-4090", &batch(16), &json!({}));
    let placement = fits.placement.as_ref().expect("a placement");
    assert_eq!(
        (placement.max_sequences, placement.max_context),
        (Some(16), Some(448))
    );

    let large = ask("RTX-4090", &batch(128), &json!({}));
    assert_eq!(
        large.verdict,
        Some(Verdict::DoesNotFit),
        "{}",
        large.message
    );
    let changes = |large: &Answer| -> Vec<String> {
        let suggestions = large.suggestions.iter();
        suggestions
            .map(|suggestion| suggestion.change.clone())
            .collect()
    };
    assert!(
        !changes(&large)
            .iter()
            .any(|change| change.starts_with("sequences=")),
        "{:?}",
        changes(&large)
    );

    let open = ask("RTX-4090", &json!({}), &json!({"sequences": 128}));
    let followed = changes(&open)
        .iter()
        .find_map(|change| change.strip_prefix("sequences=")?.parse::<u64>().ok())
        .expect("fewer sequences");
    let fewer = ask("RTX-4090", &json!({}), &json!({"sequences": followed}));
    assert_eq!(fewer.verdict, Some(Verdict::Fits), "{}", fewer.message);
}
