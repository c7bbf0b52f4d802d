//! Checks all configurations of the optional corpus of real metadata (`../shared/hub/models`).
//!
//! Each is read or rejected for a reason, and the results agree with published figures.
#![expect(
    clippy::unwrap_used,
    reason = "an unreadable corpus is a failure of the test"
)]
#![expect(clippy::print_stdout, reason = "people read the coverage table")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::logical;
use hf_mem_core::engines::logical::CacheElement;
use hf_mem_core::model::architecture::{Architecture, Unsupported};
use hf_mem_core::model::config::architecture;
use hf_mem_core::model::config::parameters::{expert_share, logical_parameters};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Inventory, Storage};
use serde_json::Value;

struct Entry {
    name: String,
    config: Value,
    meta: Value,
    quantization: Option<Value>,
    inventory: Inventory,
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Reads all entries with a `config.json`. Only weights at the root of a repository belong to it.
fn entries() -> Vec<Entry> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models");
    if !models.is_dir() {
        println!("skipped: ../shared/hub/models is not there");
        return Vec::new();
    }

    let mut folders: Vec<PathBuf> = Vec::new();
    for owner in fs::read_dir(&models).unwrap().flatten() {
        folders.extend(
            fs::read_dir(owner.path())
                .unwrap()
                .flatten()
                .map(|entry| entry.path()),
        );
    }

    folders.sort();
    folders
        .iter()
        .filter_map(|folder| {
            Some(Entry {
                name: folder.strip_prefix(&models).unwrap().display().to_string(),
                config: json(&folder.join("config.json"))?,
                meta: json(&folder.join("meta.json"))?,
                quantization: json(&folder.join("hf_quant_config.json")),
                inventory: inventory(&folder.join("tensors.json.gz")),
            })
        })
        .collect()
}

fn inventory(path: &Path) -> Inventory {
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(File::open(path).unwrap()), &mut text).unwrap();
    let tensors: Vec<(&str, &str, &str, Vec<u64>)> = serde_json::from_slice(&text).unwrap();
    let mut builder = InventoryBuilder::default();

    for (file, name, dtype, shape) in tensors {
        let component = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let elements = Bytes::product(shape.iter().copied()).get();
        let (storage, bytes) = match Dtype::from_safetensors(dtype) {
            Some(dtype) => (Storage::Known(dtype), dtype.stored(elements).unwrap()),
            None => (Storage::Unknown(dtype.into()), Bytes::new(elements)),
        };
        builder.add(component, name, storage, &shape, bytes);
    }

    builder.finish()
}

fn read(entry: &Entry) -> Result<Architecture, Unsupported> {
    architecture(&entry.config, entry.quantization.as_ref(), &entry.inventory)
}

/// Bytes of a two-byte cache for one more token of a long sequence, as published logs count them.
const PER_TOKEN: &[(&str, u64)] = &[
    ("meta-llama/Llama-3.1-8B-Instruct", 131_072),
    ("meta-llama/Llama-3.1-70B-Instruct", 327_680),
    ("Qwen/Qwen2.5-1.5B", 28_672),
    ("Qwen/Qwen3-30B-A3B", 98_304),
    ("MiniMaxAI/MiniMax-M2.5", 253_952),
    ("deepseek-ai/DeepSeek-V3", 70_272),
    ("deepseek-ai/DeepSeek-V3.2", 70_272 + 61 * 132),
    ("zai-org/GLM-5", 100_152),
    ("zai-org/GLM-5.1", 100_152),
    // 21 of 78 layers have their own indexer.
    ("zai-org/GLM-5.2", 78 * 1152 + 21 * 132),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 12 * 4096),
    ("google/gemma-3-27b-it", 81_920),
    ("google/gemma-4-26B-A4B", 5 * 4096),
    ("openai/gpt-oss-120b", 18 * 2048),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", 12 * 2048),
    ("Qwen/Qwen3.5-35B-A3B", 10 * 2048),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 6 * 1024),
    ("LiquidAI/LFM2-1.2B", 6 * 2048),
    ("CohereLabs/c4ai-command-r7b-12-2024", 8 * 4096),
    ("google/gemma-2-2b", 13 * 4096),
    ("zai-org/chatglm3-6b", 28_672),
    ("tiiuae/falcon-40b", 122_880),
    ("meta-llama/Llama-3.2-11B-Vision-Instruct", 32 * 4096),
    ("google/embeddinggemma-300m", 0),
];

