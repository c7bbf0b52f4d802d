//! Reads `quantization_config`, `compression_config` and `hf_quant_config.json` into one form.
//!
//! Sources: each method's configuration class in vLLM `model_executor/layers/quantization/` and
//! compressed-tensors' `QuantizationConfig`. Normalization follows vLLM `config/model.py`
//! (`_parse_quant_hf_config`).

use serde_json::Value;

use super::super::architecture::Unsupported;
use super::super::quantization::Quantization;
use super::fields::{Fields, Object, contradiction, cut};

/// Maximum number of groups that are read of one checkpoint.
const MAX_GROUPS: usize = 256;
/// Maximum number of patterns that are kept of a skip list. Published lists reach a few thousand.
const MAX_SKIPPED: usize = 16384;

/// Reads the checkpoint's quantization; `None` if it has none.
pub(super) fn quantization(
    fields: &Fields<'_>,
    file: Option<&Value>,
) -> Result<Option<Quantization>, Unsupported> {
    let root = fields.inside(fields.root);
    let mut config = None;
    for key in ["quantization_config", "compression_config"] {
        config = config
            .or(root.object(key)?)
            .or(fields.inside(fields.own).object(key)?);
    }
    // MLX writes {"group_size", "bits"} to `quantization`, and since 2024 to `quantization_config`
    // too.
    let mlx = root
        .object("quantization")?
        .filter(|object| object.contains_key("bits"));

    let file = file
        .and_then(|file| file.get("quantization"))
        .and_then(Value::as_object);
    let Some(config) = config.or(mlx).or(file).filter(|object| !object.is_empty()) else {
        return Ok(None);
    };

    // ModelOpt's older exports put the content of `hf_quant_config.json` there.
    let exported = config
        .get("quantization")
        .and_then(Value::as_object)
        .filter(|inner| inner.contains_key("quant_algo"));
    let fields = root.inside(exported.unwrap_or(config));
    let mut quantization = read(&fields)?;

    // Some ModelOpt exports state the cache's dtype only in `hf_quant_config.json`.
    if let Some(file) = file {
        quantization.kv_cache_dtype = quantization
            .kv_cache_dtype
            .or(kv_cache(&root.inside(file))?);
    }

    Ok(Some(quantization))
}

fn read(fields: &Fields<'_>) -> Result<Quantization, Unsupported> {
    let algorithm = fields.text("quant_algo");
    if let Some(other) = fields
        .value("quant_method")
        .filter(|value| !value.is_string())
    {
        return Err(contradiction("quant_method", other, "a word is expected"));
    }
    // Some exports write it with an underscore (vLLM `_normalize_quantization_config`).
    let method = fields.text("quant_method").map(|method| {
        method
            .to_ascii_lowercase()
            .replace("compressed_t", "compressed-t")
    });

    let method = match method {
        Some(method) => method,
        None if algorithm.is_some() => "modelopt".to_owned(),
        None if fields.flag("load_in_4bit")? == Some(true)
            || fields.flag("load_in_8bit")? == Some(true) =>
        {
            "bitsandbytes".to_owned()
        }
        None if fields.value("bits").is_some() => "mlx".to_owned(),
        None => return Err(fields.missing("quantization_config.quant_method")),
    };

    let mut quantization = Quantization {
        format: algorithm
            .or(fields.text("format"))
            .or(fields.text("fmt"))
            .or(fields.text("quant_type"))
            .map(str::to_owned),
        bits: bits(fields, &["bits", "w_bit", "num_bits", "nbits"])?,
        group_size: group_size(fields)?,
        desc_act: fields.flag("desc_act")? == Some(true),
        kv_cache_dtype: kv_cache(fields)?,
        skipped: skipped(fields),
        method,
        ..Quantization::default()
    };

    match quantization.method.as_str() {
        "fp8" | "fbgemm_fp8" | "modelopt_fp8" => {
            quantization.bits = Some(8);
            quantization.float = true;
            // Per-tensor, per-token and block FP8 quantize activations. `activation_scheme` is null
            // only for W8A16.
            quantization.activations = true;
            quantization.activation_bits = Some(8);
            quantization.block = block(fields)?;
        }
        "mxfp4" => {
            quantization.bits = Some(4);
            quantization.float = true;
            quantization.group_size = Some(32);
        }
        "bitsandbytes" => {
            let is_four_bit = fields.flag("load_in_4bit")? == Some(true);
            quantization.bits = Some(if is_four_bit { 4 } else { 8 });
            quantization.group_size = is_four_bit.then_some(64);
            quantization.float = is_four_bit;

            quantization.format = if is_four_bit {
                fields.text("bnb_4bit_quant_type").map(str::to_owned)
            } else {
                None
            };
        }
        "compressed-tensors" => compressed_tensors(fields, &mut quantization)?,
        "quark" => quark(fields, &mut quantization),
        method if method.starts_with("modelopt") || algorithm.is_some() => {
            let name = algorithm.unwrap_or(method).to_ascii_uppercase();
            model_optimizer(&name, &mut quantization);
        }
        _ => {}
    }
    // For any other method, engines look for no such field, and the cache has the model's dtype.
    if !matches!(&*quantization.method, "modelopt" | "compressed-tensors") {
        quantization.kv_cache_dtype = None;
    }

    Ok(quantization)
}

