//! Assembles a [`Model`] from metadata, without files or network.
//!
//! The result is the same for the Hub, a folder, a bundle and a client's upload.

use serde_json::Value;

use super::{Evidence, MAX_VARIANTS, Metadata, PARAMETERS, RecordError, Variant, warnings};
use crate::bytes::Bytes;
use crate::model::config::parameters::logical_parameters;
use crate::model::variant::{FileVariant, Known};
use crate::model::weight_files::{asks_for_pooling, known_sizes};
use crate::model::{
    Adapter, Architecture, Format, Inventory, Model, PipelineComponent, Unsupported, config,
    ctranslate2, gguf,
};

/// Longest key or text that is kept of a component's configuration.
const MAX_TEXT_BYTES: usize = 128;

/// Makes the model that `metadata` describes.
///
/// An adapter becomes its base model, with [`Model::adapter`] set.
pub fn assemble(metadata: &Metadata) -> Result<Model, RecordError> {
    match &metadata.base {
        Some(base) => {
            let base_model = single_model(base)?;
            let contradiction = contradiction(metadata).or(base_model.contradiction);
            Ok(Model {
                adapter: Some(adapter(metadata, base)?),
                contradiction,
                ..base_model
            })
        }
        None => single_model(metadata),
    }
}

/// Reads the adapter that `metadata` describes, on the model of `base`.
fn adapter(metadata: &Metadata, base: &Metadata) -> Result<Adapter, RecordError> {
    let config = metadata
        .documents
        .get("adapter_config.json")
        .unwrap_or(&Value::Null);
    let inventory = metadata.inventory()?;

    // `rank_pattern` overrides the rank of single modules.
    let ranks = config
        .get("rank_pattern")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(_, rank)| rank);
    let rank = config
        .get("r")
        .into_iter()
        .chain(ranks)
        .filter_map(Value::as_u64)
        .max();

    let method = config
        .get("peft_type")
        .and_then(Value::as_str)
        .unwrap_or("LORA")
        .to_ascii_uppercase();
    let saves = config
        .get("modules_to_save")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();

    Ok(Adapter {
        identity: metadata.identity.clone(),
        base_gated: base.gated,
        method,
        rank,
        dora: config
            .get("use_dora")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        saves: saves
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect(),
        inventory,
    })
}

fn single_model(metadata: &Metadata) -> Result<Model, RecordError> {
    let inventory = metadata.inventory()?;
    let (architecture, ignored) = architecture(metadata, &inventory);

    let unreadable = metadata
        .unreadable
        .iter()
        .map(|(path, why)| format!("{path}: {why}"));
    let warnings = warnings::bounded(
        metadata
            .warnings
            .iter()
            .cloned()
            .chain(unreadable)
            .chain(ignored),
    );

    let assumptions = match metadata.evidence {
        Evidence::Inferred { read: 0, .. } => vec![
            "no header was read; every tensor was inferred from the configuration, names, file \
             lengths and the Hub's totals"
                .into(),
        ],
        Evidence::Inferred { read, of } if metadata.format == Format::Ctranslate2 => {
            vec![format!(
                "the headers of {read} of {of} variables were read; the others are those of the \
                 same layers, which end where the next header was found"
            )]
        }
        Evidence::Inferred { read, of } => vec![format!(
            "{read} of {of} headers were read; the others were inferred from the index, file \
             lengths and totals"
        )],
        _ => Vec::new(),
    };

    let components = components(metadata, &inventory);
    let quantization = architecture
        .as_ref()
        .ok()
        .and_then(|architecture| architecture.quantization.as_ref());

    // Packed weights can only be unpacked if the configuration is known, and pickles do not state
    // their types.
    let parameters = match (metadata.format, &architecture) {
        (Format::PytorchBin, _) | (Format::Ctranslate2, Err(_)) => None,
        (Format::Ctranslate2, Ok(_)) => Some(ctranslate2::parameters(&inventory)),
        (Format::Safetensors, Err(_)) if metadata.states_quantization() => None,
        _ => logical_parameters(&inventory, quantization),
    };

    Ok(Model {
        identity: metadata.identity.clone(),
        format: metadata.format,
        weight_files: u32::try_from(metadata.files.len()).unwrap_or(u32::MAX),
        architecture,
        components,
        asks_for_pooling: metadata
            .documents
            .get("modules.json")
            .is_some_and(asks_for_pooling),
        parameters,
        inventory,
        adapter: None,
        draft: None,
        variants: variants(metadata)?,
        assumptions,
        contradiction: contradiction(metadata),
        warnings,
    })
}

fn contradiction(metadata: &Metadata) -> Option<String> {
    metadata.contradiction.clone().map(warnings::shortened)
}

