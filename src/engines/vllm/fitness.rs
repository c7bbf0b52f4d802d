//! Whether a device can run a model's dtype and quantisation in vLLM, natively or at a cost.
//!
//! Source: vLLM 0.33 `layers/quantization/**` (`get_min_capability`) and the kernels' own selection.

use super::dtypes::unstable_in_half;
use crate::devices::DeviceFacts;
use crate::engines::Fitness;
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
pub(super) fn fitness(demands: &Demands<'_>, device: &DeviceFacts) -> Fitness {
    let Some(capability) = device.capability() else {
        return Fitness::Degraded("its compute capability is unknown, so nothing was checked".to_owned());
    };
    let name = || format!("compute capability {}.{}", capability / 10, capability % 10);
    if capability < 70 {
        return Fitness::Unable(format!("vLLM needs compute capability 7.0; this is {}", name()));
    }
    let architecture = demands.architecture;
    let half_refused = demands.refuses_half && unstable_in_half(architecture);
    let bfloat16 = architecture.dtype == Some(crate::model::Dtype::BF16);
    if capability < 80 {
        if demands.compute == ComputeDtype::Bfloat16 && demands.asked_dtype {
            return Fitness::Unable(format!("bfloat16 needs compute capability 8.0; this is {}", name()));
        }
        if half_refused && demands.compute != ComputeDtype::Float32 {
            return Fitness::Unable(format!(
                "{} needs bfloat16 (compute capability 8.0) and refuses float16",
                architecture.model_type
            ));
        }
    }
    let (least, method) = minimum(architecture, demands.online);
    if capability < least {
        return Fitness::Unable(format!(
            "{method} needs compute capability {}.{}; this is {}",
            least / 10,
            least % 10,
            name()
        ));
    }
    let sparse = architecture.layers.iter().any(|layer| matches!(&layer.mixer, Mixer::Latent(latent) if latent.indexer.is_some() || latent.compress_ratio.is_some()));
    if sparse && capability < 90 {
        return Fitness::Unable(format!("sparse latent attention needs compute capability 9.0; this is {}", name()));
    }
    if let Some(cost) = fallback(architecture, demands.online, capability) {
        return Fitness::Degraded(cost.to_owned());
    }
    if demands.kv == KvDtype::Nvfp4 && capability < 80 {
        return Fitness::Unable(format!("an nvfp4 cache needs compute capability 8.0; this is {}", name()));
    }
    if capability < 80 && bfloat16 {
        return Fitness::Degraded("bfloat16 weights run as float16 below compute capability 8.0".to_owned());
    }
    Fitness::Able
}

/// (minimum capability, what asks for it).
fn minimum(architecture: &Architecture, online: Option<&str>) -> (u32, String) {
    let Some(quantization) = &architecture.quantization else {
        return match online {
            Some(method) => (75, method.to_owned()),
            None => (70, "vLLM".to_owned()),
        };
    };
    let format = quantization.format.as_deref().unwrap_or_default();
    let bits = quantization.bits.unwrap_or(16);
    let least = match &*quantization.method {
        "gptq" | "inc" | "auto-round" | "auto_round" => 60,
        "moe_wna16" | "quark" => 70,
        "compressed-tensors" if quantization.activations && quantization.float && bits == 8 => 89,
        "compressed-tensors" if quantization.activations && bits == 4 && quantization.activation_bits == Some(8) => 90,
        "mxfp4" | "experts_int8" | "fbgemm_fp8" => 80,
        "fp_quant" => 100,
        _ => 75,
    };
    let shown =
        if format.is_empty() { quantization.method.clone() } else { format!("{} {format}", quantization.method) };
    (least, shown)
}

/// What runs more slowly than the method was made for, in the same bytes.
fn fallback(architecture: &Architecture, online: Option<&str>, capability: u32) -> Option<&'static str> {
    let method = architecture.quantization.as_ref().map(|quantization| &*quantization.method).or(online)?;
    let bits = architecture.quantization.as_ref().and_then(|quantization| quantization.bits);
    let format =
        architecture.quantization.as_ref().and_then(|quantization| quantization.format.as_deref()).unwrap_or_default();
    let fp4 = method.contains("fp4") || format.to_ascii_lowercase().contains("fp4");
    if fp4 && capability < 100 {
        return Some("no FP4 tensor cores: weight-only kernels of the same size are used");
    }
    let fp8 = method.contains("fp8") || (method == "modelopt" && bits == Some(8));
    (fp8 && capability < 89)
        .then_some("no FP8 tensor cores below compute capability 8.9: weight-only kernels of the same size are used")
}
