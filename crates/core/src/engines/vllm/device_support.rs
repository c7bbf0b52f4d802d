//! Whether a device can run a model's dtype and quantization in vLLM, natively or at a cost.
//!
//! Source: vLLM 0.33 `layers/quantization/**` (`get_min_capability`) and the kernels' own
//! selection.

use super::dtypes::is_unstable_in_half;
use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::engines::shared::device_support::{
    NO_FP4_TENSOR_CORES, NO_FP8_TENSOR_CORES, is_fp4, names_fp4, needs_capability,
    unknown_capability,
};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::model::architecture::Mixer;
use crate::model::quantization::Quantization;
use crate::model::{Architecture, Dtype};

/// The lowest compute capability that vLLM runs on: 7.0.
const MIN_CAPABILITY: u32 = 70;

/// The demands of a model on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) compute: ComputeDtype,
    pub(super) asked_dtype: bool,
    pub(super) kv: KvDtype,
    /// Whether the release refuses float16 for families that are unstable in it.
    pub(super) refuses_half: bool,
    /// The method that quantizes at load, if asked for.
    pub(super) online: Option<&'a str>,
}

/// The verdict on one device.
pub(super) fn device_support(demands: &Demands<'_>, device: &DeviceFacts) -> DeviceSupport {
    let Some(capability) = device.capability() else {
        return unknown_capability();
    };

    if let Some(unable) = veto(demands, capability) {
        return unable;
    }

    let architecture = demands.architecture;
    let cost = fallback(architecture, demands.online, capability)
        .or_else(|| half_fallback(architecture, capability));
    cost.map_or(DeviceSupport::Able, |cost| {
        DeviceSupport::Degraded(cost.to_owned())
    })
}

/// Why the device cannot run the model; `None` if it can.
fn veto(demands: &Demands<'_>, capability: u32) -> Option<DeviceSupport> {
    let architecture = demands.architecture;
    if capability < MIN_CAPABILITY {
        return Some(needs_capability("vLLM", MIN_CAPABILITY, capability));
    }

    if capability < 80 {
        if demands.compute == ComputeDtype::Bfloat16 && demands.asked_dtype {
            return Some(needs_capability("bfloat16", 80, capability));
        }

        let half_refused = demands.refuses_half && is_unstable_in_half(architecture);
        if half_refused && demands.compute != ComputeDtype::Float32 {
            return Some(DeviceSupport::Unable(format!(
                "{} needs bfloat16 (compute capability 8.0) and refuses float16",
                architecture.model_type
            )));
        }
    }

    let (minimum, method) = minimum_capability(architecture, demands.online);
    if capability < minimum {
        return Some(needs_capability(&method, minimum, capability));
    }

    let sparse = architecture.layers.iter().any(|layer| {
        matches!(
            &layer.mixer,
            Mixer::Latent(latent) if latent.indexer.is_some() || latent.compress_ratio.is_some()
        )
    });
    if sparse && capability < 90 {
        return Some(needs_capability("sparse latent attention", 90, capability));
    }

    // FlashInfer reads an FP8 cache when FlashAttention does not; it starts at 7.5.
    match demands.kv {
        KvDtype::Nvfp4 if capability < 80 => {
            Some(needs_capability("an nvfp4 cache", 80, capability))
        }
        KvDtype::Fp8 if capability < 75 => Some(needs_capability("an fp8 cache", 75, capability)),
        _ => None,
    }
}

/// The cost of bfloat16 weights on a device that lacks the dtype.
fn half_fallback(architecture: &Architecture, capability: u32) -> Option<&'static str> {
    (capability < 80 && architecture.dtype == Some(Dtype::BF16))
        .then_some("bfloat16 weights run as float16 below compute capability 8.0")
}

/// (minimum compute capability, the method that needs it).
fn minimum_capability(architecture: &Architecture, online: Option<&str>) -> (u32, String) {
    let Some(quantization) = &architecture.quantization else {
        return match online {
            Some("experts_int8") => (80, "experts_int8".to_owned()),
            Some(method) => (75, method.to_owned()),
            None => (MIN_CAPABILITY, "vLLM".to_owned()),
        };
    };

    let format = quantization.format.as_deref().unwrap_or_default();
    let name = if format.is_empty() {
        quantization.method.clone()
    } else {
        format!("{} {format}", quantization.method)
    };

    (method_minimum(quantization), name)
}

/// The minimum compute capability of a checkpoint's method.
///
/// Below 8.9, vLLM leaves FP8 activations out (`compressed_tensors.py`, `get_scheme`): see
/// [`fallback`].
fn method_minimum(quantization: &Quantization) -> u32 {
    let format = quantization.format.as_deref().unwrap_or_default();
    let bits = quantization.bits.unwrap_or(16);

    match &*quantization.method {
        "gptq" | "inc" | "auto-round" | "auto_round" => 60,
        "moe_wna16" => 70,
        "quark" if quantization.float && bits == 8 => 89,
        "quark" if bits == 8 => 75,
        "quark" => 70,
        "compressed-tensors"
            if quantization.activations && bits == 4 && quantization.activation_bits == Some(8) =>
        {
            90
        }
        "compressed-tensors" if format.starts_with("mxfp4") => 80,
        "modelopt" if !names_fp4(format) && bits == 8 => 80,
        "mxfp4" | "experts_int8" | "fbgemm_fp8" => 80,
        "fp_quant" => 100,
        _ => 75,
    }
}

