//! Adapters on a gated base model: metadata that needed a token is invisible to others, and no
//! token reaches another Hub.

#[path = "support/fake_hub/mod.rs"]
mod fake_hub;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fake_hub::{COMMIT, FakeHub, Reply, Request, ranged, weights};
use hf_mem_probe::repository::settings::PrefixEndpoint;
use hf_mem_probe::repository::{
    Auth, HubSettings, ModelReference, SourceClient, SourceError, SourceSettings, Token,
};

/// Returns one matrix of rank 8.
fn adapter() -> Vec<u8> {
    let header = br#"{"model.layers.0.q_proj.lora_A.weight":{"dtype":"F32","shape":[8,4],"data_offsets":[0,128]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 128]].concat()
}

/// Starts a Hub with the public adapter `a/b` on the gated model `m/base`, which requires a token.
async fn hub() -> FakeHub {
    hub_with_base(Arc::default()).await
}

/// Starts the same Hub, but anyone can read the base model while `open` is true.
async fn hub_with_base(open: Arc<AtomicBool>) -> FakeHub {
    FakeHub::start(move |request: &Request, _| {
        let open = open.load(Ordering::Relaxed);
        let path = request.target.split('?').next()?;

        let list_files = |repo: &str, gated: &str, files: &[(&str, usize)]| {
            let files: Vec<String> = files
                .iter()
                .map(|(name, size)| format!(r#"{{"rfilename":"{name}","size":{size}}}"#))
                .collect();
            let files = files.join(",");
            Reply::ok(format!(
                r#"{{"id":"{repo}","sha":"{COMMIT}","gated":{gated},"siblings":[{files}]}}"#
            ))
        };

        let config = br#"{"base_model_name_or_path": "m/base", "peft_type": "LORA", "r": 8}"#;
        if path.contains("/m/base/") && !open && request.header("authorization").is_none() {
            return Some(Reply::status(401).with("x-error-code", "GatedRepo"));
        }

        Some(match path.rsplit('/').next()? {
            _ if path.starts_with("/api/models/a/b/") => {
                let files = [
                    ("adapter_config.json", config.len()),
                    ("adapter_model.safetensors", adapter().len()),
                ];
                list_files("a/b", "false", &files)
            }
            _ if path.starts_with("/api/models/m/base/") => {
                let gated = if open { "false" } else { "\"manual\"" };
                list_files(
                    "m/base",
                    gated,
                    &[("config.json", 2), ("model.safetensors", weights().len())],
                )
            }
            "adapter_config.json" => Reply::ok(*config),
            "adapter_model.safetensors" => ranged(&adapter(), request),
            "config.json" => Reply::ok("{}"),
            "model.safetensors" => ranged(&weights(), request),
            _ => return None,
        })
    })
    .await
}

#[tokio::test]
async fn gated_base_is_cached_per_token() {
    let hub = hub().await;
    let cache = tempfile::tempdir().expect("a folder");
    let variables = |name: &str| (name == "HF_ENDPOINT").then(|| hub.endpoint.clone());
    let mut settings =
        SourceSettings::new(HubSettings::from_environment(variables).expect("settings"));
    settings.cache_folder = Some(cache.path().to_owned());
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");
    let token_auth = |text: &str| Auth::from(Token::new(text));

    let (now, later) = (
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH + Duration::from_secs(7200),
    );

    // Ask the same client, and a new one that has only the disk cache.
    for client in [
        SourceClient::new(settings.clone()),
        SourceClient::new(settings),
    ] {
        let found = client
            .describe(&reference, &token_auth("hf_one"), now)
            .await
            .expect("as the token may see it");
        let adapter = found.model.adapter.as_ref().expect("an adapter");
        assert_eq!(
            (
                adapter.rank,
                adapter.inventory.bytes().get(),
                adapter.base_gated
            ),
            (Some(8), 128, true)
        );

        assert_eq!(
            (
                found.model.inventory.bytes().get(),
                found.model.identity.repo.as_str()
            ),
            (1 << 20, "m/base")
        );

        for when in [now, later] {
            let refused = client
                .describe(&reference, &Auth::Anonymous, when)
                .await
                .expect_err("without a token");
            assert!(matches!(refused, SourceError::Gated { .. }), "{refused}");

            assert!(
                refused
                    .to_string()
                    .contains("the base model of the adapter a/b"),
                "{refused}"
            );
        }

        let again = client
            .describe(&reference, &token_auth("hf_one"), later)
            .await
            .expect("known");
        assert_eq!(again.model.asked().repo, "a/b");
    }
}

/// Returns settings for the Hub at `endpoint` with this program's own token.
fn settings(endpoint: &str, token: &str) -> HubSettings {
    let variables = |name: &str| match name {
        "HF_ENDPOINT" => Some(endpoint.to_owned()),
        "HF_TOKEN" => Some(token.to_owned()),
        _ => None,
    };
    HubSettings::from_environment(variables).expect("settings")
}

fn received(hub: &FakeHub, token: &str) -> bool {
    hub.requests()
        .iter()
        .any(|request| request.head.contains(token))
}

#[tokio::test]
async fn local_adapter_uses_own_token() {
    let hub = hub().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = r#"{"base_model_name_or_path": "m/base", "peft_type": "LORA", "r": 8}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config).expect("written");
    std::fs::write(folder.path().join("adapter_model.safetensors"), adapter()).expect("written");
    let client = SourceClient::new(SourceSettings::new(settings(&hub.endpoint, "hf_own")));
    let path = folder.path().to_str().expect("UTF-8");
    let reference = ModelReference::parse(path, None, Path::exists).expect("a reference");
    let auth = client.own_auth(&reference);
    let found = client
        .describe(&reference, &auth, SystemTime::UNIX_EPOCH)
        .await
        .expect("as the token may see it");
    assert!(
        found
            .model
            .adapter
            .as_ref()
            .is_some_and(|adapter| adapter.base_gated)
    );
}

#[tokio::test]
async fn no_token_reaches_another_hub() {
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");
    for (asker, opens) in [("hf_public", true), ("hf_callers", false)] {
        let (public, other) = (hub().await, hub().await);
        let mut settings = settings(&public.endpoint, "hf_public");
        let endpoint = hf_mem_probe::repository::settings::parse_endpoint("x", &other.endpoint)
            .expect("an address");
        settings.endpoints.push(PrefixEndpoint {
            prefix: "m/".into(),
            endpoint,
            token: Token::new("hf_other"),
        });

        let client = SourceClient::new(SourceSettings::new(settings));
        let found = client
            .describe(
                &reference,
                &Token::new(asker).into(),
                SystemTime::UNIX_EPOCH,
            )
            .await;

        assert_eq!(found.is_ok(), opens, "{found:?}");
        assert!(
            opens || matches!(found, Err(SourceError::Gated { .. })),
            "{found:?}"
        );
        assert!(
            received(&public, asker) && !received(&other, asker),
            "{asker}"
        );

        assert_eq!(
            received(&other, "hf_other"),
            opens,
            "this program's own token is for its own questions"
        );
    }
}

#[tokio::test]
async fn base_gated_later_closes_the_adapter() {
    let open = Arc::new(AtomicBool::new(true));
    let hub = hub_with_base(Arc::clone(&open)).await;
    let cache = tempfile::tempdir().expect("a folder");
    let variables = |name: &str| (name == "HF_ENDPOINT").then(|| hub.endpoint.clone());
    let mut settings =
        SourceSettings::new(HubSettings::from_environment(variables).expect("settings"));
    settings.cache_folder = Some(cache.path().to_owned());
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");

    let (now, later) = (
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH + Duration::from_secs(7200),
    );
    let client = SourceClient::new(settings);
    client
        .describe(&reference, &Auth::Anonymous, now)
        .await
        .expect("open to all");
    open.store(false, Ordering::Relaxed);

    client
        .describe(&reference, &Auth::Anonymous, now)
        .await
        .expect("still fresh");
    let refused = client
        .describe(&reference, &Auth::Anonymous, later)
        .await
        .expect_err("closed");
    assert!(matches!(refused, SourceError::Gated { .. }), "{refused}");
}
