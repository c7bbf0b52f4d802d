//! Whether a device can run a model's quantisation in SGLang, natively or at a cost.
//!
//! Source: SGLang 0.5.23 `layers/quantization/**` (`get_min_capability`) and `compressed_tensors.py` (`get_scheme`).

use crate::devices::DeviceFacts;
use crate::engines::Fitness;
use crate::model::Architecture;
use crate::model::quantization::Quantization;

/// The verdict on one device.
pub(super) fn fitness(architecture: &Architecture, device: &DeviceFacts) -> Fitness {
    let Some(capability) = device.capability() else {
        return Fitness::Degraded("its compute capability is unknown, so nothing was checked".to_owned());
    };
    let quantization = architecture.quantization.as_ref();
    let least = quantization.map_or(70, minimum).max(70);
    if capability < least {
        let method = quantization.map_or("SGLang", |quantization| &*quantization.method);
        return Fitness::Unable(format!(
            "{method} needs compute capability {}.{}; this is {}.{}",
            least / 10,
            least % 10,
            capability / 10,
            capability % 10
        ));
    }
    match quantization.and_then(|quantization| fallback(quantization, capability)) {
        Some(cost) => Fitness::Degraded(cost.to_owned()),
        None => Fitness::Able,
    }
}

fn is_fp4(quantization: &Quantization) -> bool {
    let named = |name: &str| name.to_ascii_lowercase().contains("fp4");
    named(&quantization.method) || quantization.format.as_deref().is_some_and(named)
}

fn minimum(quantization: &Quantization) -> u32 {
    let four_by_eight = quantization.bits == Some(4) && quantization.activation_bits == Some(8);
    match &*quantization.method {
        "auto-round" | "auto_round" => 60,
        "humming" => 75,
        "quark" if quantization.float && quantization.bits == Some(8) => 89,
        "modelopt" if is_fp4(quantization) => 80,
        "modelopt" | "modelopt_fp8" | "w8a8_fp8" => 89,
        "compressed-tensors" if four_by_eight => 90,
        // Each scheme of compressed-tensors needs 8.0; FP8 and FP4 activations are left out where they cannot run.
        "compressed-tensors" | "gptq" | "awq" | "mxfp4" | "fp8" | "fbgemm_fp8" | "blockwise_int8" => 80,
        "w4afp8" | "petit_nvfp4" => 90,
        "mxfp8" | "nvfp4_online" => 100,
        "w8a8_int8" => 75,
        _ => 70,
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
        let device = DeviceFacts { compute_capability: Some(capability), ..sample::device() };
        match fitness(&architecture, &device) {
            Fitness::Able => '+',
            Fitness::Degraded(_) => '~',
            Fitness::Unable(_) => '-',
        }
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
            (json!({"quant_method": "gptq", "bits": 4, "group_size": 128}), "---+++++"),
            (json!({"quant_method": "awq", "bits": 4, "group_size": 128}), "---+++++"),
            (json!({"quant_method": "fp8"}), "---~++++"),
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "-+++++++"),
            (json!({"quant_method": "mxfp4"}), "---~~~++"),
            (json!({"quant_method": "auto-round", "bits": 4}), "-+++++++"),
            (json!({"quant_method": "modelopt", "quant_algo": "FP8"}), "----++++"),
            (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), "---~~~++"),
            (tensors("float-quantized", eight.clone(), eight.clone()), "---~++++"),
            (tensors("pack-quantized", four.clone(), Value::Null), "---+++++"),
            (tensors("int-quantized", json!({"num_bits": 8, "type": "int"}), json!({"num_bits": 8})), "---+++++"),
            (tensors("pack-quantized", four, eight), "-----+++"),
            (
                tensors("nvfp4-pack-quantized", json!({"num_bits": 4, "type": "float"}), json!({"num_bits": 4})),
                "---~~~++",
            ),
            (json!({"quant_method": "w8a8_int8"}), "--++++++"),
            (json!({"quant_method": "mxfp8"}), "------++"),
        ];
        let cards = [(6, 1), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)];
        for (quantization, expected) in cases {
            let found: String = cards.iter().map(|card| verdict(&quantization, *card)).collect();
            assert_eq!(found, expected, "{quantization}");
        }
    }
}