fn bits(fields: &Fields<'_>, keys: &[&str]) -> Result<Option<u32>, Unsupported> {
    // ExLlama writes an average such as 4.65, which no single weight has.
    if keys
        .iter()
        .any(|key| fields.value(key).is_some_and(Value::is_f64))
    {
        return Ok(None);
    }

    let bits = fields.count(keys)?;
    if let Some(bits) = bits.filter(|bits| *bits == 0 || *bits > 64) {
        return Err(contradiction(
            "bits",
            &bits.into(),
            "between 1 and 64 is expected",
        ));
    }

    Ok(bits.and_then(|bits| u32::try_from(bits).ok()))
}

/// Reads the group size; `None` if one scale serves a whole row, which files write as -1.
fn group_size(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let key = if fields.value("q_group_size").is_some() {
        "q_group_size"
    } else {
        "group_size"
    };

    if fields
        .value(key)
        .and_then(Value::as_i64)
        .is_some_and(|size| size < 0)
    {
        return Ok(None);
    }

    Ok(fields.count(&[key])?.filter(|size| *size > 0))
}

fn block(fields: &Fields<'_>) -> Result<Option<(u64, u64)>, Unsupported> {
    match fields.numbers("weight_block_size")?.as_deref() {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok(Some((rows, columns))),
        None => Ok(None),
        Some(other) => Err(fields.length("weight_block_size", other.len(), 2)),
    }
}

/// Reads compressed-tensors, with the most bits of any of its groups.
fn compressed_tensors(
    fields: &Fields<'_>,
    quantization: &mut Quantization,
) -> Result<(), Unsupported> {
    let Some(groups) = fields.object("config_groups")? else {
        return Ok(());
    };

    if groups.len() > MAX_GROUPS {
        let why = format!("only the first {MAX_GROUPS} groups are read");
        fields.ignore_part(&contradiction("config_groups", &groups.len().into(), why));
    }

    for group in groups
        .values()
        .take(MAX_GROUPS)
        .filter_map(Value::as_object)
    {
        let group = fields.inside(group);
        if let Some(weights) = group.object("weights")? {
            let weights = fields.inside(weights);
            quantization.bits = quantization.bits.max(bits(&weights, &["num_bits"])?);
            quantization.float |= weights.text("type") == Some("float");
            quantization.group_size = quantization.group_size.or(group_size(&weights)?);

            if weights
                .value("block_structure")
                .is_some_and(Value::is_array)
                && let Some(&[rows, columns]) = weights.numbers("block_structure")?.as_deref()
            {
                quantization.block = Some((rows, columns));
            }

            quantization.desc_act |= weights
                .text("actorder")
                .is_some_and(|order| order == "group");
        }

        if let Some(inputs) = group.object("input_activations")? {
            quantization.activations = true;
            quantization.activation_bits = bits(&fields.inside(inputs), &["num_bits"])?;
        }
    }

    Ok(())
}

