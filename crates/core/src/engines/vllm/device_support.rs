//! Whether a device can run a model's dtype and quantisation in vLLM, natively or at a cost.
//!
//! Source: vLLM 0.33 `layers/quantization/**` (`get_min_capability`) and the kernels' own
//! selection.

use super::dtypes::unstable_in_half;
use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::model::Architecture;
use crate::model::architecture::Mixer;

/// What the device must be able to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) compute: ComputeDtype,
    pub(super) asked_dtype: bool,
    pub(super) kv: KvDtype,
    /// Whether the release refuses float16 for families that it makes unstable.
    pub(super) refuses_half: bool,
    /// Quantisation at load, if asked for.
    pub(super) online: Option<&'a str>,
}

/// The verdict on one device.
pub(super) fn fitness(demands: &Demands<'_>, device: &DeviceFacts) -> DeviceSupport {
    let Some(capability) = device.capability() else {
        return DeviceSupport::Degraded(
            "its compute capability is unknown, so nothing was checked".to_owned(),
        );
    };

    let name = || format!("compute capability {}.{}", capability / 10, capability % 10);
    if capability < 70 {
        return DeviceSupport::Unable(format!(
            "vLLM needs compute capability 7.0; this is {}",
            name()
        ));
    }

    let architecture = demands.architecture;
    let half_refused = demands.refuses_half && unstable_in_half(architecture);
    let bfloat16 = architecture.dtype == Some(crate::model::Dtype::BF16);

    if capability < 80 {
        if demands.compute == ComputeDtype::Bfloat16 && demands.asked_dtype {
            return DeviceSupport::Unable(format!(
                "bfloat16 needs compute capability 8.0; this is {}",
                name()
            ));
        }
        if half_refused && demands.compute != ComputeDtype::Float32 {
            return DeviceSupport::Unable(format!(
                "{} needs bfloat16 (compute capability 8.0) and refuses float16",
                architecture.model_type
            ));
        }
    }

    let (least, method) = minimum(architecture, demands.online);
    if capability < least {
        return DeviceSupport::Unable(format!(
            "{method} needs compute capability {}.{}; this is {}",
            least / 10,
            least % 10,
            name()
        ));
    }

    let sparse = architecture.layers.iter().any(|layer| matches!(&layer.mixer, Mixer::Latent(latent) if latent.indexer.is_some() || latent.compress_ratio.is_some()));
    if sparse && capability < 90 {
        return DeviceSupport::Unable(format!(
            "sparse latent attention needs compute capability 9.0; this is {}",
            name()
        ));
    }

    if demands.kv == KvDtype::Nvfp4 && capability < 80 {
        return DeviceSupport::Unable(format!(
            "an nvfp4 cache needs compute capability 8.0; this is {}",
            name()
        ));
    }
    // FlashInfer, which reads it where FlashAttention does not, begins there.
    if demands.kv == KvDtype::Fp8 && capability < 75 {
        return DeviceSupport::Unable(format!(
            "an fp8 cache needs compute capability 7.5; this is {}",
            name()
        ));
    }

    if let Some(cost) = fallback(architecture, demands.online, capability) {
        return DeviceSupport::Degraded(cost.to_owned());
    }

    if capability < 80 && bfloat16 {
        return DeviceSupport::Degraded(
            "bfloat16 weights run as float16 below compute capability 8.0".to_owned(),
        );
    }

    DeviceSupport::Able
}

/// (minimum capability, what asks for it).
fn minimum(architecture: &Architecture, online: Option<&str>) -> (u32, String) {
    let Some(quantization) = &architecture.quantization else {
        return match online {
            Some("experts_int8") => (80, "experts_int8".to_owned()),
            Some(method) => (75, method.to_owned()),
            None => (70, "vLLM".to_owned()),
        };
    };

    let format = quantization.format.as_deref().unwrap_or_default();
    let bits = quantization.bits.unwrap_or(16);

    let least = match &*quantization.method {
        "gptq" | "inc" | "auto-round" | "auto_round" => 60,
        "moe_wna16" => 70,
        "quark" if quantization.float && bits == 8 => 89,
        "quark" if bits == 8 => 75,
        "quark" => 70,
        // FP8 activations are left out below 8.9 (`compressed_tensors.py`, `get_scheme`): see
        // `fallback`.
        "compressed-tensors"
            if quantization.activations && bits == 4 && quantization.activation_bits == Some(8) =>
        {
            90
        }
        "compressed-tensors" if format.starts_with("mxfp4") => 80,
        "modelopt" if !format.to_ascii_uppercase().contains("FP4") && bits == 8 => 80,
        "mxfp4" | "experts_int8" | "fbgemm_fp8" => 80,
        "fp_quant" => 100,
        _ => 75,
    };

    let shown = if format.is_empty() {
        quantization.method.clone()
    } else {
        format!("{} {format}", quantization.method)
    };

    (least, shown)
}

