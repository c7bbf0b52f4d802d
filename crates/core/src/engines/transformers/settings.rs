//! transformers' parameters in force: as asked, or defaults by version.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{NAME, profile_error};
use crate::engines::compute_dtype::{dtype_name, model_dtype};
use crate::engines::profile::Profile;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, EngineVersion, Workload};
use crate::model::Dtype;
use crate::model::architecture::{Architecture, Task};

/// transformers' parameters by name.
static PARAMETERS: ParameterList = ParameterList::new(
    NAME,
    include_str!("../profiles/parameters/transformers.toml"),
);

/// The dtypes that transformers computes in, by all their names.
const COMPUTE_DTYPES: &[(&str, Dtype)] = &[
    ("bfloat16", Dtype::BF16),
    ("float16", Dtype::F16),
    ("float32", Dtype::F32),
    ("bf16", Dtype::BF16),
    ("fp16", Dtype::F16),
    ("half", Dtype::F16),
    ("fp32", Dtype::F32),
    ("float", Dtype::F32),
];

/// The context of a model whose configuration gives none.
const DEFAULT_CONTEXT: u64 = 2048;

/// The parameters in force.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a parameter of the library, by itself"
)]
pub(super) struct TransformersSettings {
    /// The newest version with these rules.
    pub(super) profile: String,
    /// The dtype that weights are cast to and that the cache has.
    pub(super) dtype: Dtype,
    pub(super) workload: Workload,
    /// Whether attention materializes its scores.
    pub(super) eager: bool,
    /// `attn_implementation`.
    pub(super) attention: &'static str,
    pub(super) static_cache: bool,
    pub(super) use_cache: bool,
    /// Tokens of a prompt that pass through the model at once; all of them if unset.
    pub(super) prefill_chunk: Option<u64>,
    /// Whether the cache of latent families holds the latent, and not the heads expanded from it.
    pub(super) caches_latent: bool,
    /// Whether states of Mamba are in 32-bit floats.
    pub(super) scan_states_float32: bool,
    /// Whether states of delta rules are in 32-bit floats.
    pub(super) delta_states_float32: bool,
    pub(super) device_map: &'static str,
    pub(super) assumptions: Vec<String>,
}

impl TransformersSettings {
    /// Resolves every parameter for `request`.
    pub(super) fn new(
        request: &EngineRequest<'_>,
        architecture: &Architecture,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let flag = |name: &str| profile.flag(name).map_err(|error| profile_error(&error));
        let given = Parameters::new(&PARAMETERS, request.version, request.parameters)?;
        let version_4 = is_before(request.version, &[5]);
        let mut assumptions = Vec::new();

        let dtype = compute_dtype(request, architecture, version_4, &mut assumptions)?;
        let attention = given
            .choice(
                "attn_implementation",
                &["sdpa", "eager", "flash_attention_2", "flash_attention_3"],
            )?
            .unwrap_or("sdpa");

        let static_cache = given
            .choice("cache_implementation", &["dynamic", "static"])?
            .is_some_and(|cache| cache == "static");
        check_kv_cache_dtype(request, dtype)?;

        let context = context(request, architecture, &mut assumptions);
        assume_unpacking(architecture, &mut assumptions);

        if architecture.task != Task::Encode {
            assumptions
                .push("the whole context is taken to be prompt, prefilled in one step".to_owned());
        }

        Ok(Self {
            profile: profile.name.clone(),
            dtype,
            workload: Workload {
                context,
                sequences: request.asked.sequences.unwrap_or(1),
            },
            eager: attention == "eager",
            attention,
            static_cache,
            use_cache: given.flag("use_cache")?.unwrap_or(true),
            prefill_chunk: given.size("prefill_chunk_size")?,
            caches_latent: flag("caches_latent")?,
            scan_states_float32: flag("scan_states_float32")?,
            delta_states_float32: flag("delta_states_float32")?,
            device_map: given
                .choice(
                    "device_map",
                    &["auto", "balanced", "balanced_low_0", "sequential"],
                )?
                .unwrap_or("sequential"),
            assumptions,
        })
    }

