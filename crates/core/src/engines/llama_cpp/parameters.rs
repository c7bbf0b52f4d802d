//! llama-server's parameters, by the names of its C structures and of its command line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::draft_parameters::DraftParameters;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::{EngineError, EngineVersion};
use crate::model::Dtype;

/// The engine's name.
pub(crate) const ENGINE: &str = "llama.cpp";

/// llama-server's parameters by name.
static PARAMETERS: ParameterList = ParameterList::new(
    ENGINE,
    include_str!("../profiles/parameters/llama_cpp.toml"),
);

/// The given parameters, by canonical name.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a separate switch of llama-server"
)]
pub(crate) struct LlamaParameters {
    pub(crate) n_ctx: Option<u64>,
    /// Whether `-c 0` demands the model's whole context.
    pub(crate) full_context: bool,
    pub(crate) n_batch: Option<u64>,
    pub(crate) n_ubatch: Option<u64>,
    pub(crate) n_parallel: Option<u64>,
    pub(crate) n_outputs_max: Option<u64>,
    pub(crate) kv_unified: Option<bool>,
    pub(crate) flash_attn: Option<bool>,
    pub(crate) type_k: Option<Dtype>,
    pub(crate) type_v: Option<Dtype>,
    pub(crate) n_gpu_layers: Option<u32>,
    pub(crate) tensor_split: Option<Vec<u64>>,
    pub(crate) n_cpu_moe: Option<u32>,
    pub(crate) swa_full: bool,
    pub(crate) no_kv_offload: bool,
    pub(crate) no_mmap: bool,
    pub(crate) mmproj: Option<String>,
    /// Whether no projector is loaded.
    pub(crate) no_mmproj: bool,
    /// Whether the projector runs on the host.
    pub(crate) no_mmproj_offload: bool,
    /// Whether everything is on the first device.
    pub(crate) single: bool,
    pub(crate) no_fit: bool,
    pub(crate) fit_target: Option<u64>,
    /// MiB of host memory for saved prompts.
    pub(crate) cache_ram: Option<u64>,
    pub(crate) draft: DraftParameters,
}

/// The dtype of a cache type of llama.cpp (`common/arg.cpp`, `kv_cache_types`).
pub(crate) fn cache_type(name: &str) -> Option<Dtype> {
    Some(match name.to_ascii_lowercase().as_str() {
        "f32" => Dtype::F32,
        "f16" => Dtype::F16,
        "bf16" => Dtype::BF16,
        "q8_0" => Dtype::Q8_0,
        "q4_0" => Dtype::Q4_0,
        "q4_1" => Dtype::Q4_1,
        "iq4_nl" => Dtype::IQ4_NL,
        "q5_0" => Dtype::Q5_0,
        "q5_1" => Dtype::Q5_1,
        _ => return None,
    })
}

pub(super) fn bad(name: &str, value: &Value, why: impl Into<String>) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value: value.to_string(),
        why: why.into(),
    }
}

pub(super) fn not_counted(name: &str, value: &Value, why: &str) -> EngineError {
    let (name, value, why) = (name.to_owned(), value.to_string(), why.to_owned());
    EngineError::UnsupportedParameter {
        engine: ENGINE,
        name,
        value,
        why,
    }
}

/// llama-server's default of `cache_ram` (`common/common.h`).
const MAX_SAVED_PROMPTS_MIB: u64 = 8192;

pub(super) fn whole(name: &str, value: &Value) -> Result<u64, EngineError> {
    let number = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));

    match number {
        Some(number) if number <= 1 << 40 => Ok(number),
        Some(_) => Err(bad(name, value, "too large")),
        None => Err(bad(name, value, "not a whole number")),
    }
}

/// MiB of host memory for saved prompts: at most the default, which answers name.
///
/// More, or -1 for no limit, would be host memory that no figure counts.
fn saved_prompts(name: &str, value: &Value) -> Result<u64, EngineError> {
    let mib = match value.as_i64() {
        Some(-1) => u64::MAX,
        _ => whole(name, value)?,
    };
    if mib <= MAX_SAVED_PROMPTS_MIB {
        return Ok(mib);
    }

    Err(EngineError::UnsupportedParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value: value.to_string(),
        why: format!(
            "not counted yet (saved prompts are kept on the host, up to this many MiB); leave it \
             out, or set it to {MAX_SAVED_PROMPTS_MIB} at most"
        ),
    })
}

