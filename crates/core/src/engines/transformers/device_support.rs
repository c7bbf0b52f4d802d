//! Whether a device can run a model's dtype and quantization in transformers.
//!
//! Source: transformers `quantizers/quantizer_finegrained_fp8.py` and `quantizer_mxfp4.py`, which
//! dequantize checkpoints to bfloat16 while they load below these capabilities.
//! `quantizer_fbgemm_fp8.py` refuses them.

use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::engines::shared::device_support::{capability_text, unknown_capability};
use crate::model::Dtype;
use crate::model::architecture::Architecture;

/// The verdict on one device.
pub(super) fn device_support(
    architecture: &Architecture,
    dtype: Dtype,
    device: &DeviceFacts,
) -> DeviceSupport {
    let method = architecture
        .quantization
        .as_ref()
        .map(|quantization| quantization.method.as_str());
    let minimum = match method {
        Some("fp8") => 89,
        Some("fbgemm_fp8") => 90,
        Some("mxfp4") => 75,
        _ => 0,
    };

    match device.capability() {
        Some(capability) if capability < minimum => DeviceSupport::Unable(format!(
            "{} checkpoints need compute capability {}; below, transformers dequantizes or refuses \
             them",
            method.unwrap_or_default(),
            capability_text(minimum)
        )),
        None if minimum > 0 => unknown_capability(),
        Some(capability) if capability < 80 && dtype == Dtype::BF16 => DeviceSupport::Degraded(
            "bfloat16 is emulated below compute capability 8.0; float16 is faster".to_owned(),
        ),
        _ => DeviceSupport::Able,
    }
}