/// The cost of kernels that the method was not made for, which use the same bytes.
fn fallback(
    architecture: &Architecture,
    online: Option<&str>,
    capability: u32,
) -> Option<&'static str> {
    let quantization = architecture.quantization.as_ref();
    let method = quantization
        .map(|quantization| &*quantization.method)
        .or(online)?;

    let fp4 = quantization.is_some_and(is_fp4) || names_fp4(method);
    if fp4 && capability < 100 {
        return Some(NO_FP4_TENSOR_CORES);
    }

    let has_fp8_products = quantization.is_some_and(|quantization| {
        quantization.float
            && quantization.bits == Some(8)
            && (method == "modelopt"
                || (method == "compressed-tensors" && quantization.activations))
    });
    let fp8 = method.contains("fp8") || has_fp8_products;

    (fp8 && capability < 89).then_some(NO_FP8_TENSOR_CORES)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engines::sample;
    use crate::engines::shared::device_support::verdicts;

    fn demands(architecture: &Architecture, kv: KvDtype) -> Demands<'_> {
        Demands {
            architecture,
            compute: ComputeDtype::Float16,
            asked_dtype: false,
            kv,
            refuses_half: false,
            online: None,
        }
    }

    #[test]
    fn unreadable_cache_is_vetoed() {
        let config = json!({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}});
        let architecture =
            crate::model::config::architecture(&config, None, &crate::model::Inventory::default())
                .unwrap();

        let turing = DeviceFacts {
            compute_capability: Some((7, 5)),
            ..sample::device()
        };

        assert!(
            matches!(
                device_support(&demands(&architecture, KvDtype::Nvfp4), &turing),
                DeviceSupport::Unable(_)
            ),
            "slow weights must not hide an unreadable cache"
        );
        assert!(matches!(
            device_support(&demands(&architecture, KvDtype::Fp8), &turing),
            DeviceSupport::Degraded(_)
        ));
    }

    fn compressed_tensors(format: &str, weights: &Value, inputs: &Value) -> Value {
        json!({"quant_method": "compressed-tensors", "format": format,
            "config_groups": {"group_0": {"weights": weights, "input_activations": inputs}}})
    }

    /// vLLM 0.33 `get_min_capability` of each method, and the kernels that it selects.
    #[test]
    fn methods_need_their_capability() {
        let eight = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
        let four = json!({"num_bits": 4, "type": "int", "group_size": 128});

        let cases = [
            (
                json!({"quant_method": "gptq", "bits": 4, "group_size": 128}),
                "-+++++++",
            ),
            (
                json!({"quant_method": "awq", "bits": 4, "group_size": 128}),
                "--++++++",
            ),
            (json!({"quant_method": "fp8"}), "--~~++++"),
            (
                json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
                "--~~++++",
            ),
            (json!({"quant_method": "fbgemm_fp8"}), "---~++++"),
            (json!({"quant_method": "mxfp4"}), "---~~~++"),
            (json!({"quant_method": "quark"}), "-+++++++"),
            (
                json!({"quant_method": "quark",
                    "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}),
                "----++++",
            ),
            (
                json!({"quant_method": "quark",
                    "global_quant_config": {"weight": {"dtype": "int8"}}}),
                "--++++++",
            ),
            (
                json!({"quant_method": "quark",
                    "global_quant_config": {"weight": [{"dtype": "uint4"}]}}),
                "-+++++++",
            ),
            (json!({"quant_method": "torchao"}), "--++++++"),
            (json!({"quant_method": "fp_quant"}), "------++"),
            (json!({"quant_method": "auto-round", "bits": 4}), "-+++++++"),
            (
                json!({"quant_method": "modelopt", "quant_algo": "FP8"}),
                "---~++++",
            ),
            (
                json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
                "--~~~~++",
            ),
            (
                compressed_tensors("float-quantized", &eight, &eight),
                "--~~++++",
            ),
            (
                compressed_tensors("naive-quantized", &eight, &Value::Null),
                "--++++++",
            ),
            (
                compressed_tensors("pack-quantized", &four, &Value::Null),
                "--++++++",
            ),
            (
                compressed_tensors(
                    "int-quantized",
                    &json!({"num_bits": 8, "type": "int"}),
                    &json!({"num_bits": 8, "type": "int"}),
                ),
                "--++++++",
            ),
            (
                compressed_tensors("pack-quantized", &four, &eight),
                "-----+++",
            ),
            (
                compressed_tensors(
                    "nvfp4-pack-quantized",
                    &json!({"num_bits": 4, "type": "float"}),
                    &json!({"num_bits": 4}),
                ),
                "--~~~~++",
            ),
            (
                compressed_tensors(
                    "mxfp4-pack-quantized",
                    &json!({"num_bits": 4, "type": "float"}),
                    &json!({"num_bits": 4}),
                ),
                "---~~~++",
            ),
        ];

        for (quantization, expected) in cases {
            let found = verdicts(&quantization, |architecture, device| {
                let kv = KvDtype::Model(ComputeDtype::Float16);
                device_support(&demands(architecture, kv), device)
            });
            assert_eq!(found, expected, "{quantization}");
        }
    }
}
