//! Parameters, defaults by version, and what a device must have.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::compute_dtype::{dtype_name, model_dtype};
use super::super::{AskedContext, DeviceSupport, EngineError, EngineRequest, Workload};
use super::{COMPUTE, NAME};
use crate::device::DeviceFacts;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::model::Dtype;
use crate::model::architecture::{Architecture, Task};

/// transformers' parameters by name.
static PARAMETERS: ParameterList = ParameterList::new(
    NAME,
    include_str!("../profiles/parameters/transformers.toml"),
);

/// Everything that enters the figures.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a parameter of the library, by itself"
)]
pub(super) struct TransformersSettings {
    /// `5.23` or `4`.
    pub(super) profile: &'static str,
    /// What weights are cast to and the cache is kept in.
    pub(super) dtype: Dtype,
    pub(super) workload: Workload,
    /// Attention that materialises its scores.
    pub(super) eager: bool,
    /// `attn_implementation`.
    pub(super) attention: &'static str,
    pub(super) static_cache: bool,
    pub(super) use_cache: bool,
    /// Tokens of a prompt that go through the model at once; all of them where unset.
    pub(super) prefill_chunk: Option<u64>,
    /// Before 5.23 the latent families' cache holds expanded heads.
    pub(super) expands_latent: bool,
    pub(super) device_map: &'static str,
    pub(super) assumptions: Vec<String>,
}

impl TransformersSettings {
    pub(super) fn new(
        case: &EngineRequest<'_>,
        architecture: &Architecture,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, case.version, case.parameters)?;
        let before = |release: &[u32]| {
            case.version
                .is_some_and(|version| !version.is_at_least(release))
        };

        let old = before(&[5]);
        let mut assumptions = Vec::new();
        let stored = model_dtype(case.model.format, &case.model.inventory, Some(architecture));

        let dtype = match case.asked.dtype.as_deref() {
            // Before version 5 a model is loaded in 32-bit floats unless told otherwise.
            None if old && architecture.quantization.is_none() => {
                assumptions.push(
                    "transformers 4 loads in float32 unless torch_dtype is passed".to_owned(),
                );
                Dtype::F32
            }
            None | Some("auto") => stored,
            Some(name) => named(name)?,
        };

        let attention = given
            .choice(
                "attn_implementation",
                &["sdpa", "eager", "flash_attention_2", "flash_attention_3"],
            )?
            .unwrap_or("sdpa");

        let static_cache = given
            .choice("cache_implementation", &["dynamic", "static"])?
            .is_some_and(|cache| cache == "static");
        if let Some(name) = case
            .asked
            .kv_cache_dtype
            .as_deref()
            .filter(|name| *name != "auto")
            && COMPUTE
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, dtype)| *dtype)
                != Some(dtype)
        {
            let why = "the cache is kept in the model's dtype; quantised caches are not covered";
            let (name, value) = ("kv_cache_dtype".to_owned(), name.to_owned());
            return Err(EngineError::BadParameter {
                engine: NAME,
                name,
                value,
                why: why.to_owned(),
            });
        }

        let context = match (case.asked.context, architecture.max_context) {
            (Some(AskedContext::Tokens(tokens)), _) => tokens,
            (_, Some(longest)) => longest,
            (_, None) => {
                assumptions.push(
                    "the configuration gives no length: a context of 2048 is assumed".to_owned(),
                );
                2048
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

        match architecture
            .quantization
            .as_ref()
            .map(|quantization| quantization.method.as_str())
        {
            Some("mxfp4") => {
                assumptions.push(
                    "without the kernels package MXFP4 weights are unpacked to the dtype"
                        .to_owned(),
                );
            }
            Some("compressed-tensors") => {
                assumptions.push(
                    "compressed weights may be unpacked to the dtype at the first pass".to_owned(),
                );
            }
            _ => {}
        }

        let encodes = architecture.task == Task::Encode;
        if !encodes {
            assumptions
                .push("the whole context is taken to be prompt, prefilled in one step".to_owned());
        }

        Ok(Self {
            profile: if old { "4" } else { "5.23" },
            dtype,
            workload: Workload {
                context,
                sequences: case.asked.sequences.unwrap_or(1),
            },
            eager: attention == "eager",
            attention,
            static_cache,
            use_cache: given.flag("use_cache")?.unwrap_or(true),
            prefill_chunk: given.size("prefill_chunk_size")?,
            expands_latent: before(&[5, 23]),
            device_map: given
                .choice(
                    "device_map",
                    &["auto", "balanced", "balanced_low_0", "sequential"],
                )?
                .unwrap_or("sequential"),
            assumptions,
        })
    }

    pub(super) fn element_bytes(&self) -> u64 {
        self.dtype.block().1
    }

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

fn named(name: &str) -> Result<Dtype, EngineError> {
    COMPUTE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, dtype)| *dtype)
        .ok_or_else(|| EngineError::BadParameter {
            engine: NAME,
            name: "dtype".to_owned(),
            value: name.to_owned(),
            why: "auto, bfloat16, float16 or float32 is expected".to_owned(),
        })
}

/// transformers `quantizers/quantizer_finegrained_fp8.py` and `quantizer_mxfp4.py`: below these,
/// checkpoints are dequantised to bfloat16 while they load; `quantizer_fbgemm_fp8.py` refuses.
pub(super) fn fitness(
    architecture: &Architecture,
    dtype: Dtype,
    device: &DeviceFacts,
) -> DeviceSupport {
    let method = architecture
        .quantization
        .as_ref()
        .map(|quantization| quantization.method.as_str());
    let least = match method {
        Some("fp8") => 89,
        Some("fbgemm_fp8") => 90,
        Some("mxfp4") => 75,
        _ => 0,
    };

    match device.capability() {
        Some(capability) if capability < least => DeviceSupport::Unable(format!(
            "{} checkpoints need compute capability {}.{}; below, transformers dequantises or refuses them",
            method.unwrap_or_default(),
            least / 10,
            least % 10
        )),
        None if least > 0 => DeviceSupport::Degraded(
            "its compute capability is unknown, so nothing was checked".to_owned(),
        ),
        Some(capability) if capability < 80 && dtype == Dtype::BF16 => DeviceSupport::Degraded(
            "bfloat16 is emulated below compute capability 8.0; float16 is faster".to_owned(),
        ),
        _ => DeviceSupport::Able,
    }
}
