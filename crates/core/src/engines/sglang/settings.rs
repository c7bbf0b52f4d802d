//! SGLang's parameters as they will be in force.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{ENGINE, unsupported};
use crate::engines::profile::Profile;
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, EngineVersion, Workload};
use crate::model::architecture::Mixer;
use crate::model::{Architecture, Dtype};

/// SGLang's parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(ENGINE, include_str!("../profiles/parameters/sglang.toml"));

/// The figures hold only for a server that is told of these too.
fn flags(given: &Parameters, version: Option<&EngineVersion>) -> Result<Vec<String>, EngineError> {
    let mut flags = Vec::new();

    // Since 0.5.14 prefill has captures of its own, and the flag of decoding another name; the old
    // one is ambiguous.
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

    for name in ["mamba_ssm_dtype", "quantization"] {
        if let Some(word) = given.word(name)? {
            flags.extend([format!("--{}", name.replace('_', "-")), word.to_owned()]);
        }
    }

    Ok(flags)
}

/// `max_total_tokens` by its word: a server without the flag fills its fraction of what is free.
fn own_pool(given: &Parameters) -> Result<bool, EngineError> {
    match given.value("max_total_tokens").map(Value::as_str) {
        None => Ok(false),
        Some(Some("default")) => Ok(true),
        Some(_) => {
            let why = "the pool is sized here from the context and the sequences (ask with those), or by the server \
                       itself (`default`)";
            Err(given.bad("max_total_tokens", why))
        }
    }
}

/// Cache dtypes that only vLLM has.
const KV_OF_OTHERS: &[&str] = &[
    "int8_per_token_head",
    "fp8_per_token_head",
    "int4_per_token_head",
    "fp8_ds_mla",
    "nvfp4_ds_mla",
    "fp8_inc",
];

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
    /// Whether the server sizes its pool itself, from its fraction of what is free, whatever the
    /// workload needs.
    pub(super) own_pool: bool,
    pub(super) max_running: Option<u64>,
    pub(super) compute: ComputeDtype,
    pub(super) kv: KvDtype,
    pub(super) kv_name: String,
    pub(super) page_tokens: u64,
    pub(super) swa_ratio: u64,
    /// What states take to what tokens take, in millionths.
    pub(super) state_ratio: u64,
    pub(super) radix: bool,
    pub(super) graphs: bool,
    pub(super) decode_most: Option<u64>,
    pub(super) expert_parallel: bool,
    pub(super) state_bytes: u64,
    /// `quantization`, as given.
    pub(super) online_name: Option<String>,
    pub(super) given: BTreeSet<String>,
    /// Flags for what was asked and changes the figures, and that no other field carries to the
    /// command line.
    pub(super) flags: Vec<String>,
    pub(super) assumptions: Vec<String>,
}

impl SglangSettings {
    pub(super) fn settle(
        case: &EngineRequest<'_>,
        architecture: &Architecture,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, case.version, case.parameters)?;
        let own_pool = own_pool(&given)?;

        let device = case
            .devices
            .first()
            .ok_or_else(|| unsupported("there is no device to run on"))?;
        let mut assumptions = Vec::new();
        let compute = compute_dtype(case, architecture, &given, &mut assumptions)?;

        let asked_kv = case
            .asked
            .kv_cache_dtype
            .as_deref()
            .or(given.word("kv_cache_dtype")?)
            .unwrap_or("auto");

        // `auto` follows ModelOpt's FP8 and no other scheme of a checkpoint
        // (`configure_kv_cache_dtype`).
        let scheme = architecture
            .quantization
            .as_ref()
            .filter(|quantization| quantization.method == "modelopt");
        let scheme = scheme.and_then(|quantization| {
            quantization
                .kv_cache_dtype
                .as_deref()
                .filter(|name| *name == "fp8")
        });

        let kv_name = if asked_kv == "auto" {
            scheme.unwrap_or("auto")
        } else {
            asked_kv
        };

