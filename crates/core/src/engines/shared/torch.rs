//! Memory of every torch process on a device in addition to its tensors.

use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{Basis, Component, ComponentName, Interval};

/// The CUDA context of one torch process: 3.0 MiB for each multiprocessor, and 150 to 250 MiB of
/// kernels as they load.
///
/// Fitted to published start-up readings: 107 MiB bare on 34 multiprocessors (ggml-org/llama.cpp PR
/// 23604), 256 MiB with torch on 82 (invoke-ai/InvokeAI 9413), 510 to 530 MiB on an H100 in vLLM's
/// start-up lines.
pub(crate) fn cuda_context(device: &DeviceFacts) -> Component {
    let detail = match device.multiprocessors {
        Some(count) => format!("3 MiB x {count} multiprocessors and the libraries' kernels"),
        None => "number of multiprocessors unknown".to_owned(),
    };

    Component::between(
        ComponentName::Context,
        cuda_context_bytes(device),
        Basis::Calibrated,
        detail,
    )
}

/// The bytes of [`cuda_context`].
pub(crate) fn cuda_context_bytes(device: &DeviceFacts) -> Interval {
    match device.multiprocessors {
        Some(count) => {
            let base = Bytes::mib(3) * u64::from(count);
            Interval::new(base, base + Bytes::mib(200), base + Bytes::mib(350))
        }
        None => Interval::new(Bytes::mib(110), Bytes::mib(500), Bytes::mib(800)),
    }
}

/// Bytes of cuBLAS's workspace in torch.
///
/// 32 MiB from compute capability 9.0 on and 8,519,680 bytes below, plus cuBLASLt's (PyTorch
/// `aten/src/ATen/cuda/CUDABlas.cpp`, `parseChosenWorkspaceSize`).
pub(crate) fn cublas(device: &DeviceFacts) -> Interval {
    match device.capability() {
        Some(capability) if capability < 90 => {
            Interval::new(Bytes::new(8_519_680), Bytes::mib(12), Bytes::mib(16))
        }
        _ => Interval::new(Bytes::mib(8), Bytes::mib(64), Bytes::mib(64)),
    }
}
