//! SGLang's parameters in force: as asked, or defaults by GPU, model and version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::speculation::SglangSpeculation;
use super::{ENGINE, unsupported};
use crate::engines::profile::Profile;
use crate::engines::shared::asked::{asked_dtype, asked_kv_cache_dtype, given_names};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, EngineVersion, Workload};
use crate::model::architecture::Mixer;
use crate::model::{Architecture, Dtype};

/// SGLang's parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(ENGINE, include_str!("../profiles/parameters/sglang.toml"));

/// Cache dtypes that vLLM has and SGLang has not.
const VLLM_KV_DTYPES: &[&str] = &[
    "int8_per_token_head",
    "fp8_per_token_head",
    "int4_per_token_head",
    "fp8_ds_mla",
    "nvfp4_ds_mla",
    "fp8_inc",
];

/// The context of a model whose configuration gives none.
const DEFAULT_CONTEXT: u64 = 2048;

/// Tokens of a page of FlashMLA.
const FLASH_MLA_PAGE_TOKENS: u64 = 64;

/// The parameters in force.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are SGLang's own switches"
)]
pub(super) struct SglangSettings {
    pub(super) workload: Workload,
    /// Tokens of one prefill step.
    pub(super) chunk: u64,
    /// `mem_fraction_static` as asked, in millionths.
    pub(super) asked_fraction: Option<u64>,
    /// Whether the server sizes its pool itself, from its fraction of the free memory, whatever the
    /// workload needs.
    pub(super) server_sizes_pool: bool,
    pub(super) max_running: Option<u64>,
    /// Speculative decoding, if it is on.
    pub(super) speculation: Option<SglangSpeculation>,
    pub(super) compute: ComputeDtype,
    pub(super) kv: KvDtype,
    pub(super) kv_name: String,
    pub(super) page_tokens: u64,
    /// Window pool to token pool, in millionths.
    pub(super) swa_ratio: u64,
    /// State pool to token pool, in millionths.
    pub(super) state_ratio: u64,
    pub(super) radix: bool,
    pub(super) graphs: bool,
    pub(super) max_decode_batch: Option<u64>,
    pub(super) expert_parallel: bool,
    /// Bytes of an element of recurrent states.
    pub(super) state_bytes: u64,
    /// `quantization`, as given.
    pub(super) online_name: Option<String>,
    /// Names of the parameters that the request gives.
    pub(super) given: BTreeSet<String>,
    /// Flags for asked parameters that change the figures and that no other field represents.
    pub(super) flags: Vec<String>,
    pub(super) assumptions: Vec<String>,
}

impl SglangSettings {
    /// Resolves every parameter for `request`.
    pub(super) fn resolve(
        request: &EngineRequest<'_>,
        architecture: &Architecture,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, request.version, request.parameters)?;
        let server_sizes_pool = server_sizes_pool(&given)?;

        let device = request
            .devices
            .first()
            .ok_or_else(|| unsupported("there is no device to run on"))?;
        let mut assumptions = Vec::new();
        let compute = compute_dtype(request, architecture, &given, &mut assumptions)?;
        let (kv, kv_name) = kv_dtype(request, architecture, &given, compute)?;

        let swa_ratio = given
            .share("swa_full_tokens_ratio")?
            .map_or_else(|| constant(profile, "swa_full_tokens_ratio"), Ok)?;
        let state_ratio = given
            .millionths("mamba_full_memory_ratio")?
            .map_or_else(|| constant(profile, "mamba_full_memory_ratio"), Ok)?;

        let workload = workload(request, architecture, &given)?;
        let draft = request.model.draft.as_deref();
        let speculation = SglangSpeculation::read(&given, request.version, architecture, draft)?;
        let asked_running = given.positive("max_running_requests")?;
        let max_running = match speculation {
            Some(_) => Some(SglangSpeculation::running(
                asked_running,
                workload.sequences,
            )),
            None => asked_running,
        };