        let kv = KvDtype::parse(kv_name, compute)
            .filter(|_| !KV_OF_OTHERS.contains(&kv_name))
            .ok_or_else(|| EngineError::BadParameter {
                engine: ENGINE,
                name: "kv_cache_dtype".to_owned(),
                value: kv_name.to_owned(),
                why: "known: auto, bfloat16, fp8_e4m3, fp8_e5m2, fp4_e2m1, mxfp8".to_owned(),
            })?;

        let override_ratio = given.share("swa_full_tokens_ratio")?;
        let constant = |name: &str| {
            profile
                .millionths(name)
                .map_err(|error| super::profile_error(&error))
        };

        let latent = architecture
            .layers
            .iter()
            .any(|layer| matches!(layer.mixer, Mixer::Latent(_)));

        let sparse = latent
            && device
                .capability()
                .is_some_and(|capability| (90..100).contains(&capability));
        Ok(Self {
            workload: workload(case, architecture, &given)?,
            chunk: given
                .positive("chunked_prefill_size")?
                .unwrap_or_else(|| default_chunk(device.total_bytes.get() >> 20)),
            asked_fraction: given.share("mem_fraction_static")?,
            own_pool,
            max_running: given.positive("max_running_requests")?,
            compute,
            kv,
            kv_name: if kv_name == "auto" {
                compute.name().to_owned()
            } else {
                kv_name.to_owned()
            },
            // FlashMLA pages hold 64 tokens; elsewhere a page is one token.
            page_tokens: given
                .positive("page_size")?
                .unwrap_or(if sparse { 64 } else { 1 }),
            swa_ratio: override_ratio.map_or_else(|| constant("swa_full_tokens_ratio"), Ok)?,
            state_ratio: given
                .millionths("mamba_full_memory_ratio")?
                .map_or_else(|| constant("mamba_full_memory_ratio"), Ok)?,
            radix: !given.flag("disable_radix_cache")?.unwrap_or(false),
            graphs: !given.flag("disable_cuda_graph")?.unwrap_or(false),
            decode_most: given.positive("cuda_graph_max_bs")?,
            expert_parallel: given.count("ep_size")?.unwrap_or(1) > 1,
            flags: flags(&given, case.version)?,
            online_name: given.word("quantization")?.map(str::to_owned),
            state_bytes: match given.word("mamba_ssm_dtype")? {
                Some("bfloat16" | "float16") => 2,
                // Recurrent states are in 32 bits by default, convolutions in 16.
                _ => 4,
            },
            given: {
                let dtype = case.asked.dtype.as_ref().map(|_| "dtype".to_owned());
                given.names().into_iter().chain(dtype).collect()
            },
            assumptions,
        })
    }

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

/// Largest decode batch that is captured, by device memory in MiB and tensor degree.
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

fn workload(
    case: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
) -> Result<Workload, EngineError> {
    let asked = match case.asked.context {
        Some(AskedContext::Tokens(tokens)) => Some(tokens),
        Some(AskedContext::Max) => None,
        None => given.positive("context_length")?,
    };

    let context = match (asked, architecture.max_context) {
        (Some(tokens), Some(most)) if tokens > most || tokens == 0 => {
            return Err(EngineError::BadParameter {
                engine: ENGINE,
                name: "context_length".to_owned(),
                value: tokens.to_string(),
                why: format!("the model is configured for 1 to {most} tokens"),
            });
        }
        (Some(tokens), _) => tokens.max(1),
        (None, most) => most.unwrap_or(2048),
    };

    Ok(Workload {
        context,
        sequences: case.asked.sequences.unwrap_or(1).max(1),
    })
}

/// `configs/model_config.py`, `_get_and_verify_dtype`: 32 bits become float16, Gemma's bfloat16.
fn compute_dtype(
    case: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    assumptions: &mut Vec<String>,
) -> Result<ComputeDtype, EngineError> {
    let wanted = case
        .asked
        .dtype
        .as_deref()
        .or(given.word("dtype")?)
        .filter(|name| *name != "auto");
    if let Some(name) = wanted {
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
