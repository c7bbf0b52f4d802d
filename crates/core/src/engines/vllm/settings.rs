//! vLLM's parameters as they will be in force: asked, else defaulted by GPU, model and version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::constants::Constants;
use super::dtypes::{compute_dtype, kv_dtype};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::shared::shard_size::Online;
use crate::engines::{AskedContext, EngineError, EngineRequest, Workload};
use crate::model::architecture::{Mixer, Span, Task};
use crate::model::{Architecture, Dtype};

/// The engine's name in errors.
pub(super) const ENGINE: &str = "vllm";

/// The environment variable that keeps the hybrid manager on for chunked local attention.
pub(super) const CHUNKED_WITH_MANAGER: &str = "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE";

/// vLLM's parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(ENGINE, include_str!("../profiles/parameters/vllm.toml"));

/// How recurrent states take part in prefix caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateMode {
    /// Not: one state a sequence.
    None,
    /// States kept at block boundaries: one more.
    Align,
}

/// The parameters in force.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are vLLM's own switches"
)]
pub(super) struct VllmSettings {
    pub(super) workload: Workload,
    pub(super) batched_tokens: u64,
    pub(super) max_sequences: u64,
    /// Share of the device as asked, in millionths.
    pub(super) asked_share: Option<u64>,
    /// Share in force, in millionths.
    pub(super) share: u64,
    pub(super) block_tokens: Option<u64>,
    pub(super) eager: bool,
    pub(super) state_mode: StateMode,
    pub(super) async_scheduling: bool,
    pub(super) compute: ComputeDtype,
    pub(super) kv: KvDtype,
    pub(super) kv_name: String,
    /// dtype of recurrent states, bytes of an element.
    pub(super) state_bytes: u64,
    pub(super) expert_parallel: bool,
    pub(super) cpu_offload_bytes: u64,
    pub(super) towers: bool,
    /// (adapters, rank), where LoRA is on.
    pub(super) lora: Option<(u64, u64)>,
    pub(super) online: Option<Online>,
    pub(super) online_name: Option<String>,
    pub(super) speculative_tokens: u64,
    pub(super) hybrid_manager: bool,
    pub(super) context_parallel: u64,
    /// Compute capability of the first device, as 90 for 9.0.
    pub(super) capability: Option<u32>,
    /// Whether it is as large as only SM10x cards are.
    pub(super) huge: bool,
    pub(super) assumptions: Vec<String>,
    /// Parameters that were given, by name.
    pub(super) given: BTreeSet<String>,
    /// Flags for what was asked and changes the figures, and that no other field carries to the
    /// command line.
    pub(super) flags: Vec<String>,
}

impl VllmSettings {
    /// Settles everything for `case`.
    pub(super) fn settle(
        case: &EngineRequest<'_>,
        architecture: &Architecture,
        constants: &Constants,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, case.version, case.parameters)?;
        let device = case
            .devices
            .first()
            .ok_or_else(|| unsupported("there is no device to run on"))?;
        let capability = device.capability();
        let mut assumptions = Vec::new();

        let compute = compute_dtype(
            case,
            architecture,
            &given,
            (capability, constants.refuses_half),
            &mut assumptions,
        )?;
        let (kv, kv_name) = kv_dtype(case, architecture, &given, compute, capability)?;
        let workload = workload(case, architecture, &given)?;
        let total_gib = device.total_bytes.get() >> 30;
        let large = total_gib >= constants.large_gpu_gib
            && !device.name.to_ascii_lowercase().contains("a100")
            && capability != Some(121);
        let asked_sequences = given.positive("max_num_seqs")?;
        if asked_sequences.is_some_and(|most| most < workload.sequences) {
            return Err(given.bad(
                "max_num_seqs",
                format!(
                    "is less than the {} sequences asked for",
                    workload.sequences
                ),
            ));
        }

        let default_sequences = if large {
            constants.sequences_large
        } else {
            constants.sequences_small
        };

        let max_sequences = asked_sequences.unwrap_or(default_sequences.max(workload.sequences));
        let default_tokens = match total_gib {
            gib if gib >= constants.huge_gpu_gib => constants.batched_tokens_huge,
            _ if large => constants.batched_tokens_large,
            _ => constants.batched_tokens_small,
        };