        Ok(Self {
            workload,
            chunk: given
                .positive("chunked_prefill_size")?
                .unwrap_or_else(|| default_chunk(device.total_bytes.get() >> 20)),
            asked_fraction: given.share("mem_fraction_static")?,
            server_sizes_pool,
            max_running,
            speculation,
            compute,
            kv,
            kv_name,
            page_tokens: given
                .positive("page_size")?
                .unwrap_or_else(|| default_page_tokens(architecture, device.capability())),
            swa_ratio,
            state_ratio,
            radix: !given.flag("disable_radix_cache")?.unwrap_or(false),
            graphs: !given.flag("disable_cuda_graph")?.unwrap_or(false),
            max_decode_batch: given.positive("cuda_graph_max_bs")?,
            expert_parallel: given.count("ep_size")?.unwrap_or(1) > 1,
            flags: flags(&given, request.version)?,
            online_name: given.word("quantization")?.map(str::to_owned),
            state_bytes: match given.word("mamba_ssm_dtype")? {
                Some("bfloat16" | "float16") => 2,
                // By default recurrent states are in 32 bits, and convolutions in 16.
                _ => 4,
            },
            given: given_names(request, &given),
            assumptions,
        })
    }

    /// The parameters that entered the figures, for the answer.
    pub(super) fn report(&self, fraction: u64) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("context_length".to_owned(), json!(self.workload.context)),
            ("chunked_prefill_size".to_owned(), json!(self.chunk)),
            (
                "mem_fraction_static".to_owned(),
                json!(fraction_text(fraction).parse::<f64>().ok()),
            ),
            ("kv_cache_dtype".to_owned(), json!(self.kv_name)),
            ("dtype".to_owned(), json!(self.compute.name())),
            ("page_size".to_owned(), json!(self.page_tokens)),
            ("disable_radix_cache".to_owned(), json!(!self.radix)),
            ("disable_cuda_graph".to_owned(), json!(!self.graphs)),
        ])
    }
}

/// Whether `max_total_tokens` is `default`: a server without the flag fills its fraction of the
/// free memory.
fn server_sizes_pool(given: &Parameters) -> Result<bool, EngineError> {
    match given.value("max_total_tokens").map(Value::as_str) {
        None => Ok(false),
        Some(Some("default")) => Ok(true),
        Some(_) => Err(given.bad(
            "max_total_tokens",
            "context and sequences size the pool (ask with those), or the server sizes it itself \
             (`default`)",
        )),
    }
}

/// A constant of `profile` in millionths.
fn constant(profile: &Profile, name: &str) -> Result<u64, EngineError> {
    profile
        .millionths(name)
        .map_err(|error| super::profile_error(&error))
}

/// Tokens of a page: 64 for latents on SM90, where FlashMLA runs, and 1 elsewhere.
fn default_page_tokens(architecture: &Architecture, capability: Option<u32>) -> u64 {
    let latent = architecture
        .layers
        .iter()
        .any(|layer| matches!(layer.mixer, Mixer::Latent(_)));

    match capability {
        Some(90..100) if latent => FLASH_MLA_PAGE_TOKENS,
        _ => 1,
    }
}

/// Flags for asked parameters that change the figures, which the server must therefore get too.
fn flags(given: &Parameters, version: Option<&EngineVersion>) -> Result<Vec<String>, EngineError> {
    let mut flags = Vec::new();

    // Since 0.5.14 prefill has captures of its own, and the flag for decoding has another name; the
    // old name is ambiguous.
    let renamed = version.is_none_or(|version| version.is_at_least(&[0, 5, 14]));
    let captures = if renamed {
        "--cuda-graph-max-bs-decode"
    } else {
        "--cuda-graph-max-bs"
    };

    for (name, flag) in [
        ("page_size", "--page-size"),
        ("cuda_graph_max_bs", captures),
    ] {
        if let Some(number) = given.positive(name)? {
            flags.extend([flag.to_owned(), number.to_string()]);
        }
    }

    if let Some(ratio) = given.millionths("mamba_full_memory_ratio")? {
        flags.extend(["--mamba-full-memory-ratio".to_owned(), fraction_text(ratio)]);
    }

    // The pool and the weights are those of generation: the class keeps its head, and encoders get
    // a pool too.
    if given.flag("is_embedding")?.unwrap_or(false) {
        flags.push("--is-embedding".to_owned());
    }

    for name in ["mamba_ssm_dtype", "quantization"] {
        if let Some(word) = given.word(name)? {
            flags.extend([format!("--{}", name.replace('_', "-")), word.to_owned()]);
        }
    }

    Ok(flags)
}

