//! Models and methods that vLLM does not load.

use super::refusal::{ENGINE, unsupported};
use crate::engines::shared::checkpoint_checks::{
    encodes_raw_audio, is_packed_for_mlx, shown_method,
};
use crate::engines::shared::unlisted_types::is_unlisted_in_vllm;
use crate::engines::shared::unread_families::unread_by_vllm;
use crate::engines::{EngineError, EngineRequest, EngineVersion};
use crate::model::architecture::{Architecture, Task};
use crate::model::{Format, Model};

/// Classes that vLLM dropped and that transformers' own class cannot replace, each with the last
/// release that had it (vLLM 0.33 `model_executor/models/registry.py`,
/// `_PREVIOUSLY_SUPPORTED_MODELS`).
const DROPPED_CLASSES: &[(&[&str], [u32; 2])] = &[
    (&["Phi3SmallForCausalLM"], [0, 9]),
    (
        &[
            "MotifForCausalLM",
            "Phi4FlashForCausalLM",
            "MllamaForConditionalGeneration",
        ],
        [0, 10],
    ),
    (&["JAISLMHeadModel"], [0, 22]),
    (
        &[
            "QWenLMHeadModel",
            "QwenVLForConditionalGeneration",
            "InternLMForCausalLM",
            "InternLM2VEForCausalLM",
            "XverseForCausalLM",
            "BambaForCausalLM",
            "MiniMaxForCausalLM",
            "MiniMaxText01ForCausalLM",
            "MiniMaxM1ForCausalLM",
            "MiniMaxVL01ForConditionalGeneration",
            "BaiChuanForCausalLM",
            "BaichuanForCausalLM",
        ],
        [0, 23],
    ),
    (
        &[
            "AquilaModel",
            "AquilaForCausalLM",
            "Grok1ModelForCausalLM",
            "Grok1ForCausalLM",
        ],
        [0, 24],
    ),
    (&["TeleChatForCausalLM"], [0, 25]),
    (&["Plamo2ForCausalLM", "OuroForCausalLM"], [0, 26]),
    (
        &[
            "ArcticForCausalLM",
            "RWForCausalLM",
            "StableLMEpochForCausalLM",
            "HCXVisionForCausalLM",
        ],
        [0, 28],
    ),
];

/// Types of language models that vLLM runs with caches that are not counted yet: Qwen4-Exp's
/// indexer and n-gram states, the encoders of speech models.
const UNCOUNTED_TYPES: &[&str] = &["cohere_asr", "qwen4_exp_text", "voxtral_realtime_text"];

/// Methods of earlier releases that 0.33 does not have itself; plugins exist for the first three.
const REMOVED_METHODS: &[&str] = &[
    "gguf",
    "bitsandbytes",
    "hqq",
    "aqlm",
    "bitblas",
    "deepspeedfp",
    "ptpc_fp8",
    "tpu_int8",
    "marlin",
    "qqq",
];

/// Methods of other engines that the current release is known not to have.
const FOREIGN_METHODS: &[&str] = &["exl2", "exl3", "vptq", "higgs"];

/// Methods that the current release reads (vLLM `layers/quantization/__init__.py`).
const METHODS: &[&str] = &[
    "awq",
    "awq_marlin",
    "gptq",
    "gptq_marlin",
    "fp8",
    "fbgemm_fp8",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "fp_quant",
    "compressed-tensors",
    "modelopt",
    "modelopt_fp4",
    "modelopt_mixed",
    "quark",
    "inc",
    "auto-round",
    "auto_round",
    "moe_wna16",
    "experts_int8",
    "torchao",
    "humming",
    "deepseek_v4_fp8",
];

/// Whether the newest vLLM has the model's class.
pub fn serves(architecture: &Architecture) -> bool {
    check_class(architecture, None).is_ok()
}

