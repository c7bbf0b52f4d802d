//! From metadata to [`Model`]: no file, no network, the same for the Hub, a folder, a bundle and a client's upload.

use serde_json::Value;

use super::{Evidence, Metadata, RecordError};
use crate::bytes::Bytes;
use crate::model::config::parameters::logical_parameters;
use crate::model::{Architecture, Format, Inventory, Model, PipelineComponent, Unsupported, config, gguf};

/// Makes the model that `metadata` describes.
pub fn assemble(metadata: &Metadata) -> Result<Model, RecordError> {
    let inventory = metadata.inventory()?;
    let mut doubts = metadata.doubts.clone();
    doubts.extend(metadata.unreadable.iter().map(|(path, why)| format!("{path}: {why}")));
    let proofs = match metadata.evidence {
        Evidence::Proved { read: 0, .. } => {
            vec![
                "no header was read; configuration, names, file lengths and the Hub's totals prove every tensor".into(),
            ]
        }
        Evidence::Proved { read, of } => {
            vec![format!("{read} of {of} headers were read; index, file lengths and totals prove the others")]
        }
        _ => Vec::new(),
    };
    let components = components(metadata, &inventory);
    let architecture = architecture(metadata, &inventory);
    let quantization = architecture.as_ref().ok().and_then(|architecture| architecture.quantization.as_ref());
    // Packing can only be undone where the configuration was understood; pickles do not tell their types.
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
        proofs,
        doubts,
    })
}

fn architecture(metadata: &Metadata, inventory: &Inventory) -> Result<Architecture, Unsupported> {
    match metadata.format {
        Format::Diffusers => Err(Unsupported::NoConfiguration),
        Format::Gguf => {
            let header = metadata.gguf.clone().ok_or(Unsupported::NoConfiguration)?;
            gguf::architecture(&gguf::Gguf { inventory: inventory.clone(), ..header })
        }
        Format::Safetensors | Format::PytorchBin => match (metadata.config(), metadata.unreadable.get("config.json")) {
            (Some(value), _) => config::architecture(value, metadata.documents.get("hf_quant_config.json"), inventory),
            (None, Some(why)) => {
                Err(Unsupported::Contradiction { key: "config.json".into(), value: String::new(), why: why.clone() })
            }
            (None, None) => Err(Unsupported::NoConfiguration),
        },
    }
}

fn components(metadata: &Metadata, inventory: &Inventory) -> Vec<PipelineComponent> {
    let bytes = inventory.bytes_by_component();
    let config = |name: &str| -> Option<Value> { metadata.documents.get(&format!("{name}/config.json")).cloned() };
    let component = |component: &crate::model::source::weights::Component| PipelineComponent {
        name: component.name.clone(),
        class: component.class.clone(),
        bytes: bytes.get(component.name.as_str()).copied().unwrap_or(Bytes::ZERO),
        config: config(&component.name),
    };
    metadata.components.iter().map(component).chain(projector(metadata)).collect()
}

/// The projector beside a GGUF model, as the component that llama.cpp counts: `-hf` loads one where there is one
/// (`common/arg.cpp`). Of several the largest, for which one is taken is not known here.
fn projector(metadata: &Metadata) -> Option<PipelineComponent> {
    let beside = |(path, _): &&(String, Option<u64>)| metadata.projectors.contains(path);
    let sized = |(path, bytes): &(String, Option<u64>)| Some(((*bytes)?, path.clone()));
    let (bytes, path) = metadata.siblings.iter().filter(beside).filter_map(sized).max()?;
    Some(PipelineComponent { name: "mmproj".into(), class: path, bytes: Bytes::new(bytes), config: None })
}
