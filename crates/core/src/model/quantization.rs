//! What `quantization_config` (or `hf_quant_config.json`) says: the method, its sizes, its KV
//! scheme, what it skips.

/// A checkpoint's quantisation, whatever its method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantization {
    /// `quant_method`, normalised: `gptq`, `awq`, `fp8`, `compressed-tensors`, `modelopt`, `mxfp4`,
    /// `bitsandbytes`, ...
    pub method: String,
    /// What the method's own `quant_algo`, `format` or `fmt` says, where there is one.
    pub format: Option<String>,
    /// Bits of a quantised weight.
    pub bits: Option<u32>,
    /// Elements that share a scale; `None` where a scale serves a row, a channel or the whole
    /// tensor.
    pub group_size: Option<u64>,
    /// `weight_block_size` of block FP8, (rows, columns).
    pub block: Option<(u64, u64)>,
    /// Whether activations are quantised too (W8A8, W4A4); needs the matching tensor cores.
    pub activations: bool,
    /// Bits of activations, where said.
    pub activation_bits: Option<u32>,
    /// Whether quantised numbers are floats (FP8, FP4) rather than integers.
    pub float: bool,
    /// GPTQ's act-order.
    pub desc_act: bool,
    /// The cache dtype that the checkpoint asks for (`fp8`, `nvfp4`), as an engine's `auto` takes
    /// it.
    pub kv_cache_dtype: Option<String>,
    /// Module name patterns that stay unquantised.
    pub skipped: Vec<String>,
}
