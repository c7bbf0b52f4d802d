//! Figures of Whisper models.

mod arguments;
mod figures;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::bytes::Bytes;
use crate::engines::component::device_sum;
use crate::engines::sample::{components, device, sum, tokens};
use crate::engines::{
    AskedWorkload, Component, ComponentName, DeviceSupport, Interval, LaunchPlan, Split, Workload,
    by_name, prepare,
};
use crate::model::ctranslate2::sample::WhisperSizes;
use crate::model::ctranslate2::{Reading, Walk, Walked, Window, whisper};
use crate::model::{Dtype, Inventory};

/// Reads the model of `sizes`.
pub(super) fn walked(sizes: WhisperSizes) -> Walked {
    let file = sizes.file();
    let mut walk = Walk::new(file.length, Reading::Predicted);
    while let Some(Window { start, bytes }) = walk.window() {
        walk.feed(&file.window(start, bytes)).unwrap();
    }

    walk.finish().unwrap()
}

/// The tensors of the model of `sizes`.
pub(super) fn inventory(sizes: WhisperSizes) -> Inventory {
    walked(sizes).inventory
}

pub(super) fn model(sizes: WhisperSizes) -> Model {
    let Walked {
        model, inventory, ..
    } = walked(sizes);
    let architecture = whisper::architecture(&model, &inventory);

    Model::bare("owner/name", Format::Ctranslate2, architecture, inventory)
}

pub(super) fn parameters(given: &[(&str, Value)]) -> BTreeMap<String, Value> {
    given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// The engine prepared for `sizes` with `given` parameters, through the rules for all engines.
pub(super) fn prepared<R>(
    (sizes, device): (WhisperSizes, DeviceFacts),
    given: &[(&str, Value)],
    asked: AskedWorkload,
    act: impl FnOnce(&dyn PreparedEngine, &DeviceFacts) -> R,
) -> Result<R, EngineError> {
    let (model, parameters) = (model(sizes), parameters(given));
    let devices = [device];
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked,
        devices: &devices,
    };
    let prepared = prepare(&Ctranslate2, &request)?;

    Ok(act(&*prepared, &devices[0]))
}

/// All components on an H100.
pub(super) fn figures(
    sizes: WhisperSizes,
    given: &[(&str, Value)],
) -> Result<Vec<Component>, EngineError> {
    let asked = AskedWorkload::default();
    prepared((sizes, device()), given, asked, |prepared, _| {
        components(prepared, &Split::single(1), 0)
    })
}

pub(super) fn likely(sizes: WhisperSizes, given: &[(&str, Value)], name: ComponentName) -> u64 {
    sum(&figures(sizes, given).unwrap(), name).likely.get()
}

pub(super) fn cache(sizes: WhisperSizes, given: &[(&str, Value)]) -> Interval {
    sum(&figures(sizes, given).unwrap(), ComponentName::KvCache)
}
