//! vLLM's parameters in force: as asked, or defaults by GPU, model and version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::constants::Constants;
use super::dtypes::{compute_dtype, kv_dtype};
use super::flags::flags;
use super::pooling;
use super::refusal::{ENGINE, unsupported};
use super::rope_rows::rope_rows;
use super::speculation::VllmSpeculation;
use super::state_mode::{StateMode, state_mode};
use super::step_limits::{GpuClass, StepLimits};
use super::workload::workload;
use crate::bytes::Bytes;
use crate::engines::shared::asked::given_names;
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::shared::shard_size::{Online, RopeRows};
use crate::engines::{EngineError, EngineRequest, Workload};
use crate::model::architecture::{Mixer, Span, Task};
use crate::model::{Architecture, Dtype};

/// The environment variable that says whether the hybrid manager runs chunked local attention.
pub(super) const CHUNKED_WITH_MANAGER: &str = "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE";

/// vLLM's parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(ENGINE, include_str!("../profiles/parameters/vllm.toml"));

/// The parameters in force.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are vLLM's own switches"
)]
pub(super) struct VllmSettings {
    /// The task that the model runs for: that of its class, or pooling.
    pub(super) task: Task,
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
    /// Bytes of an element of recurrent states.
    pub(super) state_bytes: u64,
    pub(super) expert_parallel: bool,
    pub(super) cpu_offload_bytes: u64,
    pub(super) towers: bool,
    /// (adapters, rank), if LoRA is on.
    pub(super) lora: Option<(u64, u64)>,
    pub(super) online: Option<Online>,
    pub(super) online_name: Option<String>,
    /// Speculative decoding, if it is on.
    pub(super) speculation: Option<VllmSpeculation>,
    pub(super) hybrid_manager: bool,
    /// [`CHUNKED_WITH_MANAGER`] as asked.
    pub(super) chunked_windows: Option<bool>,
    /// Rows of the RoPE tables.
    pub(super) rope: RopeRows,
    pub(super) context_parallel: u64,
    /// Compute capability of the first device, as 90 for 9.0.
    pub(super) capability: Option<u32>,
    /// Whether the first device is as large as only SM10x cards are.
    pub(super) huge: bool,
    pub(super) assumptions: Vec<String>,
    /// Names of the parameters that the request gives.
    pub(super) given: BTreeSet<String>,
    /// Flags for asked parameters that change the figures and that no other field represents.
    pub(super) flags: Vec<String>,
}

impl VllmSettings {
    /// Resolves every parameter for `request`.
    pub(super) fn resolve(
        request: &EngineRequest<'_>,
        architecture: &Architecture,
        constants: &Constants,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, request.version, request.parameters)?;
        let device = request
            .devices
            .first()
            .ok_or_else(|| unsupported("there is no device to run on"))?;
        let gpu = GpuClass::new(device, constants);
        let mut assumptions = Vec::new();
        let task = pooling::task(&given, architecture, request.model.asks_for_pooling)?;
        if request.model.asks_for_pooling && task == Task::Pool {
            assumptions.push(
                "modules.json asks for pooling, so vLLM runs an embedder; runner=generate changes it"
                    .to_owned(),
            );
        }

        let compute = compute_dtype(
            request,
            (architecture, task),
            &given,
            (gpu.capability, constants.refuses_half),
            &mut assumptions,
        )?;
        let (kv, kv_name) = kv_dtype(request, architecture, &given, compute, gpu.capability)?;
        let workload = workload(request, architecture, &given)?;
        let limits = StepLimits::resolve(&given, task, constants, gpu, workload)?;

        let state_mode = state_mode(&given, architecture, constants)?;
        let state_bytes = state_bytes(&given, architecture, compute)?;
        let online_name = given.word("quantization")?.map(str::to_owned);
        let online = online_quantization(&given, architecture, online_name.as_deref())?;
        let draft = request.model.draft.as_deref();
        let speculation = VllmSpeculation::read(&given, request.version, architecture, draft)?;
        pooling::check_speculation(&given, task, speculation.is_some())?;
        let asked_share = asked_share(&given, constants)?;
        let lora = lora(&given, request.model.adapter.is_some())?;

        let manager_off = given
            .flag("disable_hybrid_kv_cache_manager")?
            .unwrap_or(false);
        let chunked_windows = given.flag(CHUNKED_WITH_MANAGER)?;
        let hybrid_manager = !manager_off
            && (!has_chunked_attention(architecture)
                || chunked_windows.unwrap_or(constants.chunked_windows));

