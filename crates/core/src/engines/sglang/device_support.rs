//! Whether a device can run a model's quantisation in SGLang, natively or at a cost.
//!
//! Source: SGLang 0.5.23 `layers/quantization/**` (`get_min_capability`) and
//! `compressed_tensors.py` (`get_scheme`).

use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::model::Architecture;
use crate::model::quantization::Quantization;

/// Whether SGLang reads checkpoints of this `quant_method` on CUDA
/// (`layers/quantization/__init__.py`, `BASE_QUANTIZATION_METHODS`; GPTQ by its Marlin kernels,
/// ModelOpt by its algorithm).
pub(super) fn known_method(method: &str) -> bool {
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

/// The verdict on one device; `online` quantises a full-precision checkpoint at load.
pub(super) fn fitness(
    architecture: &Architecture,
    online: Option<&str>,
    device: &DeviceFacts,
) -> DeviceSupport {
    let Some(capability) = device.capability() else {
        return DeviceSupport::Degraded(
            "its compute capability is unknown, so nothing was checked".to_owned(),
        );
    };

    let quantization = architecture.quantization.as_ref();
    let online = online.filter(|_| quantization.is_none());
    let least = quantization
        .map(minimum)
        .or(online.map(online_minimum))
        .unwrap_or(70)
        .max(70);

    if capability < least {
        let method = quantization
            .map(|quantization| &*quantization.method)
            .or(online)
            .unwrap_or("SGLang");
        return DeviceSupport::Unable(format!(
            "{method} needs compute capability {}.{}; this is {}.{}",
            least / 10,
            least % 10,
            capability / 10,
            capability % 10
        ));
    }

    match quantization.and_then(|quantization| fallback(quantization, capability)) {
        Some(cost) => DeviceSupport::Degraded(cost.to_owned()),
        None => DeviceSupport::Able,
    }
}

fn is_fp4(quantization: &Quantization) -> bool {
    let named = |name: &str| name.to_ascii_lowercase().contains("fp4");
    named(&quantization.method) || quantization.format.as_deref().is_some_and(named)
}

fn minimum(quantization: &Quantization) -> u32 {
    let four_by_eight = quantization.bits == Some(4) && quantization.activation_bits == Some(8);
    match &*quantization.method {
        "auto-round" => 60,
        "humming" => 75,
        "quark" if quantization.float && quantization.bits == Some(8) => 89,
        "modelopt" if is_fp4(quantization) => 80,
        "modelopt" | "modelopt_fp8" | "w8a8_fp8" => 89,
        "compressed-tensors" if four_by_eight => 90,
        // FP4 activations are refused where they cannot run, FP8 ones are left out (`get_scheme`).
        "compressed-tensors" if is_fp4(quantization) && quantization.activations => 100,
        "compressed-tensors" | "gptq" | "gptq_marlin" | "awq" | "awq_marlin" | "mxfp4" | "fp8"
        | "blockwise_int8" => 80,
        "w4afp8" | "petit_nvfp4" => 90,
        "mxfp8" | "nvfp4_online" => 100,
        "w8a8_int8" => 75,
        _ => 70,
    }
}

/// The least capability of a method that quantises at load.
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

/// What runs more slowly than the method was made for, in the same bytes.
fn fallback(quantization: &Quantization, capability: u32) -> Option<&'static str> {
    if is_fp4(quantization) && capability < 100 {
        return Some("no FP4 tensor cores: weight-only kernels of the same size are used");
    }
    let eight = quantization.float && quantization.bits == Some(8) && quantization.activations;
    (eight && capability < 89)
        .then_some("no FP8 tensor cores below compute capability 8.9: weight-only kernels of the same size are used")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engines::sample;
    use crate::model::{Inventory, config};

    fn verdict(quantization: &Value, capability: (u32, u32)) -> char {
        let config = json!({"model_type": "llama", "torch_dtype": "float16", "quantization_config": quantization});
        let architecture = config::architecture(&config, None, &Inventory::default()).unwrap();

        let device = DeviceFacts {
            compute_capability: Some(capability),
            ..sample::device()
        };

        match fitness(&architecture, None, &device) {
            DeviceSupport::Able => '+',
            DeviceSupport::Degraded(_) => '~',
            DeviceSupport::Unable(_) => '-',
        }
    }

    #[test]
    fn methods_of_other_engines_are_not_its_own() {
        assert!(
            ["gptq", "awq", "bitsandbytes", "compressed-tensors", "quark"]
                .iter()
                .all(|method| known_method(method))
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
            .any(|method| known_method(method))
        );
    }

    #[test]
    fn quantising_at_load_needs_the_kernels_too() {
        let config = json!({"model_type": "llama", "torch_dtype": "bfloat16"});
        let architecture = config::architecture(&config, None, &Inventory::default()).unwrap();

        let able = |method: &str, capability| {
            let device = DeviceFacts {
                compute_capability: Some(capability),
                ..sample::device()
            };
            !matches!(
                fitness(&architecture, Some(method), &device),
                DeviceSupport::Unable(_)
            )
        };

        assert!(able("nvfp4_online", (10, 0)) && !able("nvfp4_online", (9, 0)));
        assert!(able("w8a8_fp8", (8, 9)) && !able("w8a8_fp8", (8, 6)));
        assert!(able("fp8", (8, 0)) && !able("fp8", (7, 5)));
    }

    /// On 6.1, 7.0, 7.5, 8.0, 8.9, 9.0, 10.0, 12.0.
    #[test]
    fn what_each_method_needs() {
        let tensors = |format: &str, weights: Value, inputs: Value| {
            json!({"quant_method": "compressed-tensors", "format": format,
                "config_groups": {"group_0": {"weights": weights, "input_activations": inputs}}})
        };

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
                tensors("float-quantized", eight.clone(), eight.clone()),
                "---~++++",
            ),
            (
                tensors("pack-quantized", four.clone(), Value::Null),
                "---+++++",
            ),
            (
                tensors(
                    "int-quantized",
                    json!({"num_bits": 8, "type": "int"}),
                    json!({"num_bits": 8}),
                ),
                "---+++++",
            ),
            (tensors("pack-quantized", four, eight), "-----+++"),
            (
                tensors(
                    "nvfp4-pack-quantized",
                    json!({"num_bits": 4, "type": "float"}),
                    json!({"num_bits": 4}),
                ),
                "------++",
            ),
            (
                tensors(
                    "nvfp4-pack-quantized",
                    json!({"num_bits": 4, "type": "float"}),
                    Value::Null,
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
                json!({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}),
                "----++++",
            ),
            (json!({"quant_method": "w8a8_int8"}), "--++++++"),
            (json!({"quant_method": "mxfp8"}), "------++"),
        ];

        let cards = [
            (6, 1),
            (7, 0),
            (7, 5),
            (8, 0),
            (8, 9),
            (9, 0),
            (10, 0),
            (12, 0),
        ];

        for (quantization, expected) in cases {
            let found: String = cards
                .iter()
                .map(|card| verdict(&quantization, *card))
                .collect();
            assert_eq!(found, expected, "{quantization}");
        }
    }
}