        // `_set_default_max_num_seqs_and_batched_tokens_args`: capped at R x N; a model that cannot
        // chunk its prefill (encoders, pooling) must take a whole sequence in one step.
        let default_tokens = default_tokens
            .min(max_sequences.saturating_mul(workload.context))
            .max(1);
        let default_tokens = match architecture.task {
            Task::Encode | Task::Pool | Task::EncodeDecode => default_tokens.max(workload.context),
            Task::Generate => default_tokens,
        };

        let whole = unchunked(&given, constants, workload.context)?;
        let default_tokens = if whole {
            default_tokens.max(workload.context)
        } else {
            default_tokens
        };

        let asked_tokens = given.positive("max_num_batched_tokens")?;
        let batched_tokens = asked_tokens.unwrap_or(default_tokens);

        // `SchedulerConfig.verify_max_model_len`: a step holds a token of every sequence.
        let asked_most = asked_sequences.unwrap_or(workload.sequences);
        if asked_tokens.is_some_and(|tokens| tokens < asked_most) {
            return Err(given.bad(
                "max_num_batched_tokens",
                format!("is less than the {asked_most} sequences of a step"),
            ));
        }
        // Only a number that was asked for stands above the tokens of a step (`arg_utils.py`).
        let max_sequences = if asked_sequences.is_none() {
            max_sequences.min(batched_tokens)
        } else {
            max_sequences
        };

        // `config/model.py` (`is_prefix_caching_supported`): not for models without any attention.
        // The mode follows from it, whatever was asked for (`models/config.py`,
        // `MambaModelConfig`).
        let prefix_caching = given
            .flag("enable_prefix_caching")?
            .unwrap_or_else(|| !attention_free(architecture));
        if given
            .word("mamba_cache_mode")?
            .is_some_and(|mode| !["none", "align", "all"].contains(&mode))
        {
            return Err(given.bad("mamba_cache_mode", "known: none, align, all"));
        }

        let state_mode = if prefix_caching {
            StateMode::Align
        } else {
            StateMode::None
        };

        let state_bytes = match given.word("mamba_ssm_cache_dtype")? {
            Some("float32") => 4,
            Some("float16" | "bfloat16") => 2,
            Some("auto") | None => architecture.state_dtype.map_or(compute.bytes(), |dtype| {
                if dtype == Dtype::F32 { 4 } else { 2 }
            }),
            Some(_) => {
                return Err(given.bad(
                    "mamba_ssm_cache_dtype",
                    "known: auto, float32, float16, bfloat16",
                ));
            }
        };

        let online_name = given.word("quantization")?.map(str::to_owned);
        let online = online_name.as_deref().and_then(Online::parse);

        let checkpoint = architecture
            .quantization
            .as_ref()
            .map(|quantization| &*quantization.method);
        if let Some(name) = &online_name
            && online.is_none()
            && checkpoint.is_none_or(|method| !name.contains(method) && !method.contains(&**name))
        {
            return Err(given.bad(
                "quantization",
                "is neither the checkpoint's own method nor one that quantises at load",
            ));
        }

        let online = online.filter(|_| checkpoint.is_none());
        if given
            .count("num_speculative_tokens")?
            .is_some_and(|tokens| tokens > 0)
            && architecture.mtp_layers == 0
        {
            let why = "the model has no prediction layers of its own, and a draft model's weights and cache are not \
                       counted; ask for it as a second model";
            return Err(given.bad("num_speculative_tokens", why));
        }
        // Asked for by its word, the default share is taken whole: a server without the flag does
        // so.
        let asked_share = match given
            .value("gpu_memory_utilization")
            .and_then(Value::as_str)
        {
            Some("default") => Some(constants.gpu_memory_utilization),
            _ => given.share("gpu_memory_utilization")?,
        };

        let lora = given
            .flag("enable_lora")?
            .unwrap_or(case.model.adapter.is_some())
            .then_some(())
            .map(|()| {
                Ok::<_, EngineError>((
                    given.positive("max_loras")?.unwrap_or(1),
                    given.positive("max_lora_rank")?.unwrap_or(16),
                ))
            });