/// Checks that vLLM can load the model at all.
pub(super) fn check_model(
    model: &Model,
    version: Option<&EngineVersion>,
) -> Result<(), EngineError> {
    match model.format {
        Format::Gguf => {
            return Err(unsupported(
                "GGUF support is not part of vLLM; use llama.cpp",
            ));
        }
        Format::Diffusers => {
            return Err(unsupported(
                "vLLM does not run diffusers pipelines; use the diffusers engine",
            ));
        }
        Format::Ctranslate2 => {
            return Err(unsupported(
                "vLLM does not read CTranslate2 files; use the ctranslate2 engine",
            ));
        }
        Format::Safetensors | Format::PytorchBin => {}
    }

    if is_packed_for_mlx(model) {
        return Err(unsupported(
            "the weights are packed for MLX, which vLLM does not read",
        ));
    }

    let Ok(architecture) = &model.architecture else {
        return Ok(());
    };

    check_class(architecture, version)?;
    if UNCOUNTED_TYPES.contains(&&*architecture.model_type) {
        return Err(unsupported(format!(
            "vLLM's pages for the states of {} ({}) are not counted yet",
            architecture.class, architecture.model_type
        )));
    }

    let method = architecture
        .quantization
        .as_ref()
        .map_or("", |quantization| &*quantization.method);

    let removed = REMOVED_METHODS.contains(&method) || FOREIGN_METHODS.contains(&method);
    if is_current(version) && removed {
        return Err(unsupported(format!(
            "quantization method {method} is not in vLLM 0.33 itself"
        )));
    }

    let known = METHODS.contains(&method) || REMOVED_METHODS.contains(&method);
    if !method.is_empty() && !known {
        return Err(unsupported(format!(
            "no release of vLLM is known to load quant_method {}",
            shown_method(method)
        )));
    }

    Ok(())
}

/// Checks that the release has the method that the request quantizes with at load.
pub(super) fn check_online_method(request: &EngineRequest<'_>) -> Result<(), EngineError> {
    let asked = request
        .parameters
        .get("quantization")
        .and_then(serde_json::Value::as_str);
    let removed =
        asked.filter(|method| is_current(request.version) && REMOVED_METHODS.contains(method));

    match removed {
        None => Ok(()),
        Some(method) => Err(EngineError::BadParameter {
            engine: ENGINE,
            name: "quantization".to_owned(),
            value: method.to_owned(),
            why: "is not in vLLM 0.33 itself; name an earlier release that has it \
                  (--engine vllm@0.19)"
                .to_owned(),
        }),
    }
}

/// Whether `version` is the newest or one that lacks [`REMOVED_METHODS`].
fn is_current(version: Option<&EngineVersion>) -> bool {
    version.is_none_or(|asked| asked.is_at_least(&[0, 33]))
}

/// Checks that vLLM has the model's class: it has dropped some families and never ran others.
fn check_class(
    architecture: &Architecture,
    version: Option<&EngineVersion>,
) -> Result<(), EngineError> {
    let class = &architecture.class;
    if let Some((_, last)) = DROPPED_CLASSES
        .iter()
        .find(|(classes, _)| classes.contains(&&**class))
        && version.is_none_or(|asked| asked.order(last).is_gt())
    {
        let [major, minor] = last;
        return Err(unsupported(format!(
            "vLLM dropped {class} after release {major}.{minor}"
        )));
    }

    let kind = &*architecture.root_model_type;
    if let Some(why) = unread_by_vllm(&architecture.model_type) {
        return Err(unsupported(format!("{class} ({kind}) in vLLM: {why}")));
    }

    let unlisted = is_unlisted_in_vllm(architecture);
    let listed = kind.contains("whisper") || kind == "cohere_asr";
    let encoder_decoder = architecture.task == Task::EncodeDecode && !listed;

    if unlisted || encodes_raw_audio(architecture) || encoder_decoder {
        return Err(unsupported(format!(
            "vLLM does not have {class} ({kind}) itself"
        )));
    }

    Ok(())
}