        Ok(Self {
            task,
            workload,
            batched_tokens: limits.batched_tokens,
            max_sequences: limits.max_sequences,
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
            towers: !given.flag("language_model_only")?.unwrap_or(false) && !forbids_media(&given),
            lora,
            online,
            online_name,
            speculation,
            hybrid_manager,
            chunked_windows,
            rope: rope_rows(architecture, request.version, constants),
            context_parallel: given.positive("decode_context_parallel_size")?.unwrap_or(1),
            capability: gpu.capability,
            huge: gpu.huge,
            assumptions,
            flags: flags(&given, speculation, draft)?,
            given: given_names(request, &given),
        })
    }

    /// Tokens that a step proposes; 0 without speculative decoding.
    pub(super) fn speculative_tokens(&self) -> u64 {
        self.speculation.map_or(0, |speculation| speculation.tokens)
    }

    /// The parameters that entered the figures, for the answer.
    pub(super) fn report(&self) -> BTreeMap<String, Value> {
        let mut report = BTreeMap::from([
            ("max_model_len", json!(self.workload.context)),
            ("max_num_batched_tokens", json!(self.batched_tokens)),
            ("max_num_seqs", json!(self.max_sequences)),
            (
                "gpu_memory_utilization",
                json!(share_text(self.share).parse::<f64>().ok()),
            ),
            ("enforce_eager", json!(self.eager)),
            ("mamba_cache_mode", json!(self.state_mode.name())),
            ("async_scheduling", json!(self.async_scheduling)),
            ("kv_cache_dtype", json!(self.kv_name)),
            ("dtype", json!(self.compute.name())),
            ("enable_expert_parallel", json!(self.expert_parallel)),
        ]);

        if let Some(block) = self.block_tokens {
            report.insert("block_size", json!(block));
        }

        if let Some((adapters, rank)) = self.lora {
            report.insert("enable_lora", json!(true));
            report.insert("max_loras", json!(adapters));
            report.insert("max_lora_rank", json!(rank));
        }

        if let Some(method) = &self.online_name {
            report.insert("quantization", json!(method));
        }

        if self.cpu_offload_bytes > 0 {
            report.insert("cpu_offload_gb", json!(self.cpu_offload_bytes >> 30));
        }

        if self.context_parallel > 1 {
            report.insert("decode_context_parallel_size", json!(self.context_parallel));
        }

        if let Some(speculation) = self.speculation {
            report.insert("num_speculative_tokens", json!(speculation.tokens));
        }

        report
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Bytes of an element of recurrent states: as asked, or as configured.
fn state_bytes(
    given: &Parameters,
    architecture: &Architecture,
    compute: ComputeDtype,
) -> Result<u64, EngineError> {
    match given.word("mamba_ssm_cache_dtype")? {
        Some("float32") => Ok(4),
        Some("float16" | "bfloat16") => Ok(2),
        Some("auto") | None => Ok(architecture.state_dtype.map_or(compute.bytes(), |dtype| {
            if dtype == Dtype::F32 { 4 } else { 2 }
        })),
        Some(_) => Err(given.bad(
            "mamba_ssm_cache_dtype",
            "known: auto, float32, float16, bfloat16",
        )),
    }
}

/// The quantization at load that `name` asks for; `None` if the checkpoint is quantized already.
fn online_quantization(
    given: &Parameters,
    architecture: &Architecture,
    name: Option<&str>,
) -> Result<Option<Online>, EngineError> {
    let online = name.and_then(Online::parse);
    let checkpoint = architecture
        .quantization
        .as_ref()
        .map(|quantization| &*quantization.method);

    if let Some(name) = name
        && online.is_none()
        && checkpoint.is_none_or(|method| !name.contains(method) && !method.contains(name))
    {
        return Err(given.bad(
            "quantization",
            "is neither the checkpoint's own method nor one that quantizes at load",
        ));
    }

    Ok(online.filter(|_| checkpoint.is_none()))
}

/// The share that the request asks for, in millionths.
///
/// `default` asks for the whole default share, which a server takes without the flag.
fn asked_share(given: &Parameters, constants: &Constants) -> Result<Option<u64>, EngineError> {
    let word = given
        .value("gpu_memory_utilization")
        .and_then(Value::as_str);
    match word {
        Some("default") => Ok(Some(constants.gpu_memory_utilization)),
        _ => given.share("gpu_memory_utilization"),
    }
}

/// (adapters, rank) of the LoRA slots, if LoRA is on.
fn lora(given: &Parameters, has_adapter: bool) -> Result<Option<(u64, u64)>, EngineError> {
    if !given.flag("enable_lora")?.unwrap_or(has_adapter) {
        return Ok(None);
    }

    let adapters = given.positive("max_loras")?.unwrap_or(1);
    let rank = given.positive("max_lora_rank")?.unwrap_or(16);
    Ok(Some((adapters, rank)))
}

/// The block size as asked; CUDA backends take multiples of 16 tokens (`v1/attention/backends/*`,
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

fn offload_bytes(millionths: Option<u64>) -> u64 {
    millionths.map_or(0, |millionths| {
        Bytes::gib(1).scale(millionths, 1_000_000).get()
    })
}

/// Whether every limit of `limit_mm_per_prompt` is 0: vLLM then loads no towers.
fn forbids_media(given: &Parameters) -> bool {
    match given.value("limit_mm_per_prompt") {
        Some(Value::Object(limits)) => {
            !limits.is_empty() && limits.values().all(|limit| limit.as_u64() == Some(0))
        }
        Some(Value::String(text)) => serde_json::from_str::<BTreeMap<String, u64>>(text)
            .is_ok_and(|limits| !limits.is_empty() && limits.values().all(|limit| *limit == 0)),
        _ => false,
    }
}

/// Whether a layer has chunked local attention, for which vLLM's hybrid manager can be off.
fn has_chunked_attention(architecture: &Architecture) -> bool {
    architecture.layers.iter().any(|layer| {
        matches!(
            &layer.mixer,
            Mixer::Attention(attention) if matches!(attention.span, Span::Chunked { .. })
        )
    })
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
