//! Verdicts on a device's compute capability that several engines return.

use crate::device::DeviceFacts;
use crate::engines::DeviceSupport;
use crate::model::quantization::Quantization;

/// The cost of FP4 weights on a device without FP4 tensor cores.
pub(crate) const NO_FP4_TENSOR_CORES: &str =
    "no FP4 tensor cores: weight-only kernels of the same size are used";

/// The cost of FP8 weights on a device without FP8 tensor cores.
pub(crate) const NO_FP8_TENSOR_CORES: &str = "no FP8 tensor cores below compute capability 8.9: \
                                              weight-only kernels of the same size are used";

/// The verdict on a device whose compute capability the driver does not report.
pub(crate) fn unknown_capability() -> DeviceSupport {
    DeviceSupport::Degraded("its compute capability is unknown, so nothing was checked".to_owned())
}

/// The verdict on a device of `capability` that `subject` needs at least `minimum` for.
pub(crate) fn needs_capability(subject: &str, minimum: u32, capability: u32) -> DeviceSupport {
    DeviceSupport::Unable(format!(
        "{subject} needs compute capability {}; this device has {}",
        capability_text(minimum),
        capability_text(capability)
    ))
}

/// A compute capability as NVIDIA writes it: 90 is `9.0`.
pub(crate) fn capability_text(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

/// Whether `device` has compute capability 10.x or 11.x.
pub(crate) fn is_sm100(device: &DeviceFacts) -> bool {
    device
        .capability()
        .is_some_and(|capability| (100..120).contains(&capability))
}

/// Whether a checkpoint stores its weights in FP4, by its method or format.
pub(crate) fn is_fp4(quantization: &Quantization) -> bool {
    names_fp4(&quantization.method) || quantization.format.as_deref().is_some_and(names_fp4)
}

/// Whether a method or format is an FP4 one by its name.
pub(crate) fn names_fp4(name: &str) -> bool {
    name.to_ascii_lowercase().contains("fp4")
}

/// The verdicts on a checkpoint with `quantization`, a character each: `-` unable, `~` degraded,
/// `+` able.
///
/// The devices have the compute capabilities 6.1, 7.0, 7.5, 8.0, 8.9, 9.0, 10.0 and 12.0.
#[cfg(test)]
pub(crate) fn verdicts(
    quantization: &serde_json::Value,
    device_support: impl Fn(&crate::model::Architecture, &DeviceFacts) -> DeviceSupport,
) -> String {
    const CAPABILITIES: [(u32, u32); 8] = [
        (6, 1),
        (7, 0),
        (7, 5),
        (8, 0),
        (8, 9),
        (9, 0),
        (10, 0),
        (12, 0),
    ];

    let config = serde_json::json!({
        "model_type": "llama",
        "torch_dtype": "float16",
        "quantization_config": quantization,
    });
    let architecture =
        crate::model::config::architecture(&config, None, &crate::model::Inventory::default())
            .unwrap();

    CAPABILITIES
        .into_iter()
        .map(|capability| {
            let device = DeviceFacts {
                compute_capability: Some(capability),
                ..crate::engines::sample::device()
            };

            match device_support(&architecture, &device) {
                DeviceSupport::Able => '+',
                DeviceSupport::Degraded(_) => '~',
                DeviceSupport::Unable(_) => '-',
            }
        })
        .collect()
}
