//! Models and devices for the engines' tests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    AskedContext, AskedWorkload, Component, ComponentName, Engine, EngineError, EngineRequest,
    EngineVersion, Interval, PreparedEngine, Split,
};
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::model::tensors::InventoryBuilder;
use crate::model::{Dtype, Format, Identity, Inventory, Model, PipelineComponent, Storage, config};

/// An 80 GB card of compute capability 9.0.
pub(super) fn device() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-1".to_owned(),
        index: 0,
        name: "H100".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(80),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// Tensors of (component, name, dtype, shape).
pub(crate) fn inventory(tensors: &[(&str, &str, Dtype, &[u64])]) -> Inventory {
    let mut builder = InventoryBuilder::default();
    for (component, name, dtype, shape) in tensors {
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add(component, name, Storage::Known(*dtype), shape, bytes);
    }
    builder.finish()
}

/// A safetensors model of a configuration.
pub(crate) fn model(config: &Value, inventory: Inventory) -> Model {
    let architecture = config::architecture(config, None, &Inventory::default());
    let model = Model::bare("owner/name", Format::Safetensors, architecture, inventory);
    let identity = Identity {
        commit: Some("c0ffee".to_owned()),
        ..model.identity
    };

    Model { identity, ..model }
}

/// A diffusers pipeline of (name, class, configuration).
pub(super) fn pipeline(components: &[(&str, &str, Value)], inventory: Inventory) -> Model {
    let to_component = |(name, class, config): &(&str, &str, Value)| PipelineComponent {
        name: (*name).to_owned(),
        class: (*class).to_owned(),
        bytes: inventory
            .bytes_by_component()
            .get(name)
            .copied()
            .unwrap_or(Bytes::ZERO),
        config: Some(config.clone()),
    };

    let components = components.iter().map(to_component).collect();
    Model {
        format: Format::Diffusers,
        components,
        ..model(&Value::Null, inventory)
    }
}

/// A requested workload of `context` tokens.
pub(super) fn tokens(context: u64) -> AskedWorkload {
    AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        ..AskedWorkload::default()
    }
}

/// An engine prepared on [`device`] for a version and parameters.
pub(super) fn prepare<'a>(
    engine: &dyn Engine,
    model: &'a Model,
    asked: AskedWorkload,
    (version, parameters): (Option<&str>, &'a BTreeMap<String, Value>),
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    // The request borrows device and version for as long as the model, so tests leak one of each.
    let version: Option<&'a EngineVersion> =
        version.map(|text| &*Box::leak(Box::new(text.parse().unwrap())));
    let devices: &'a [DeviceFacts] = Box::leak(Box::new([device()]));

    engine.prepare(&EngineRequest {
        model,
        version,
        parameters,
        asked,
        devices,
    })
}

/// All components of a rank.
pub(super) fn components(
    prepared: &dyn PreparedEngine,
    split: &Split,
    rank: usize,
) -> Vec<Component> {
    let mut parts = prepared.fixed(split, rank, &device()).unwrap();
    parts.extend(
        prepared
            .variable(split, rank, &device(), prepared.workload())
            .unwrap(),
    );

    parts
}

/// The sum of the components of one name.
pub(super) fn sum(parts: &[Component], name: ComponentName) -> Interval {
    parts
        .iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum()
}