pub(super) fn small(name: &str, value: &Value) -> Result<u32, EngineError> {
    u32::try_from(whole(name, value)?).map_err(|_| bad(name, value, "too large"))
}

fn positive(name: &str, value: &Value) -> Result<u64, EngineError> {
    match whole(name, value)? {
        0 => Err(bad(name, value, "must be larger than 0")),
        number => Ok(number),
    }
}

pub(super) fn truth(name: &str, value: &Value) -> Result<bool, EngineError> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "1" | "enabled" | "" => Ok(true),
            "off" | "false" | "0" | "disabled" => Ok(false),
            _ => Err(bad(name, value, "not on or off")),
        },
        _ => Err(bad(name, value, "not on or off")),
    }
}

pub(super) fn dtype(name: &str, value: &Value) -> Result<Dtype, EngineError> {
    let known = "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl";
    value
        .as_str()
        .and_then(cache_type)
        .ok_or_else(|| bad(name, value, format!("known cache types: {known}")))
}

/// Parses shares as `3,1` or `[3, 1]`, in thousandths.
fn shares(name: &str, value: &Value) -> Result<Vec<u64>, EngineError> {
    let texts: Vec<String> = match value {
        Value::String(text) => text
            .split([',', '/', ';'])
            .map(|part| part.trim().to_owned())
            .collect(),
        Value::Array(items) => items.iter().map(Value::to_string).collect(),
        Value::Number(number) => vec![number.to_string()],
        _ => return Err(bad(name, value, "not a list of shares such as 3,1")),
    };

    let shares = texts
        .iter()
        .map(|text| thousandths(text))
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| bad(name, value, "not a list of shares such as 3,1"))?;

    if shares.iter().all(|share| *share == 0) {
        Err(bad(name, value, "all shares are 0"))
    } else {
        Ok(shares)
    }
}

/// A decimal number in thousandths.
fn thousandths(text: &str) -> Option<u64> {
    let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{fraction:0<3}");
    let fraction = digits.get(..3)?.parse::<u64>().ok()?;
    let units = units
        .parse::<u64>()
        .ok()
        .filter(|units| *units <= 1 << 30)?;

    Some(units * 1000 + fraction)
}

/// Reads parameters given under any of their names.
pub(crate) fn read(
    version: Option<&EngineVersion>,
    given: &BTreeMap<String, Value>,
) -> Result<LlamaParameters, EngineError> {
    let mut all = LlamaParameters::default();
    for (name, value) in PARAMETERS.counted(version, given)? {
        set(&mut all, &name, &value)?;
    }
    Ok(all)
}