    /// Bytes of an element of the compute dtype.
    pub(super) fn element_bytes(&self) -> u64 {
        self.dtype.block().1
    }

    /// The parameters that entered the figures, for the answer.
    pub(super) fn parameters(&self) -> BTreeMap<String, Value> {
        let cache = if self.static_cache {
            "static"
        } else {
            "dynamic"
        };

        BTreeMap::from([
            ("dtype".to_owned(), json!(dtype_name(self.dtype))),
            ("attn_implementation".to_owned(), json!(self.attention)),
            ("cache_implementation".to_owned(), json!(cache)),
            ("use_cache".to_owned(), json!(self.use_cache)),
            ("prefill_chunk_size".to_owned(), json!(self.prefill_chunk)),
            ("device_map".to_owned(), json!(self.device_map)),
        ])
    }
}

/// Whether the request names a version before `release`.
fn is_before(version: Option<&EngineVersion>, release: &[u32]) -> bool {
    version.is_some_and(|version| !version.is_at_least(release))
}

/// Resolves the compute dtype: as asked, as stored, or 32 bits before version 5.
fn compute_dtype(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    version_4: bool,
    assumptions: &mut Vec<String>,
) -> Result<Dtype, EngineError> {
    match request.asked.dtype.as_deref() {
        None if version_4 && architecture.quantization.is_none() => {
            assumptions
                .push("transformers 4 loads in float32 unless torch_dtype is passed".to_owned());
            Ok(Dtype::F32)
        }
        None | Some("auto") => Ok(model_dtype(
            request.model.format,
            &request.model.inventory,
            Some(architecture),
        )),
        Some(name) => dtype_by_name(name).ok_or_else(|| {
            bad_parameter(
                "dtype",
                name,
                "auto, bfloat16, float16 or float32 is expected",
            )
        }),
    }
}

fn dtype_by_name(name: &str) -> Option<Dtype> {
    COMPUTE_DTYPES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, dtype)| *dtype)
}

/// Checks that the request asks for no cache dtype other than the model's.
fn check_kv_cache_dtype(request: &EngineRequest<'_>, dtype: Dtype) -> Result<(), EngineError> {
    match request.asked.kv_cache_dtype.as_deref() {
        Some(name) if name != "auto" && dtype_by_name(name) != Some(dtype) => Err(bad_parameter(
            "kv_cache_dtype",
            name,
            "the cache has the model's dtype; quantized caches are not supported",
        )),
        _ => Ok(()),
    }
}

/// Resolves the context, and notes where the configuration does not support it.
fn context(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    assumptions: &mut Vec<String>,
) -> u64 {
    let context = match (request.asked.context, architecture.max_context) {
        (Some(AskedContext::Tokens(tokens)), _) => tokens,
        (_, Some(longest)) => longest,
        (_, None) => {
            assumptions.push(format!(
                "the configuration gives no length: a context of {DEFAULT_CONTEXT} is assumed"
            ));
            DEFAULT_CONTEXT
        }
    };

    if let Some(longest) = architecture
        .max_context
        .filter(|longest| context > *longest)
    {
        assumptions.push(format!(
            "{context} tokens are more than the {longest} that the model is configured for"
        ));
    }

    context
}

/// Notes that the library may unpack the weights of two methods.
fn assume_unpacking(architecture: &Architecture, assumptions: &mut Vec<String>) {
    let method = architecture
        .quantization
        .as_ref()
        .map(|quantization| quantization.method.as_str());
    let assumption = match method {
        Some("mxfp4") => "without the kernels package MXFP4 weights are unpacked to the dtype",
        Some("compressed-tensors") => {
            "compressed weights may be unpacked to the dtype at the first pass"
        }
        _ => return,
    };

    assumptions.push(assumption.to_owned());
}

fn bad_parameter(name: &str, value: &str, why: &str) -> EngineError {
    EngineError::BadParameter {
        engine: NAME,
        name: name.to_owned(),
        value: value.to_owned(),
        why: why.to_owned(),
    }
}
