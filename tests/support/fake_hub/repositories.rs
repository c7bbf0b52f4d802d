//! Repositories for the fake Hub: public, gated and private ones, with every kind of file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{COMMIT, Reply, Request, ranged};

/// A token that can read everything.
pub(crate) const OWNER: &str = "hf_owner_canary_5d1e";
/// A valid token that can read public repositories only.
pub(crate) const STRANGER: &str = "hf_stranger_canary_90ab";

/// One repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repository {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) gated: bool,
    pub(crate) private: bool,
    /// Elements by type, as the Hub counts them.
    pub(crate) totals: Option<Value>,
}

impl Repository {
    pub(crate) fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }
}

/// All repositories, by name.
#[derive(Clone, Debug)]
pub(crate) struct Repositories {
    repositories: BTreeMap<String, Repository>,
    /// Whether `resolve` redirects small files to the resolve cache, as the Hub does. A mirror may
    /// send them itself.
    redirects: bool,
}

impl Default for Repositories {
    fn default() -> Self {
        Self {
            repositories: BTreeMap::new(),
            redirects: true,
        }
    }
}

impl Repositories {
    pub(crate) fn with(mut self, name: &str, repository: Repository) -> Self {
        self.repositories.insert(name.into(), repository);
        self
    }

    /// Returns the same without a resolve cache.
    #[allow(dead_code, reason = "one of the tests that share this asks for it")]
    pub(crate) fn without_resolve_cache(self) -> Self {
        Self {
            redirects: false,
            ..self
        }
    }

    /// Returns the response of a Hub without faults: a script for [`super::FakeHub::start`].
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        let token = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let (path, _) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let not_found = || match token {
            Some(_) => Reply::status(404).with("x-error-code", "RepoNotFound"),
            None => Reply::status(401),
        };

        if !request.store && token.is_some_and(|token| ![OWNER, STRANGER].contains(&token)) {
            return Reply::status(401);
        }

        let public_entry = |(name, repository): (&String, &Repository)| {
            (!repository.private).then(|| json!({"id": name}))
        };

        if path == "/api/models" {
            return Reply::ok(
                json!(
                    self.repositories
                        .iter()
                        .filter_map(public_entry)
                        .collect::<Vec<_>>()
                )
                .to_string(),
            );
        }
        // The Hub redirects small files to
        // /api/resolve-cache/models/{owner}/{name}/{commit}/{path}.
        let cached = path.strip_prefix("/api/resolve-cache/models/").map(|rest| {
            let mut parts: Vec<&str> = rest.split('/').collect();
            parts.insert(parts.len().min(2), "resolve-cache");
            parts
        });

        let parts = cached.unwrap_or_else(|| {
            path.trim_start_matches("/api/models")
                .trim_start_matches('/')
                .split('/')
                .collect()
        });
        let [owner, name, kind, revision, rest @ ..] = parts.as_slice() else {
            return not_found();
        };

        let name = format!("{owner}/{name}");
        let Some(repository) = self.repositories.get(&name) else {
            return not_found();
        };

        if repository.private && token != Some(OWNER) && !request.store {
            return not_found();
        }

        if !["main", COMMIT].contains(revision) {
            return Reply::status(404).with("x-error-code", "RevisionNotFound");
        }

        let length =
            |(path, bytes): (&String, &Vec<u8>)| json!({"rfilename": path, "size": bytes.len()});

        match *kind {
            "revision" => {
                let siblings: Vec<Value> = repository.files.iter().map(length).collect();
                let gated = if repository.gated {
                    json!("manual")
                } else {
                    json!(false)
                };
                let mut info = json!({"id": name, "sha": COMMIT, "gated": gated, "private": repository.private,
                    "siblings": siblings});
                if let Some(totals) = &repository.totals {
                    info["safetensors"] = json!({"parameters": totals});
                }
                Reply::ok(info.to_string())
            }
            "resolve" | "resolve-cache" => {
                let path = rest.join("/");
                match (token, repository.gated && !request.store) {
                    (None, true) => return Reply::status(401).with("x-error-code", "GatedRepo"),
                    (Some(STRANGER), true) => {
                        return Reply::status(403).with("x-error-code", "GatedRepo");
                    }
                    _ => {}
                }

                match repository.files.get(&path) {
                    None => Reply::status(404).with("x-error-code", "EntryNotFound"),
                    Some(bytes) if request.store => ranged(bytes, request),
                    Some(_)
                        if [".safetensors", ".gguf", ".bin"]
                            .iter()
                            .any(|ending| path.ends_with(ending)) =>
                    {
                        let to = format!(
                            "{}{}?Signature=secret-signature",
                            request.store_endpoint, request.target
                        );
                        Reply::status(302)
                            .with("location", to)
                            .with("x-xet-hash", "0123")
                    }
                    Some(_) if *kind == "resolve" && self.redirects => {
                        let to = format!("/api/resolve-cache/models/{name}/{revision}/{path}");
                        Reply::status(307).with("location", to)
                    }
                    Some(_) if *kind == "resolve-cache" && !self.redirects => not_found(),
                    Some(bytes) => Reply::ok(bytes.clone()),
                }
            }
            _ => not_found(),
        }
    }
}

/// Returns a safetensors file with the given tensors: name, type, bytes of one element, shape.
pub(crate) fn safetensors(tensors: &[(&str, &str, u64, &[u64])]) -> Vec<u8> {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, dtype, size, shape) in tensors {
        let end = at + shape.iter().product::<u64>() * size;
        header.insert(
            (*name).into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}),
        );
        at = end;
    }

    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + usize::try_from(at).expect("small"), 0);

    bytes
}

/// Returns a decoder of two layers, small enough to be sent whole: its configuration and its
/// tensors.
pub(crate) fn decoder() -> (Value, Vec<(String, Vec<u64>)>) {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 100, "max_position_embeddings": 256, "torch_dtype": "bfloat16"});
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![100, 64]),
        ("model.norm.weight".to_owned(), vec![64]),
        ("lm_head.weight".to_owned(), vec![100, 64]),
    ];

    for layer in 0..2 {
        for (module, shape) in [
            ("input_layernorm", vec![64]),
            ("post_attention_layernorm", vec![64]),
            ("self_attn.q_proj", vec![64, 64]),
            ("self_attn.k_proj", vec![32, 64]),
            ("self_attn.v_proj", vec![32, 64]),
            ("self_attn.o_proj", vec![64, 64]),
            ("mlp.gate_proj", vec![128, 64]),
            ("mlp.up_proj", vec![128, 64]),
            ("mlp.down_proj", vec![64, 128]),
        ] {
            tensors.push((format!("model.layers.{layer}.{module}.weight"), shape));
        }
    }

    (config, tensors)
}

/// Returns the decoder in one file, with the Hub's count of it.
pub(crate) fn dense() -> Repository {
    let (config, tensors) = decoder();
    let all: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| (name.as_str(), "BF16", 2, shape.as_slice()))
        .collect();
    let elements: u64 = tensors
        .iter()
        .map(|(_, shape)| shape.iter().product::<u64>())
        .sum();
    let repository = Repository {
        totals: Some(json!({"BF16": elements})),
        ..Repository::default()
    };

    repository
        .with("config.json", config.to_string())
        .with("model.safetensors", safetensors(&all))
}