/// Reads AMD Quark: the dtype of all weights, such as `fp8_e4m3`, `int8`, `uint4`.
///
/// If several are nested, the first one is used.
fn quark(fields: &Fields<'_>, quantization: &mut Quantization) {
    let Some(global) = fields.value("global_quant_config") else {
        return;
    };

    let Some(dtype) = quark_tensor(global, "weight")
        .and_then(|weight| weight.get("dtype"))
        .and_then(Value::as_str)
    else {
        return;
    };

    let bits = dtype.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let bits = bits
        .get(..1)
        .and_then(|digit| digit.parse().ok())
        .filter(|bits| (1..=8).contains(bits));

    if dtype.starts_with("float16") || dtype.starts_with("bfloat16") {
        return;
    }

    if bits.is_none() {
        fields.ignore(
            "global_quant_config.weight.dtype",
            &dtype.into(),
            "1 to 8 bits are expected",
        );
        return;
    }

    quantization.bits = bits;
    quantization.float = dtype.starts_with("fp") || dtype.starts_with("mx");
    quantization.activations = quark_tensor(global, "input_tensors").is_some();
    quantization.format = Some(cut(dtype, 40));
}

/// Returns the settings of one kind of tensor, or the first if there are several.
fn quark_tensor<'a>(global: &'a Value, key: &str) -> Option<&'a Object> {
    match global.get(key) {
        Some(Value::Array(all)) => all.first().and_then(Value::as_object),
        other => other.and_then(Value::as_object),
    }
}

/// Reads NVIDIA ModelOpt, whose algorithm name determines everything.
fn model_optimizer(name: &str, quantization: &mut Quantization) {
    "modelopt".clone_into(&mut quantization.method);
    let (bits, activation_bits) = match name {
        name if name.contains("NVFP4") || name.contains("FP4") => (Some(4), Some(4)),
        name if name.contains("W4A8") => (Some(4), Some(8)),
        name if name.contains("W4A16") => (Some(4), None),
        name if name.contains("PB_WO") || name.contains("WEIGHT_ONLY") => (Some(8), None),
        name if name.contains('8') => (Some(8), Some(8)),
        _ => (None, None),
    };

    quantization.bits = quantization.bits.or(bits);
    quantization.activations = activation_bits.is_some();
    quantization.activation_bits = activation_bits;
    quantization.float = name.contains("FP");

    if quantization.group_size.is_none() && name.contains("NVFP4") {
        quantization.group_size = Some(16);
    }
}

/// Reads the dtype that the checkpoint requests for its cache.
///
/// Source: vLLM `utils/torch_utils.py`, `get_kv_cache_quant_algo_string`.
fn kv_cache(fields: &Fields<'_>) -> Result<Option<String>, Unsupported> {
    if let Some(algorithm) = fields.text("kv_cache_quant_algo") {
        return Ok(match algorithm.to_ascii_uppercase().as_str() {
            "FP8" => Some("fp8".to_owned()),
            "NVFP4" => Some("nvfp4".to_owned()),
            _ => None,
        });
    }

    let Some(scheme) = fields.value("kv_cache_scheme").and_then(Value::as_object) else {
        return Ok(None);
    };

    let scheme = fields.inside(scheme);
    let float = scheme.text("type") == Some("float");

    Ok(match (bits(&scheme, &["num_bits"])?, float) {
        (Some(8), true) if scheme.flag("dynamic")? != Some(true) => Some("fp8".to_owned()),
        (Some(4), true) => Some("nvfp4".to_owned()),
        _ => None,
    })
}

/// Returns the modules that are not quantized. Each method has a key of its own for them.
fn skipped(fields: &Fields<'_>) -> Vec<String> {
    const KEYS: &[&str] = &[
        "modules_to_not_convert",
        "ignored_layers",
        "ignore",
        "exclude_modules",
        "exclude",
        "llm_int8_skip_modules",
    ];

    let lists = KEYS
        .iter()
        .filter_map(|key| fields.own.get(*key))
        .filter_map(Value::as_array);
    lists
        .flatten()
        .filter_map(Value::as_str)
        .take(MAX_SKIPPED)
        .map(str::to_owned)
        .collect()
}
