//! Models from a folder of metadata: `config.json` and `tensors.json.gz` (`[file, name, dtype,
//! shape]`).

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage, config};
use serde_json::Value;

/// Maximum size of an unpacked tensor list.
const MAX_BYTES: u64 = 256 << 20;

/// Loads a model of the folder, with `patch` merged into its configuration.
pub(crate) fn load(root: &Path, repo: &str, patch: &Value) -> Result<Model, String> {
    let folder = root.join("models").join(repo);
    let read_json = |name: &str| -> Result<Option<Value>, String> {
        let file = folder.join(name);
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{}: {error}", file.display()))
    };

    let mut settings =
        read_json("config.json")?.ok_or_else(|| format!("no {repo} in the folder"))?;
    merge(&mut settings, patch);
    let quantization = read_json("hf_quant_config.json")?;
    let tensors = folder.join("tensors.json.gz");
    let mut text = String::new();
    let file =
        fs::File::open(&tensors).map_err(|error| format!("{}: {error}", tensors.display()))?;
    GzDecoder::new(file)
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| format!("{repo}: {error}"))?;
    let rows: Vec<(String, String, String, Vec<u64>)> =
        serde_json::from_str(&text).map_err(|error| format!("{repo}: {error}"))?;
    let mut builder = InventoryBuilder::default();
    for (_, name, dtype, shape) in &rows {
        add(&mut builder, name, dtype, shape);
    }

    Ok(model(
        repo,
        &settings,
        quantization.as_ref(),
        builder.finish(),
    ))
}

/// Adds a tensor by its safetensors dtype.
pub(crate) fn add(builder: &mut InventoryBuilder, name: &str, dtype: &str, shape: &[u64]) {
    let elements = shape.iter().product();
    let Some((known, bytes)) =
        Dtype::from_safetensors(dtype).and_then(|dtype| Some((dtype, dtype.stored(elements)?)))
    else {
        return;
    };

    builder.add("", name, Storage::Known(known), shape, bytes);
}

/// A model of a configuration and its tensors.
pub(crate) fn model(
    repo: &str,
    settings: &Value,
    quantization: Option<&Value>,
    inventory: Inventory,
) -> Model {
    Model::bare(
        repo,
        Format::Safetensors,
        config::architecture(settings, quantization, &inventory),
        inventory,
    )
}

fn merge(into: &mut Value, patch: &Value) {
    if let (Value::Object(into), Value::Object(patch)) = (into, patch) {
        for (key, value) in patch {
            into.insert(key.clone(), value.clone());
        }
    }
}