/// Recurrent states of one sequence: convolutions in two bytes, states in the model's own dtype.
const STATES: &[(&str, u64)] = &[
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", 36 * 2_146_304),
    ("Qwen/Qwen3.5-35B-A3B", 30 * (49_152 + 2_097_152)),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 23 * 2_134_016),
    ("LiquidAI/LFM2-1.2B", 10 * 2 * 2048 * 2),
];

/// Returns whether the Hub counts packed elements as parameters.
///
/// It does not unpack MLX words, nor some NVFP4 bytes.
fn hub_counts_packed(entry: &Entry) -> bool {
    entry.name.starts_with("mlx-community/") || entry.name.contains("NVFP4")
}

#[test]
fn corpus_agrees_with_published_figures() {
    let entries = entries();
    let (mut known, mut refused, mut wrong) = (BTreeMap::new(), Vec::new(), Vec::new());

    for entry in &entries {
        let architecture = match read(entry) {
            Ok(architecture) => architecture,
            Err(why) => {
                refused.push(format!("{}: {why}", entry.name));
                continue;
            }
        };

        let two = CacheElement::of(Dtype::BF16);
        let per_token = logical::per_token(&architecture, 1 << 24, two).get();
        let states =
            logical::states(&architecture, 0..architecture.layer_count(), Dtype::BF16).get();
        let parameters = logical_parameters(&entry.inventory, architecture.quantization.as_ref());
        let share = expert_share(&entry.inventory);

        println!(
            "{:60} {:20} {:3} layers {per_token:8} B/token {states:9} B/sequence, {} of {} in experts, {parameters:?}",
            entry.name,
            architecture.model_type,
            architecture.layers.len(),
            share.map_or(Bytes::ZERO, |share| share.experts),
            entry.inventory.bytes(),
        );

        if share.is_some() != architecture.experts.is_some() {
            wrong.push(format!(
                "{}: experts {:?}, stored {share:?}",
                entry.name, architecture.experts
            ));
        }

        let published = entry
            .meta
            .get("hub_params")
            .or(entry.meta.get("total_params"))
            .and_then(Value::as_u64);

        // The corpus counts the dense heads of sentence-transformers models separately.
        let with_heads = entry
            .meta
            .get("total_params_with_dense")
            .and_then(Value::as_u64);

        // The Hub omits GPT-NeoX's 44 one-element mask buffers. A repository without safetensors
        // has no tensor names.
        let comparable = !hub_counts_packed(entry)
            && entry.name != "EleutherAI/gpt-neox-20b"
            && !entry.inventory.classes.is_empty();
        if comparable && parameters != with_heads.or(published) {
            wrong.push(format!(
                "{}: {parameters:?} parameters, published {published:?}",
                entry.name
            ));
        }

        known.insert(entry.name.as_str(), (per_token, states));
    }

    println!(
        "{} read, {} refused {refused:#?}",
        known.len(),
        refused.len()
    );

    assert!(
        known.len() * 100 >= entries.len() * 97,
        "{} of {} read: {refused:#?}",
        known.len(),
        entries.len()
    );

    for (name, expected) in PER_TOKEN {
        if let Some((per_token, _)) = known
            .get(name)
            .filter(|(per_token, _)| per_token != expected)
        {
            wrong.push(format!("{name}: {per_token} B/token, expected {expected}"));
        }
    }

    for (name, expected) in STATES {
        if let Some((_, states)) = known.get(name).filter(|(_, states)| states != expected) {
            wrong.push(format!("{name}: {states} B/sequence, expected {expected}"));
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
}
