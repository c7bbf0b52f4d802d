//! Keyword arguments of the Python libraries: names checked, values read by kind, Python literals written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EngineError, nearest_name};
use crate::bytes::Bytes;
use crate::devices::DeviceFacts;
use crate::engines::{Basis, Component, ComponentName, Interval};

/// Parameters as given, every name known.
#[derive(Clone, Debug)]
pub(super) struct Options<'a> {
    engine: &'static str,
    values: &'a BTreeMap<String, Value>,
}

impl<'a> Options<'a> {
    /// Refuses names that the engine does not have.
    pub(super) fn new(
        engine: &'static str,
        known: &[&str],
        values: &'a BTreeMap<String, Value>,
    ) -> Result<Self, EngineError> {
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self { engine, values }),
            Some(name) => {
                let nearest = nearest_name(name, known.iter().copied());
                Err(EngineError::UnknownParameter { engine, name: name.clone(), nearest })
            }
        }
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The error for a value of `name`.
    pub(super) fn bad(&self, name: &str, why: &str) -> EngineError {
        let value = self.value(name).map_or_else(String::new, ToString::to_string);
        EngineError::BadParameter { engine: self.engine, name: name.to_owned(), value, why: why.to_owned() }
    }

    /// A whole number of at least 1 and at most 2^32; digits in a string count as one.
    pub(super) fn positive(&self, name: &str) -> Result<Option<u64>, EngineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        match number {
            Some(number @ 1..=0x1_0000_0000) => Ok(Some(number)),
            _ => Err(self.bad(name, "a whole number of at least 1 is expected")),
        }
    }

    /// A truth value, also as `true`, `True`, `1`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let word = value.as_str().map(str::to_ascii_lowercase);
        match (value, word.as_deref()) {
            (Value::Bool(flag), _) => Ok(Some(*flag)),
            (_, Some("true" | "1")) => Ok(Some(true)),
            (_, Some("false" | "0")) => Ok(Some(false)),
            _ => Err(self.bad(name, "true or false is expected")),
        }
    }

    /// One of `choices`.
    pub(super) fn choice(&self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>, EngineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let chosen = value.as_str().and_then(|word| choices.iter().find(|choice| **choice == word));
        chosen
            .map(|choice| Some(*choice))
            .ok_or_else(|| self.bad(name, &format!("one of {} is expected", choices.join(", "))))
    }

    /// A number, not negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, EngineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        match number.filter(|number| number.is_finite() && *number >= 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.bad(name, "a number of at least 0 is expected")),
        }
    }
}

/// A Python string literal; JSON's escapes are Python's too.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The CUDA context of one torch process: 3.0 MiB for each multiprocessor and 150 to 250 MiB of kernels as they load.
///
/// Fitted to published start-up readings: 107 MiB bare on 34 multiprocessors (ggml-org/llama.cpp PR 23604), 256 MiB
/// with torch on 82 (invoke-ai/InvokeAI 9413), 510 to 530 MiB on an H100 in vLLM's start-up lines.
pub(super) fn cuda_context(device: &DeviceFacts) -> Component {
    let detail = match device.multiprocessors {
        Some(count) => format!("3 MiB x {count} multiprocessors and the libraries' kernels"),
        None => "multiprocessors not known".to_owned(),
    };
    Component::between(ComponentName::Context, cuda_context_bytes(device), Basis::Calibrated, detail)
}

/// The bytes of [`cuda_context`].
pub(super) fn cuda_context_bytes(device: &DeviceFacts) -> Interval {
    match device.multiprocessors {
        Some(count) => {
            let base = Bytes::mib(3) * u64::from(count);
            Interval::new(base, base + Bytes::mib(200), base + Bytes::mib(350))
        }
        None => Interval::new(Bytes::mib(110), Bytes::mib(500), Bytes::mib(800)),
    }
}

/// cuBLAS's workspace in torch: 32 MiB from compute capability 9.0 on, 8,519,680 bytes below, and cuBLASLt's
/// (PyTorch `aten/src/ATen/cuda/CUDABlas.cpp`, `parseChosenWorkspaceSize`).
pub(super) fn cublas(device: &DeviceFacts) -> Interval {
    match device.capability() {
        Some(capability) if capability < 90 => Interval::new(Bytes::new(8_519_680), Bytes::mib(12), Bytes::mib(16)),
        _ => Interval::new(Bytes::mib(8), Bytes::mib(64), Bytes::mib(64)),
    }
}
