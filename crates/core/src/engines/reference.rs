//! The logical minimum: weights as stored, the cache of N tokens and recurrent states, without any
//! engine's overhead.
//!
//! It answers "what would a perfect engine need", as estimators that know no engine do. Nothing
//! runs it.

mod prepared_engine;

use std::collections::BTreeMap;

use serde_json::Value;

use super::compute_dtype::{dtype_name, model_dtype};
use super::layer_weights::{LayerBytes, LayerWeights};
use super::logical::{self, CacheElement};
use super::lora::{AdapterMemory, WithAdapter};
use super::{
    AskedContext, AskedWorkload, Engine, EngineError, EngineRequest, PreparedEngine, Split,
    Workload, companions, nearest_name,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::architecture::Architecture;
use crate::model::{Adapter, Dtype, Format, Model};

const NAME: &str = "reference";

/// vLLM's context if no key gives a length (`config/model.py`, `_get_and_verify_max_len`).
const CONTEXT_WITHOUT_KEYS: u64 = 2048;

/// The engine without overheads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Engine for Reference {
    fn name(&self) -> &'static str {
        NAME
    }

    fn context_by_host(
        &self,
        _model: &Model,
        _parameters: &BTreeMap<String, Value>,
        _devices: &[&DeviceFacts],
    ) -> Option<u64> {
        None
    }

    fn is_runnable(&self) -> bool {
        false
    }

    fn with_constants(
        &self,
        _constants: &toml::Table,
    ) -> Result<Option<Box<dyn Engine>>, EngineError> {
        Ok(None)
    }

    fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        if let Some(name) = request.parameters.keys().next() {
            let nearest = nearest_name(name, []);
            return Err(EngineError::UnknownParameter {
                engine: NAME,
                name: name.clone(),
                nearest,
            });
        }

        Ok(Box::new(ReferencePrepared::new(
            request.model,
            &request.asked,
        )?))
    }

    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let prepared = Engine::prepare(self, request)?;

        Ok(Box::new(WithAdapter::new(
            prepared,
            request,
            adapter,
            AdapterMemory::AsStored,
        )))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        _draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of the model itself comes first.
        Engine::prepare(self, request)?;
        Err(companions::no_draft(
            NAME,
            "the logical reference counts one model: ask for the draft on its own",
        ))
    }
}

struct ReferencePrepared<'a> {
    model: &'a Model,
    /// `None` for a diffusers pipeline: weights only.
    architecture: Option<&'a Architecture>,
    weights: LayerBytes,
    workload: Workload,
    element: CacheElement,
    element_name: String,
    dtype: Dtype,
    assumptions: Vec<String>,
}

impl<'a> ReferencePrepared<'a> {
    fn new(model: &'a Model, asked: &AskedWorkload) -> Result<Self, EngineError> {
        let architecture = match &model.architecture {
            Ok(architecture) => Some(architecture),
            Err(_) if model.format == Format::Diffusers => None,
            Err(why) => {
                return Err(EngineError::Unsupported {
                    engine: NAME,
                    why: why.to_string(),
                });
            }
        };

        let mut assumptions = Vec::new();
        let dtype = match asked.dtype.as_deref().filter(|name| *name != "auto") {
            Some(name) => compute_dtype(name)?,
            None => model_dtype(model.format, &model.inventory, architecture),
        };

        let (element_name, element) = match asked
            .kv_cache_dtype
            .as_deref()
            .filter(|name| *name != "auto")
        {
            Some(name) => (
                name.to_owned(),
                CacheElement::named(name).ok_or_else(|| bad_cache_dtype(name))?,
            ),
            None => (dtype_name(dtype).to_owned(), CacheElement::of(dtype)),
        };

        let wanted = architecture.and_then(|architecture| {
            architecture
                .quantization
                .as_ref()?
                .kv_cache_dtype
                .as_deref()
        });
        if let (Some(wanted), None) = (wanted, &asked.kv_cache_dtype) {
            assumptions.push(format!(
                "the cache is counted in {element_name}; the checkpoint itself asks for {wanted} (kv_cache_dtype={wanted})"
            ));
        }

        let max_context = architecture.and_then(|architecture| architecture.max_context);
        let context = match (asked.context, architecture, max_context) {
            (Some(AskedContext::Tokens(tokens)), _, _) => tokens,
            (_, None, _) => 0,
            (_, Some(_), Some(max_context)) => max_context,
            (_, Some(_), None) => {
                assumptions
                    .push(format!("the configuration gives no length: a context of {CONTEXT_WITHOUT_KEYS} is assumed"));
                CONTEXT_WITHOUT_KEYS
            }
        };

        if let Some(max_context) = max_context.filter(|max_context| context > *max_context) {
            assumptions.push(format!(
                "{context} tokens are more than the {max_context} that the model is configured for"
            ));
        }

        assumptions.push(
            "no engine: weights as stored, and of the cache the least that any supported engine \
             keeps, without any overhead"
                .to_owned(),
        );
        if let Some(architecture) = architecture {
            assume_encoder_length(architecture, &mut assumptions);
        }

        Ok(Self {
            model,
            architecture,
            weights: LayerWeights::new(
                &model.inventory,
                architecture.map_or(0, Architecture::layer_count),
            )
            .table(|class| class.bytes_each),
            workload: Workload {
                context,
                sequences: asked.sequences.unwrap_or(1),
            },
            element,
            element_name,
            dtype,
            assumptions,
        })
    }

    /// The number of layers.
    fn layers(&self) -> u32 {
        self.architecture.map_or(0, Architecture::layer_count)
    }

    /// Bytes of the cache and states of `rank`.
    fn cache_and_states(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<(Bytes, Bytes), EngineError> {
        let Some(architecture) = self.architecture else {
            return Ok((Bytes::ZERO, Bytes::ZERO));
        };

        let (_, layers) = split.stage_of(rank);
        let cache = logical::cache(architecture, layers.clone(), workload.context, self.element)
            * workload.sequences;
        let states = logical::states(architecture, layers, self.dtype) * workload.sequences;
        if cache.overflowed() || states.overflowed() {
            return Err(EngineError::Overflow { what: "cache" });
        }

        Ok((cache, states))
    }
}

/// Notes the encoder's length, which the question does not state.
fn assume_encoder_length(architecture: &Architecture, assumptions: &mut Vec<String>) {
    if let Some(encoder) = &architecture.encoder {
        assumptions.push(format!(
            "the encoder's input is as long as the model allows: {} positions",
            encoder.max_tokens
        ));
    }
}

fn compute_dtype(name: &str) -> Result<Dtype, EngineError> {
    match name {
        "bfloat16" | "bf16" => Ok(Dtype::BF16),
        "float16" | "half" | "fp16" => Ok(Dtype::F16),
        "float32" | "float" | "fp32" => Ok(Dtype::F32),
        other => Err(EngineError::BadParameter {
            engine: NAME,
            name: "dtype".to_owned(),
            value: other.to_owned(),
            why: "bfloat16, float16, float32 or auto is expected".to_owned(),
        }),
    }
}

fn bad_cache_dtype(name: &str) -> EngineError {
    EngineError::BadParameter {
        engine: NAME,
        name: "kv_cache_dtype".to_owned(),
        value: name.to_owned(),
        why: "not a cache dtype that any engine has; try auto, bfloat16, fp8 or q8_0".to_owned(),
    }
}

#[cfg(test)]
mod tests;