        let towers = !given.flag("language_model_only")?.unwrap_or(false) && !no_media(&given);
        Ok(Self {
            workload,
            batched_tokens,
            max_sequences,
            asked_share,
            share: asked_share.unwrap_or(constants.gpu_memory_utilization),
            block_tokens: block_size(&given)?,
            eager: given.flag("enforce_eager")?.unwrap_or(false),
            state_mode,
            async_scheduling: given.flag("async_scheduling")?.unwrap_or(true),
            compute,
            kv,
            kv_name,
            state_bytes,
            expert_parallel: given.flag("enable_expert_parallel")?.unwrap_or(false),
            cpu_offload_bytes: offload_bytes(given.millionths("cpu_offload_gb")?),
            towers,
            lora: lora.transpose()?,
            online,
            online_name,
            speculative_tokens: given.count("num_speculative_tokens")?.unwrap_or(0),
            hybrid_manager: !given
                .flag("disable_hybrid_kv_cache_manager")?
                .unwrap_or(false)
                && (!chunked(architecture) || given.flag(CHUNKED_WITH_MANAGER)?.unwrap_or(false)),
            context_parallel: given.positive("decode_context_parallel_size")?.unwrap_or(1),
            capability,
            huge: total_gib >= constants.huge_gpu_gib,
            assumptions,
            flags: flags(&given)?,
            given: given_names(&given, case),
        })
    }

    /// What entered the figures, for the answer.
    pub(super) fn report(&self) -> BTreeMap<String, Value> {
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        let mut put = |name: &str, value: Value| {
            all.insert(name.to_owned(), value);
        };

        put("max_model_len", json!(self.workload.context));
        put("max_num_batched_tokens", json!(self.batched_tokens));
        put("max_num_seqs", json!(self.max_sequences));

        put(
            "gpu_memory_utilization",
            json!(share_text(self.share).parse::<f64>().ok()),
        );
        put("enforce_eager", json!(self.eager));

        put(
            "mamba_cache_mode",
            json!(if self.state_mode == StateMode::Align {
                "align"
            } else {
                "none"
            }),
        );

        put("async_scheduling", json!(self.async_scheduling));
        put("kv_cache_dtype", json!(self.kv_name));
        put("dtype", json!(self.compute.name()));
        put("enable_expert_parallel", json!(self.expert_parallel));

        if let Some(block) = self.block_tokens {
            put("block_size", json!(block));
        }

        if let Some((adapters, rank)) = self.lora {
            put("enable_lora", json!(true));
            put("max_loras", json!(adapters));
            put("max_lora_rank", json!(rank));
        }

        if let Some(method) = &self.online_name {
            put("quantization", json!(method));
        }

        if self.cpu_offload_bytes > 0 {
            put("cpu_offload_gb", json!(self.cpu_offload_bytes >> 30));
        }

        if self.context_parallel > 1 {
            put("decode_context_parallel_size", json!(self.context_parallel));
        }

        all
    }
}

/// Names of the parameters that were given; a dtype can be asked for in the workload too.
fn given_names(given: &Parameters, case: &EngineRequest<'_>) -> BTreeSet<String> {
    let dtype = case.asked.dtype.as_ref().map(|_| "dtype".to_owned());
    given.names().into_iter().chain(dtype).collect()
}

/// CUDA backends take multiples of 16 tokens (`v1/attention/backends/*`,
/// `get_supported_kernel_block_sizes`).
fn block_size(given: &Parameters) -> Result<Option<u64>, EngineError> {
    match given.positive("block_size")? {
        Some(size) if !size.is_multiple_of(16) || size > 1 << 20 => Err(given.bad(
            "block_size",
            "must be a multiple of 16, and at most 1048576",
        )),
        other => Ok(other),
    }
}

