//! Whether a device can run a model's quantization in SGLang, natively or at a cost.
//!
//! Source: SGLang 0.5.23 `layers/quantization/**` (`get_min_capability`) and
//! `compressed_tensors.py` (`get_scheme`).

use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::engines::shared::device_support::{
    NO_FP4_TENSOR_CORES, NO_FP8_TENSOR_CORES, is_fp4, needs_capability, unknown_capability,
};
use crate::model::Architecture;
use crate::model::quantization::Quantization;

/// Whether SGLang reads checkpoints of this `quant_method` on CUDA
/// (`layers/quantization/__init__.py`, `BASE_QUANTIZATION_METHODS`; GPTQ by its Marlin kernels,
/// ModelOpt by its algorithm).
pub(super) fn is_known_method(method: &str) -> bool {
    const KNOWN: &[&str] = &[
        "fp8",
        "mxfp8",
        "mxfp4",
        "blockwise_int8",
        "modelopt",
        "modelopt_fp8",
        "modelopt_fp4",
        "modelopt_mixed",
        "nvfp4_online",
        "w8a8_int8",
        "w8a8_fp8",
        "awq",
        "awq_marlin",
        "bitsandbytes",
        "gptq",
        "gptq_marlin",
        "moe_wna16",
        "compressed-tensors",
        "w4afp8",
        "petit_nvfp4",
        "quark",
        "auto-round",
        "humming",
    ];

    KNOWN.contains(&method)
}

/// The lowest compute capability that SGLang runs on: 7.0.
const MIN_CAPABILITY: u32 = 70;

/// The verdict on one device; `online` quantizes a full-precision checkpoint at load.
pub(super) fn device_support(
    architecture: &Architecture,
    online: Option<&str>,
    device: &DeviceFacts,
) -> DeviceSupport {
    let Some(capability) = device.capability() else {
        return unknown_capability();
    };

    let quantization = architecture.quantization.as_ref();
    let online = online.filter(|_| quantization.is_none());
    let minimum = quantization
        .map(method_minimum)
        .or(online.map(online_minimum))
        .unwrap_or(MIN_CAPABILITY)
        .max(MIN_CAPABILITY);

    if capability < minimum {
        let method = quantization
            .map(|quantization| &*quantization.method)
            .or(online)
            .unwrap_or("SGLang");
        return needs_capability(method, minimum, capability);
    }

    match quantization.and_then(|quantization| fallback(quantization, capability)) {
        Some(cost) => DeviceSupport::Degraded(cost.to_owned()),
        None => DeviceSupport::Able,
    }
}

/// The minimum compute capability of a checkpoint's method.
fn method_minimum(quantization: &Quantization) -> u32 {
    let four_by_eight = quantization.bits == Some(4) && quantization.activation_bits == Some(8);
    match &*quantization.method {
        "auto-round" => 60,
        "humming" => 75,
        "quark" if quantization.float && quantization.bits == Some(8) => 89,
        "modelopt" if is_fp4(quantization) => 80,
        "modelopt" | "modelopt_fp8" | "w8a8_fp8" => 89,
        "compressed-tensors" if four_by_eight => 90,
        // SGLang refuses FP4 activations on devices without them, and leaves FP8 ones out
        // (`get_scheme`).
        "compressed-tensors" if is_fp4(quantization) && quantization.activations => 100,
        "compressed-tensors" | "gptq" | "gptq_marlin" | "awq" | "awq_marlin" | "mxfp4" | "fp8"
        | "blockwise_int8" => 80,
        "w4afp8" | "petit_nvfp4" => 90,
        "mxfp8" | "nvfp4_online" => 100,
        "w8a8_int8" => 75,
        _ => 70,
    }
}

/// The minimum compute capability of a method that quantizes at load.
fn online_minimum(method: &str) -> u32 {
    match method {
        "mxfp8" | "nvfp4_online" => 100,
        "fp8" => 80,
        "w8a8_int8" => 75,
        "bitsandbytes" => 70,
        // `w8a8_fp8`, and names that only another engine has.
        _ => 89,
    }
}

