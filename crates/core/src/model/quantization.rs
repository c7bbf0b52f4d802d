//! A checkpoint's quantization, from `quantization_config` or `hf_quant_config.json`.

/// A checkpoint's quantization: method, sizes, KV cache dtype and skipped modules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantization {
    /// `quant_method`, normalized: `gptq`, `awq`, `fp8`, `compressed-tensors`, `modelopt`, `mxfp4`,
    /// `bitsandbytes`, ...
    pub method: String,
    /// The value of the method's own `quant_algo`, `format` or `fmt`.
    pub format: Option<String>,
    /// Bits of a quantized weight.
    pub bits: Option<u32>,
    /// Elements that share a scale. `None` if a scale serves a row, a channel or the whole tensor.
    pub group_size: Option<u64>,
    /// `weight_block_size` of block FP8, as (rows, columns).
    pub block: Option<(u64, u64)>,
    /// Whether activations are quantized too (W8A8, W4A4). This requires the matching tensor cores.
    pub activations: bool,
    /// Bits of activations, if stated.
    pub activation_bits: Option<u32>,
    /// Whether quantized numbers are floats (FP8, FP4) rather than integers.
    pub float: bool,
    /// GPTQ's act-order.
    pub desc_act: bool,
    /// The cache dtype that the checkpoint requests (`fp8`, `nvfp4`), in the form that an engine's
    /// `auto` resolves to.
    pub kv_cache_dtype: Option<String>,
    /// Patterns of module names that stay unquantized.
    pub skipped: Vec<String>,
}
