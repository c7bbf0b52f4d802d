//! From metadata to [`Model`]: no file, no network, the same for the Hub, a folder, a bundle and a
//! client's upload.

use serde_json::Value;

use super::{Evidence, MAX_VARIANTS, Metadata, PARAMETERS, RecordError, Variant, doubts};
use crate::bytes::Bytes;
use crate::model::config::parameters::logical_parameters;
use crate::model::variant::{FileVariant, Known};
use crate::model::weight_files::known_sizes;
use crate::model::{
    Adapter, Architecture, Format, Inventory, Model, PipelineComponent, Unsupported, config, gguf,
};

/// Makes the model that `metadata` describes.
///
/// An adapter becomes the model that it changes, with the adapter beside it.
pub fn assemble(metadata: &Metadata) -> Result<Model, RecordError> {
    match &metadata.base {
        Some(base) => {
            let base_model = alone(base)?;
            let contradiction = contradiction(metadata).or(base_model.contradiction);
            Ok(Model {
                adapter: Some(adapter(metadata, base)?),
                contradiction,
                ..base_model
            })
        }
        None => alone(metadata),
    }
}

/// The adapter that `metadata` describes, on `base`.
fn adapter(metadata: &Metadata, base: &Metadata) -> Result<Adapter, RecordError> {
    let config = metadata.documents.get("adapter_config.json");
    let key = |name: &str| config.and_then(|config| config.get(name));
    let inventory = metadata.inventory()?;

    // One module may have a rank of its own.
    let ranks = key("rank_pattern")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(_, rank)| rank);
    let rank = key("r")
        .into_iter()
        .chain(ranks)
        .filter_map(Value::as_u64)
        .max();

    let method = key("peft_type")
        .and_then(Value::as_str)
        .unwrap_or("LORA")
        .to_ascii_uppercase();
    let saves = key("modules_to_save")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();

    Ok(Adapter {
        identity: metadata.identity.clone(),
        base_gated: base.gated,
        method,
        rank,
        dora: key("use_dora").and_then(Value::as_bool).unwrap_or(false),
        saves: saves
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect(),
        inventory,
    })
}

fn alone(metadata: &Metadata) -> Result<Model, RecordError> {
    let inventory = metadata.inventory()?;
    let (architecture, ignored) = architecture(metadata, &inventory);

    let unreadable = metadata
        .unreadable
        .iter()
        .map(|(path, why)| format!("{path}: {why}"));
    let doubts = doubts::bounded(
        metadata
            .doubts
            .iter()
            .cloned()
            .chain(unreadable)
            .chain(ignored),
    );

    let proofs = match metadata.evidence {
        Evidence::Proved { read: 0, .. } => {
            vec![
                "no header was read; configuration, names, file lengths and the Hub's totals prove every tensor".into(),
            ]
        }
        Evidence::Proved { read, of } => {
            vec![format!(
                "{read} of {of} headers were read; index, file lengths and totals prove the others"
            )]
        }
        _ => Vec::new(),
    };

    let components = components(metadata, &inventory);
    let quantization = architecture
        .as_ref()
        .ok()
        .and_then(|architecture| architecture.quantization.as_ref());

    // Packing can only be undone where the configuration was understood; pickles do not tell their
    // types.
    let parameters = match (metadata.format, &architecture) {
        (Format::PytorchBin, _) => None,
        (Format::Safetensors, Err(_)) if metadata.says_quantised() => None,
        _ => logical_parameters(&inventory, quantization),
    };

    Ok(Model {
        identity: metadata.identity.clone(),
        format: metadata.format,
        weight_files: u32::try_from(metadata.files.len()).unwrap_or(u32::MAX),
        architecture,
        components,
        parameters,
        inventory,
        adapter: None,
        variants: variants(metadata)?,
        proofs,
        contradiction: contradiction(metadata),
        doubts,
    })
}

fn contradiction(metadata: &Metadata) -> Option<String> {
    metadata.contradiction.clone().map(doubts::shortened)
}

/// The architecture, and what of the configuration was not used.
fn architecture(
    metadata: &Metadata,
    inventory: &Inventory,
) -> (Result<Architecture, Unsupported>, Vec<String>) {
    if let (Format::Safetensors | Format::PytorchBin, Some(config)) =
        (metadata.format, metadata.config())
    {
        let quantization = metadata.documents.get("hf_quant_config.json");
        return config::architecture_and_warnings(config, quantization, inventory);
    }

    (without_configuration(metadata, inventory), Vec::new())
}