/// Reads the architecture, and lists the values of the configuration that were ignored.
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

            match describe_other_content(whole.content()) {
                Some((class, description)) => {
                    let key = format!("general.type ({description})");
                    Err(Unsupported::Family {
                        class: class.to_owned(),
                        model_type: "GGUF".to_owned(),
                        key,
                    })
                }
                None => gguf::architecture(&whole),
            }
        }
        Format::Ctranslate2 => {
            let model = metadata.ctranslate2.as_ref();
            let model = model.ok_or(Unsupported::NoConfiguration)?;
            check_quantization_type(metadata)?;

            ctranslate2::whisper::architecture(model, inventory)
        }
        Format::Safetensors | Format::PytorchBin => match metadata.unreadable.get("config.json") {
            Some(why) => Err(Unsupported::Contradiction {
                key: "config.json".into(),
                value: String::new(),
                why: warnings::shortened(why.clone()),
            }),
            None => Err(Unsupported::NoConfiguration),
        },
    }
}

/// Checks that CTranslate2's configuration names no packing of weights (AWQ), whose tensors have
/// other sizes than their shapes state (CTranslate2 `model.cc`, `set_quant_method`).
fn check_quantization_type(metadata: &Metadata) -> Result<(), Unsupported> {
    let packing = metadata
        .config()
        .and_then(|config| config.get("quantization_type"))
        .and_then(Value::as_u64);

    match packing {
        None | Some(0) => Ok(()),
        Some(packing) => Err(Unsupported::Contradiction {
            key: "quantization_type".to_owned(),
            value: packing.to_string(),
            why: "packed weights (AWQ) of CTranslate2 are not counted".to_owned(),
        }),
    }
}

/// Returns the kind and a description of a GGUF file that is not a model by itself.
fn describe_other_content(content: gguf::Content) -> Option<(&'static str, &'static str)> {
    match content {
        gguf::Content::Model => None,
        gguf::Content::Projector => Some((
            "projector",
            "it is a part of a model; request that model instead",
        )),
        gguf::Content::Adapter => Some((
            "adapter",
            "it changes a base model; request that model instead",
        )),
        gguf::Content::Vocabulary => Some(("vocabulary", "the file has no tensors")),
        gguf::Content::Other => Some(("no model", "an importance matrix or similar file")),
    }
}

/// Returns all models of a repository with several, including the one that was read as a whole.
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
    let make_component = |component: &crate::model::weight_files::Component| {
        let document = format!("{}/config.json", component.name);
        PipelineComponent {
            name: component.name.clone(),
            class: component.class.clone(),
            bytes: bytes
                .get(component.name.as_str())
                .copied()
                .unwrap_or(Bytes::ZERO),
            config: metadata
                .documents
                .get(&document)
                .map(brief)
                .or_else(|| known_sizes::sizes(&component.class, &component.name, inventory)),
        }
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
        .map(make_component)
        .chain(projector(metadata))
        .chain(parameters)
        .collect()
}

/// Reduces a component's configuration to its numbers, flags, words and short lists of them.
///
/// Nothing else of it is ever used. Anyone may have written the rest, of any length, and a model
/// must be small.
fn brief(config: &Value) -> Value {
    const MAX_ENTRIES: usize = 256;
    let entries = config.as_object().into_iter().flatten();
    let kept = entries
        .filter(|(key, value)| key.len() <= MAX_TEXT_BYTES && is_brief(value))
        .take(MAX_ENTRIES);

    kept.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn is_brief(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_TEXT_BYTES,
        Value::Array(list) => {
            let is_short = |item: &Value| item.as_str().is_some_and(|word| word.len() <= 64);
            let are_numbers = list.iter().all(|item| item.is_number() || item.is_null());
            let are_words = list.len() <= 16 && list.iter().all(is_short);
            list.len() <= 64 && (are_numbers || are_words)
        }
        Value::Object(_) => false,
    }
}

/// Returns the projector of a GGUF model, as the component that llama.cpp counts.
///
/// `-hf` loads a projector if the repository has one (`common/arg.cpp`). If there are several, the
/// largest one is counted, because llama.cpp's choice is unknown here.
fn projector(metadata: &Metadata) -> Option<PipelineComponent> {
    let (bytes, path) = metadata
        .siblings
        .iter()
        .filter(|(path, _)| metadata.projectors.contains(path))
        .filter_map(|(path, bytes)| Some(((*bytes)?, path.clone())))
        .max()?;

    Some(PipelineComponent {
        name: "mmproj".into(),
        class: path,
        bytes: Bytes::new(bytes),
        config: None,
    })
}