/// Millionths as SGLang rounds its fraction: three decimals.
pub(super) fn fraction_text(millionths: u64) -> String {
    format!(
        "{}.{:03}",
        millionths / 1_000_000,
        millionths % 1_000_000 / 1000
    )
}

/// Prefill tokens by device memory in MiB (`arg_groups/memory_hook.py`).
fn default_chunk(mib: u64) -> u64 {
    match mib {
        0..20_480 => 2048,
        20_480..61_440 => 4096,
        61_440..163_840 => 8192,
        _ => 16_384,
    }
}

/// The largest captured decode batch, by device memory in MiB and tensor degree.
pub(super) fn default_decode(mib: u64, tensor: u32) -> u64 {
    match (mib, tensor >= 4) {
        (0..20_480, _) => 8,
        (20_480..35_840, false) => 48,
        (35_840..61_440, false) => 32,
        (20_480..61_440, true) => 160,
        (61_440..163_840, false) => 256,
        _ => 512,
    }
}

/// Resolves the workload of `request`.
fn workload(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
) -> Result<Workload, EngineError> {
    let asked = match request.asked.context {
        Some(AskedContext::Tokens(tokens)) => Some(tokens),
        Some(AskedContext::Max) => None,
        None => given.positive("context_length")?,
    };

    let context = match (asked, architecture.max_context) {
        (Some(tokens), Some(limit)) if tokens > limit || tokens == 0 => {
            return Err(EngineError::BadParameter {
                engine: ENGINE,
                name: "context_length".to_owned(),
                value: tokens.to_string(),
                why: format!("the model is configured for 1 to {limit} tokens"),
            });
        }
        (Some(tokens), _) => tokens.max(1),
        (None, limit) => limit.unwrap_or(DEFAULT_CONTEXT),
    };

    Ok(Workload {
        context,
        sequences: request.asked.sequences.unwrap_or(1).max(1),
    })
}

/// Resolves the compute dtype: for `auto`, 32 bits become float16, and bfloat16 for Gemma
/// (`configs/model_config.py`, `_get_and_verify_dtype`).
fn compute_dtype(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    assumptions: &mut Vec<String>,
) -> Result<ComputeDtype, EngineError> {
    if let Some(name) = asked_dtype(request, given)? {
        return ComputeDtype::parse(name).ok_or_else(|| {
            given.bad(
                "dtype",
                "known: auto, bfloat16, float16, half, float32, float",
            )
        });
    }

    Ok(match architecture.dtype {
        Some(Dtype::BF16) => ComputeDtype::Bfloat16,
        Some(Dtype::F16) => ComputeDtype::Float16,
        other => {
            let gemma = architecture.model_type.starts_with("gemma");
            let target = if gemma || other.is_none() {
                ComputeDtype::Bfloat16
            } else {
                ComputeDtype::Float16
            };
            assumptions.push(format!("dtype auto: {} in 16 bits", target.name()));
            target
        }
    })
}

/// Resolves the dtype of the KV cache and its name.
///
/// `auto` follows ModelOpt's FP8 and no other scheme of a checkpoint (`configure_kv_cache_dtype`).
fn kv_dtype(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    compute: ComputeDtype,
) -> Result<(KvDtype, String), EngineError> {
    let asked = asked_kv_cache_dtype(request, given)?;
    let model_optimizer_fp8 = architecture
        .quantization
        .as_ref()
        .is_some_and(|quantization| {
            quantization.method == "modelopt"
                && quantization.kv_cache_dtype.as_deref() == Some("fp8")
        });

    let name = if asked == "auto" && model_optimizer_fp8 {
        "fp8"
    } else {
        asked
    };

    let kv = KvDtype::parse(name, compute)
        .filter(|_| !VLLM_KV_DTYPES.contains(&name))
        .ok_or_else(|| EngineError::BadParameter {
            engine: ENGINE,
            name: "kv_cache_dtype".to_owned(),
            value: name.to_owned(),
            why: "known: auto, bfloat16, fp8_e4m3, fp8_e5m2, fp4_e2m1, mxfp8".to_owned(),
        })?;

    let name = if name == "auto" { compute.name() } else { name };
    Ok((kv, name.to_owned()))
}