fn set(all: &mut LlamaParameters, name: &str, value: &Value) -> Result<(), EngineError> {
    if all.draft.set(name, value)? {
        return Ok(());
    }

    match name {
        "n_ctx" => {
            let tokens = whole(name, value)?;
            all.full_context = tokens == 0;
            all.n_ctx = Some(tokens).filter(|tokens| *tokens > 0);
        }
        "n_batch" => all.n_batch = Some(positive(name, value)?),
        "n_ubatch" => all.n_ubatch = Some(positive(name, value)?),
        "n_parallel" => match value.as_i64() {
            Some(-1) => {}
            _ => all.n_parallel = Some(positive(name, value)?),
        },
        "n_outputs_max" => all.n_outputs_max = Some(positive(name, value)?),
        "kv_unified" => all.kv_unified = Some(truth(name, value)?),
        "flash_attn" if value.as_str() == Some("auto") || value.as_i64() == Some(-1) => {}
        "flash_attn" => all.flash_attn = Some(truth(name, value)?),
        "type_k" => all.type_k = Some(dtype(name, value)?),
        "type_v" => all.type_v = Some(dtype(name, value)?),
        "n_gpu_layers" => match (value.as_i64(), value.as_str()) {
            (Some(-1), _) | (_, Some("auto" | "all" | "-1")) => {}
            _ => all.n_gpu_layers = Some(small(name, value)?),
        },
        "tensor_split" => all.tensor_split = Some(shares(name, value)?),
        "split_mode" => match value.as_str() {
            Some("layer") => {}
            Some("none") => all.single = true,
            Some("row" | "tensor") => {
                return Err(not_counted(name, value, "only the layer split is counted"));
            }
            _ => return Err(bad(name, value, "known: none, layer")),
        },
        "n_cpu_moe" => all.n_cpu_moe = Some(small(name, value)?),
        "cpu_moe" if truth(name, value)? => all.n_cpu_moe = Some(u32::MAX),
        "cpu_moe" => {}
        "swa_full" => all.swa_full = truth(name, value)?,
        "no_kv_offload" => all.no_kv_offload = truth(name, value)?,
        "kv_offload" => all.no_kv_offload = !truth(name, value)?,
        "use_mmap" => all.no_mmap = !truth(name, value)?,
        "no_mmap" => all.no_mmap = truth(name, value)?,
        "no_mmproj" => all.no_mmproj = truth(name, value)?,
        "no_mmproj_offload" => all.no_mmproj_offload = truth(name, value)?,
        "mmproj" => match value.as_str() {
            Some(path) => all.mmproj = Some(path.to_owned()),
            None => return Err(bad(name, value, "not a file name")),
        },
        "fit" => all.no_fit = !truth(name, value)?,
        "fit_target" => all.fit_target = Some(whole(name, value)?),
        "cache_ram" => all.cache_ram = Some(saved_prompts(name, value)?),
        // Every counted name has an arm above, as a test checks. Other names are unknown
        // parameters.
        _ => {
            return Err(EngineError::UnknownParameter {
                engine: ENGINE,
                name: name.to_owned(),
                nearest: None,
            });
        }
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    fn ask(pairs: &[(&str, Value)]) -> Result<LlamaParameters, EngineError> {
        read(None, &given(pairs))
    }

    #[test]
    fn flags_and_structure_names_agree() {
        let short = ask(&[
            ("ub", json!(256)),
            ("fa", json!("on")),
            ("ctk", json!("q8_0")),
            ("ts", json!("3,1.5")),
        ]);

        let long = [
            ("n_ubatch", json!("256")),
            ("flash_attn", json!(true)),
            ("type_k", json!("Q8_0")),
        ];
        let mut long = given(&long);
        long.insert("tensor-split".into(), json!([3, 1.5]));
        assert_eq!(short.unwrap(), read(None, &long).unwrap());
    }

    #[test]
    fn saved_prompts_beyond_default_are_uncounted() {
        for mib in [0, 8192] {
            assert_eq!(ask(&[("cram", json!(mib))]).unwrap().cache_ram, Some(mib));
        }

        for mib in [-1, 8193, 65_536] {
            assert!(
                matches!(
                    ask(&[("cache_ram", json!(mib))]),
                    Err(EngineError::UnsupportedParameter { .. })
                ),
                "{mib}"
            );
        }
    }

    #[test]
    fn counted_names_are_all_read() {
        for name in PARAMETERS.counted_names().unwrap() {
            let values = [
                json!(1),
                json!("f16"),
                json!("layer"),
                json!("on"),
                json!("x.gguf"),
                json!("draft-mtp"),
            ];
            assert!(
                values
                    .iter()
                    .any(|value| ask(&[(name, value.clone())]).is_ok()),
                "{name}"
            );
        }
    }

    #[test]
    fn uncounted_names_are_unsupported() {
        for (name, value, says) in [
            ("ot", json!("exps=CPU"), "n_cpu_moe"),
            ("model-draft", json!("x.gguf"), "as the model's draft"),
            ("lora", json!("x.gguf"), "adapter"),
            ("rpc", json!("host:1"), "other hosts"),
        ] {
            let error = ask(&[(name, value)]).unwrap_err();
            assert!(
                matches!(error, EngineError::UnsupportedParameter { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(says), "{error}");
        }

        assert!(
            ask(&[("mg", json!(1))])
                .unwrap_err()
                .to_string()
                .contains("--on")
        );
    }

    #[test]
    fn server_settings_are_accepted() {
        let all = ask(&[
            ("threads", json!(8)),
            ("jinja", json!("")),
            ("alias", json!("x")),
            ("no-webui", json!(true)),
        ]);
        assert_eq!(all.unwrap(), LlamaParameters::default());
    }

    #[test]
    fn unknown_names_suggest_nearest() {
        let error = ask(&[("n_ubatches", json!(1))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "llama.cpp has no parameter 'n_ubatches'; did you mean 'n_ubatch'?"
        );
        assert!(ask(&[("n_batch", json!(0))]).is_err());
        assert!(ask(&[("type_v", json!("fp8"))]).is_err());
        let rows = ask(&[("split_mode", json!("row"))]);
        assert!(
            matches!(rows, Err(EngineError::UnsupportedParameter { .. })),
            "{rows:?}"
        );
        assert!(ask(&[("c", json!(1)), ("n_ctx", json!(1))]).is_err());
    }
}