fn without_configuration(
    metadata: &Metadata,
    inventory: &Inventory,
) -> Result<Architecture, Unsupported> {
    match metadata.format {
        Format::Diffusers => Err(Unsupported::NoConfiguration),
        _ if metadata.documents.contains_key("adapter_config.json")
            && metadata.config().is_none() =>
        {
            let key = "base_model_name_or_path".to_owned();
            Err(Unsupported::Missing {
                class: "adapter_config.json".to_owned(),
                key,
            })
        }
        Format::Gguf => {
            let header = metadata.gguf.clone().ok_or(Unsupported::NoConfiguration)?;
            let whole = gguf::Gguf {
                inventory: inventory.clone(),
                ..header
            };

            match no_model(whole.content()) {
                Some((class, is)) => {
                    let key = format!("general.type ({is})");
                    Err(Unsupported::Family {
                        class: class.to_owned(),
                        model_type: "GGUF".to_owned(),
                        key,
                    })
                }
                None => gguf::architecture(&whole),
            }
        }
        Format::Safetensors | Format::PytorchBin => match metadata.unreadable.get("config.json") {
            Some(why) => Err(Unsupported::Contradiction {
                key: "config.json".into(),
                value: String::new(),
                why: doubts::shortened(why.clone()),
            }),
            None => Err(Unsupported::NoConfiguration),
        },
    }
}

/// What a GGUF file is that is no model by itself.
fn no_model(content: gguf::Content) -> Option<(&'static str, &'static str)> {
    match content {
        gguf::Content::Model => None,
        gguf::Content::Projector => Some(("projector", "it belongs to a model: ask for that one")),
        gguf::Content::Adapter => Some((
            "adapter",
            "it changes a model and is none by itself: ask for that one",
        )),
        gguf::Content::Vocabulary => Some(("vocabulary", "the file has no tensors")),
        gguf::Content::Other => Some(("no model", "an importance matrix or the like")),
    }
}

/// The models of a repository of several, the one that was read whole among them.
fn variants(metadata: &Metadata) -> Result<Vec<FileVariant>, RecordError> {
    if metadata.variants.is_empty() {
        return Ok(Vec::new());
    }

    if metadata.variants.len() > MAX_VARIANTS {
        return Err(RecordError::TooManyVariants);
    }

    let itself = FileVariant::new(&metadata.files, Known::Itself);
    let others = metadata.variants.iter().map(Variant::assembled);

    std::iter::once(Ok(itself)).chain(others).collect()
}

fn components(metadata: &Metadata, inventory: &Inventory) -> Vec<PipelineComponent> {
    let bytes = inventory.bytes_by_component();
    let config = |name: &str| -> Option<Value> {
        metadata
            .documents
            .get(&format!("{name}/config.json"))
            .map(brief)
    };

    let component = |component: &crate::model::weight_files::Component| PipelineComponent {
        name: component.name.clone(),
        class: component.class.clone(),
        bytes: bytes
            .get(component.name.as_str())
            .copied()
            .unwrap_or(Bytes::ZERO),
        config: config(&component.name)
            .or_else(|| known_sizes::sizes(&component.class, &component.name, inventory)),
    };

    let parameters = metadata
        .documents
        .get(PARAMETERS)
        .map(|parameters| PipelineComponent {
            name: "parameters".into(),
            class: "ollama".into(),
            bytes: Bytes::ZERO,
            config: Some(parameters.clone()),
        });

    metadata
        .components
        .iter()
        .map(component)
        .chain(projector(metadata))
        .chain(parameters)
        .collect()
}

/// The numbers, switches, words and short lists of numbers of a component's configuration: all that
/// is ever asked of it. Anyone may have written the rest, of any length, and a known model is to be
/// small.
fn brief(config: &Value) -> Value {
    const MAX_TEXT_BYTES: usize = 128;
    const MAX_ENTRIES: usize = 256;

    let is_brief = |value: &Value| match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_TEXT_BYTES,
        Value::Array(list) => {
            list.len() <= 64 && list.iter().all(|item| item.is_number() || item.is_null())
        }
        Value::Object(_) => false,
    };

    let entries = config.as_object().into_iter().flatten();
    let kept = entries
        .filter(|(key, value)| key.len() <= MAX_TEXT_BYTES && is_brief(value))
        .take(MAX_ENTRIES);

    kept.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The projector beside a GGUF model, as the component that llama.cpp counts: `-hf` loads one where
/// there is one (`common/arg.cpp`). Of several the largest, for which one is taken is not known
/// here.
fn projector(metadata: &Metadata) -> Option<PipelineComponent> {
    let beside = |(path, _): &&(String, Option<u64>)| metadata.projectors.contains(path);
    let sized = |(path, bytes): &(String, Option<u64>)| Some(((*bytes)?, path.clone()));

    let (bytes, path) = metadata
        .siblings
        .iter()
        .filter(beside)
        .filter_map(sized)
        .max()?;

    Some(PipelineComponent {
        name: "mmproj".into(),
        class: path,
        bytes: Bytes::new(bytes),
        config: None,
    })
}
