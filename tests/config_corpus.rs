//! Every configuration of the optional corpus of real metadata (`../shared/hub/models`) is read, or refused for a reason.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use hf_mem_probe::bytes::Bytes;
use hf_mem_probe::model::architecture::{Architecture, Mixer, Span, Task, Unsupported};
use hf_mem_probe::model::config::architecture;
use hf_mem_probe::model::tensors::InventoryBuilder;
use hf_mem_probe::model::{Dtype, Inventory, Storage};
use serde_json::Value;

struct Entry {
    name: String,
    config: Value,
    quantization: Option<Value>,
    inventory: Inventory,
}

fn corpus() -> Option<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models");
    if models.is_dir() {
        return Some(models);
    }
    println!("skipped: ../shared/hub/models is not there");
    None
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_reader(File::open(path).ok()?).ok()
}

/// All entries with a `config.json`; only the weights at the root of a repository belong to it.
fn entries(models: &Path) -> Vec<Entry> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for owner in fs::read_dir(models).unwrap().flatten() {
        folders.extend(fs::read_dir(owner.path()).unwrap().flatten().map(|entry| entry.path()));
    }
    folders.sort();
    let entry = |folder: &PathBuf| {
        let config = json(&folder.join("config.json"))?;
        let tensors = GzDecoder::new(File::open(folder.join("tensors.json.gz")).ok()?);
        let tensors: Vec<(String, String, String, Vec<u64>)> = serde_json::from_reader(tensors).ok()?;
        let mut builder = InventoryBuilder::default();
        for (file, name, dtype, shape) in tensors {
            let component = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let elements = Bytes::product(shape.iter().copied()).get();
            let (storage, bytes) = match Dtype::from_safetensors(&dtype) {
                Some(dtype) => (Storage::Known(dtype), dtype.stored(elements).unwrap()),
                None => (Storage::Unknown(dtype.into()), Bytes::new(elements)),
            };
            builder.add(component, &name, storage, &shape, bytes);
        }
        Some(Entry {
            name: folder.strip_prefix(models).unwrap().display().to_string(),
            config,
            quantization: json(&folder.join("hf_quant_config.json")),
            inventory: builder.finish(),
        })
    };
    folders.iter().filter_map(entry).collect()
}

/// Elements that the layers keep for each token without a bound, times two bytes: a check on shapes, not an engine.
fn unbounded_elements(architecture: &Architecture) -> u64 {
    let mixers = architecture.mixers(0..architecture.layer_count());
    mixers
        .map(|mixer| match mixer {
            Mixer::Attention(attention) if attention.span == Span::Full && !attention.shares_cache => {
                attention.kv_heads * (attention.key_dim + attention.value_dim)
            }
            Mixer::Latent(latent) if latent.compress_ratio.is_none() => latent.kv_lora_rank + latent.rope_dim,
            _ => 0,
        })
        .sum()
}

fn read(entry: &Entry) -> Result<Architecture, Unsupported> {
    architecture(&entry.config, entry.quantization.as_ref(), &entry.inventory)
}

#[test]
fn every_language_model_is_read_or_refused_for_a_reason() {
    let Some(models) = corpus() else { return };
    let (mut read_count, mut refused) = (0, Vec::new());
    for entry in entries(&models) {
        match read(&entry) {
            Ok(architecture) => {
                read_count += 1;
                println!(
                    "{:60} {:22} {:?} L {:3} kv/token {:8} elements, context {:?}, rope {:?}, mtp {}, experts {:?}, {}",
                    entry.name,
                    architecture.model_type,
                    architecture.task,
                    architecture.layers.len(),
                    unbounded_elements(&architecture),
                    architecture.max_context,
                    architecture.rope.iter().map(|rope| (rope.positions, rope.rotary_dim)).collect::<Vec<_>>(),
                    architecture.mtp_layers,
                    architecture.experts.map(|experts| (experts.count, experts.active, experts.width)),
                    architecture.quantization.as_ref().map_or("-", |quantization| &quantization.method),
                );
            }
            Err(why) => refused.push(format!("{}: {why}", entry.name)),
        }
    }
    println!("{read_count} read, {} refused", refused.len());
    for line in &refused {
        println!("refused  {line}");
    }
    let all = read_count + refused.len();
    assert!(read_count * 100 >= all * 97, "{read_count} of {all} read: {refused:#?}");
    let _ = (Task::Generate, BTreeMap::<u8, u8>::new());
}