/// The figures hold only for a server that is told of these too.
fn flags(given: &Parameters) -> Result<Vec<String>, EngineError> {
    let mut flags = Vec::new();
    for (name, on) in [
        ("async_scheduling", None),
        ("enable_prefix_caching", None),
        ("enable_chunked_prefill", Some(true)),
    ] {
        let asked = given.flag(name)?;
        if let Some(asked) = asked.filter(|_| asked != on) {
            let name = name.replace('_', "-");
            flags.push(if asked {
                format!("--{name}")
            } else {
                format!("--no-{name}")
            });
        }
    }

    for name in ["mamba_cache_mode", "mamba_ssm_cache_dtype"] {
        if let Some(word) = given.word(name)? {
            flags.extend([format!("--{}", name.replace('_', "-")), word.to_owned()]);
        }
    }

    if let Some(limits) = given.value("limit_mm_per_prompt") {
        let limits = limits
            .as_str()
            .map_or_else(|| limits.to_string(), str::to_owned);
        flags.extend(["--limit-mm-per-prompt".to_owned(), limits]);
    }

    if let Some(tokens) = given
        .count("num_speculative_tokens")?
        .filter(|tokens| *tokens > 0)
    {
        let config = json!({"method": "mtp", "num_speculative_tokens": tokens}).to_string();
        flags.extend(["--speculative-config".to_owned(), config]);
    }

    Ok(flags)
}

/// Before 0.8 a prompt was prefilled at once unless it could be longer than 32,768 tokens.
fn unchunked(given: &Parameters, constants: &Constants, context: u64) -> Result<bool, EngineError> {
    let asked = given.flag("enable_chunked_prefill")?;
    Ok(match asked {
        Some(chunked) => !chunked,
        None => constants.whole_prefill && context <= 32_768,
    })
}

/// Whether no layer has attention of any kind.
fn attention_free(architecture: &Architecture) -> bool {
    architecture
        .mixers(0..architecture.layer_count())
        .all(|mixer| matches!(mixer, Mixer::Recurrent(_) | Mixer::None))
}

/// `unsupported_architecture` for this engine.
pub(super) fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: ENGINE,
        why: why.into(),
    }
}

/// A share in millionths as the decimal that a command line takes: `0.92`.
pub(super) fn share_text(millionths: u64) -> String {
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') {
        format!("{short}0")
    } else {
        short.to_owned()
    }
}

fn offload_bytes(millionths: Option<u64>) -> u64 {
    millionths.map_or(0, |millionths| {
        crate::bytes::Bytes::gib(1)
            .scale(millionths, 1_000_000)
            .get()
    })
}

/// `limit_mm_per_prompt` with every limit 0: towers are not loaded.
fn no_media(given: &Parameters) -> bool {
    match given.value("limit_mm_per_prompt") {
        Some(Value::Object(limits)) => {
            !limits.is_empty() && limits.values().all(|limit| limit.as_u64() == Some(0))
        }
        Some(Value::String(text)) => serde_json::from_str::<BTreeMap<String, u64>>(text)
            .is_ok_and(|limits| !limits.is_empty() && limits.values().all(|limit| *limit == 0)),
        _ => false,
    }
}

fn workload(
    case: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
) -> Result<Workload, EngineError> {
    let by_parameter = given.positive("max_model_len")?;
    let asked = match (case.asked.context, by_parameter) {
        (Some(AskedContext::Tokens(tokens)), _) => Some(tokens),
        (Some(AskedContext::Max), _) => None,
        (None, by_parameter) => by_parameter,
    };

    let bad = |value: u64, why: String| EngineError::BadParameter {
        engine: ENGINE,
        name: "max_model_len".to_owned(),
        value: value.to_string(),
        why,
    };

    let context = match (asked, architecture.max_context) {
        (Some(0), _) => return Err(bad(0, "must be at least 1".to_owned())),
        (Some(tokens), Some(most)) if tokens > most => {
            return Err(bad(
                tokens,
                format!("is more than the {most} tokens that the model is configured for"),
            ));
        }
        (Some(tokens), _) => tokens,
        // `_get_and_verify_max_len`: 2048 where no key says.
        (None, Some(most)) if case.asked.context.is_none() => architecture
            .original_context()
            .map_or(most, |original| original.min(most)),
        (None, most) => most.unwrap_or(2048),
    };

    Ok(Workload {
        context,
        sequences: case.asked.sequences.unwrap_or(1).max(1),
    })
}

/// Whether a model's attention is chunked local, which turns vLLM's hybrid manager off.
pub(super) fn chunked(architecture: &Architecture) -> bool {
    architecture
        .layers
        .iter()
        .any(|layer| matches!(&layer.mixer, Mixer::Attention(a) if matches!(a.span, Span::Chunked { .. })))
}