/// What runs more slowly than the method was made for, in the same bytes.
fn fallback(
    architecture: &Architecture,
    online: Option<&str>,
    capability: u32,
) -> Option<&'static str> {
    let method = architecture
        .quantization
        .as_ref()
        .map(|quantization| &*quantization.method)
        .or(online)?;

    let bits = architecture
        .quantization
        .as_ref()
        .and_then(|quantization| quantization.bits);
    let format = architecture
        .quantization
        .as_ref()
        .and_then(|quantization| quantization.format.as_deref())
        .unwrap_or_default();

    let fp4 = method.contains("fp4") || format.to_ascii_lowercase().contains("fp4");
    if fp4 && capability < 100 {
        return Some("no FP4 tensor cores: weight-only kernels of the same size are used");
    }

    let eight = architecture
        .quantization
        .as_ref()
        .is_some_and(|quantization| {
            quantization.float
                && bits == Some(8)
                && (method == "modelopt"
                    || (method == "compressed-tensors" && quantization.activations))
        });
    let fp8 = method.contains("fp8") || eight;

    (fp8 && capability < 89)
        .then_some("no FP8 tensor cores below compute capability 8.9: weight-only kernels of the same size are used")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engines::sample;

    /// What a device of `capability` makes of a checkpoint: '-' unable, '~' degraded, '+' able.
    fn verdict(quantization: &Value, capability: (u32, u32)) -> char {
        let config = json!({"model_type": "llama", "torch_dtype": "float16", "quantization_config": quantization});
        let architecture =
            crate::model::config::architecture(&config, None, &crate::model::Inventory::default())
                .unwrap();
        let demands = Demands {
            architecture: &architecture,
            compute: ComputeDtype::Float16,
            asked_dtype: false,
            kv: KvDtype::Model(ComputeDtype::Float16),
            refuses_half: false,
            online: None,
        };

        let device = DeviceFacts {
            compute_capability: Some(capability),
            ..sample::device()
        };

        match fitness(&demands, &device) {
            DeviceSupport::Able => '+',
            DeviceSupport::Degraded(_) => '~',
            DeviceSupport::Unable(_) => '-',
        }
    }

    /// What is merely slow must not hide what cannot run.
    #[test]
    fn a_cache_that_cannot_be_read_is_refused_beside_weights_that_are_slow() {
        let config = json!({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}});
        let architecture =
            crate::model::config::architecture(&config, None, &crate::model::Inventory::default())
                .unwrap();
        let demands = |kv| Demands {
            architecture: &architecture,
            compute: ComputeDtype::Float16,
            asked_dtype: false,
            kv,
            refuses_half: false,
            online: None,
        };

        let turing = DeviceFacts {
            compute_capability: Some((7, 5)),
            ..sample::device()
        };

        assert!(matches!(
            fitness(&demands(KvDtype::Nvfp4), &turing),
            DeviceSupport::Unable(_)
        ));
        assert!(matches!(
            fitness(&demands(KvDtype::Fp8), &turing),
            DeviceSupport::Degraded(_)
        ));
    }

    /// vLLM 0.33 `get_min_capability` of each method and what it selects: on 6.1, 7.0, 7.5, 8.0,
    /// 8.9, 9.0, 10.0, 12.0.
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
                json!({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}),
                "----++++",
            ),
            (
                json!({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int8"}}}),
                "--++++++",
            ),
            (
                json!({"quant_method": "quark", "global_quant_config": {"weight": [{"dtype": "uint4"}]}}),
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
                tensors("float-quantized", eight.clone(), eight.clone()),
                "--~~++++",
            ),
            (
                tensors("naive-quantized", eight.clone(), Value::Null),
                "--++++++",
            ),
            (
                tensors("pack-quantized", four.clone(), Value::Null),
                "--++++++",
            ),
            (
                tensors(
                    "int-quantized",
                    json!({"num_bits": 8, "type": "int"}),
                    json!({"num_bits": 8, "type": "int"}),
                ),
                "--++++++",
            ),
            (tensors("pack-quantized", four, eight), "-----+++"),
            (
                tensors(
                    "nvfp4-pack-quantized",
                    json!({"num_bits": 4, "type": "float"}),
                    json!({"num_bits": 4}),
                ),
                "--~~~~++",
            ),
            (
                tensors(
                    "mxfp4-pack-quantized",
                    json!({"num_bits": 4, "type": "float"}),
                    json!({"num_bits": 4}),
                ),
                "---~~~++",
            ),
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