/// The cost of kernels that the method was not made for, which use the same bytes.
fn fallback(quantization: &Quantization, capability: u32) -> Option<&'static str> {
    if is_fp4(quantization) && capability < 100 {
        return Some(NO_FP4_TENSOR_CORES);
    }

    let has_fp8_products =
        quantization.float && quantization.bits == Some(8) && quantization.activations;
    (has_fp8_products && capability < 89).then_some(NO_FP8_TENSOR_CORES)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engines::sample;
    use crate::engines::shared::device_support::verdicts;
    use crate::model::{Inventory, config};

    #[test]
    fn known_methods_exclude_other_engines() {
        assert!(
            ["gptq", "awq", "bitsandbytes", "compressed-tensors", "quark"]
                .iter()
                .all(|method| is_known_method(method))
        );

        assert!(
            ![
                "hqq",
                "aqlm",
                "eetq",
                "torchao",
                "experts_int8",
                "exl3",
                "mlx"
            ]
            .iter()
            .any(|method| is_known_method(method))
        );
    }

    #[test]
    fn online_quantization_needs_its_kernels() {
        let config = json!({"model_type": "llama", "torch_dtype": "bfloat16"});
        let architecture = config::architecture(&config, None, &Inventory::default()).unwrap();

        let can_run = |method: &str, capability| {
            let device = DeviceFacts {
                compute_capability: Some(capability),
                ..sample::device()
            };
            !matches!(
                device_support(&architecture, Some(method), &device),
                DeviceSupport::Unable(_)
            )
        };

        assert!(can_run("nvfp4_online", (10, 0)) && !can_run("nvfp4_online", (9, 0)));
        assert!(can_run("w8a8_fp8", (8, 9)) && !can_run("w8a8_fp8", (8, 6)));
        assert!(can_run("fp8", (8, 0)) && !can_run("fp8", (7, 5)));
    }

    fn compressed_tensors(format: &str, weights: &Value, inputs: &Value) -> Value {
        json!({"quant_method": "compressed-tensors", "format": format,
            "config_groups": {"group_0": {"weights": weights, "input_activations": inputs}}})
    }

    #[test]
    fn methods_need_their_capability() {
        let eight = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
        let four = json!({"num_bits": 4, "type": "int", "group_size": 128});

        let cases = [
            (
                json!({"quant_method": "gptq", "bits": 4, "group_size": 128}),
                "---+++++",
            ),
            (
                json!({"quant_method": "awq", "bits": 4, "group_size": 128}),
                "---+++++",
            ),
            (json!({"quant_method": "fp8"}), "---~++++"),
            (
                json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
                "-+++++++",
            ),
            (json!({"quant_method": "mxfp4"}), "---~~~++"),
            (json!({"quant_method": "auto-round", "bits": 4}), "-+++++++"),
            (
                json!({"quant_method": "modelopt", "quant_algo": "FP8"}),
                "----++++",
            ),
            (
                json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
                "---~~~++",
            ),
            (
                compressed_tensors("float-quantized", &eight, &eight),
                "---~++++",
            ),
            (
                compressed_tensors("pack-quantized", &four, &Value::Null),
                "---+++++",
            ),
            (
                compressed_tensors(
                    "int-quantized",
                    &json!({"num_bits": 8, "type": "int"}),
                    &json!({"num_bits": 8}),
                ),
                "---+++++",
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
                "------++",
            ),
            (
                compressed_tensors(
                    "nvfp4-pack-quantized",
                    &json!({"num_bits": 4, "type": "float"}),
                    &Value::Null,
                ),
                "---~~~++",
            ),
            (
                json!({"quant_method": "gptq_marlin", "bits": 4, "group_size": 128}),
                "---+++++",
            ),
            (
                json!({"quant_method": "awq_marlin", "bits": 4, "group_size": 128}),
                "---+++++",
            ),
            (
                json!({"quant_method": "quark",
                    "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}),
                "----++++",
            ),
            (json!({"quant_method": "w8a8_int8"}), "--++++++"),
            (json!({"quant_method": "mxfp8"}), "------++"),
        ];

        for (quantization, expected) in cases {
            let found = verdicts(&quantization, |architecture, device| {
                device_support(architecture, None, device)
            });
            assert_eq!(found, expected, "{quantization}");
        }
    }
}
