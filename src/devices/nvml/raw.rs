//! The driver calls that nvml-wrapper binds and does not wrap. The only unsafe code of the program.
#![expect(unsafe_code, reason = "raw calls of the driver's C API")]

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlGpuFabricInfo_t, nvmlMemory_t};

/// The field that holds the recovery action (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
const RECOVERY_ACTION_FIELD: u32 = 230;

/// Calls a bound symbol on a device, or says that the library lacks it.
macro_rules! call {
    ($device:expr, $symbol:ident $(, $argument:expr)*) => {{
        let library = $device.nvml().lib();
        match library.$symbol.as_ref() {
            // SAFETY: the handle is live (the device borrows the initialised library), and every pointer passed is to
            // a local of the type that the binding names.
            Ok(function) => nvml_try(unsafe { function($device.handle() $(, $argument)*) }),
            Err(error) => Err(NvmlError::FailedToLoadSymbol(error.to_string())),
        }
    }};
}

/// Memory as the first version of the call tells it: (total, free, used), the reserve within `used` since R510.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<(u64, u64, u64), NvmlError> {
    let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
    call!(device, nvmlDeviceGetMemoryInfo, &raw mut memory)?;
    Ok((memory.total, memory.free, memory.used))
}

/// The GPU instance that a MIG device belongs to.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut id = 0;
    call!(device, nvmlDeviceGetGpuInstanceId, &raw mut id)?;
    Ok(id)
}

/// Row remapping: (pending, failed).
pub(super) fn remapped_rows(device: &Device<'_>) -> Result<(bool, bool), NvmlError> {
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
    let (first, second, third, fourth) =
        (&raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed);
    call!(device, nvmlDeviceGetRemappedRows, first, second, third, fourth)?;
    Ok((pending != 0, failed != 0))
}

/// NVLink fabric registration: (state, status).
pub(super) fn fabric(device: &Device<'_>) -> Result<(u8, u32), NvmlError> {
    // SAFETY: a structure of integers and bytes, for which zeroes are valid.
    let mut info: nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
    call!(device, nvmlDeviceGetGpuFabricInfo, &raw mut info)?;
    Ok((info.state, info.status))
}

/// What the driver wants done with the GPU: 0 nothing, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
pub(super) fn recovery_action(device: &Device<'_>) -> Result<u32, NvmlError> {
    // SAFETY: a structure of integers and a union of them, for which zeroes are valid.
    let mut field: nvmlFieldValue_t = unsafe { mem::zeroed() };
    field.fieldId = RECOVERY_ACTION_FIELD;
    call!(device, nvmlDeviceGetFieldValues, 1, &raw mut field)?;
    nvml_try(field.nvmlReturn)?;
    // SAFETY: all members are plain integers over the same bytes, zeroed before; the small ones are little-endian
    // within the large one on every architecture that NVIDIA's driver runs on.
    Ok(unsafe { field.value.uiVal })
}

/// What sits at the other end of an NVLink: 0 a GPU, 1 an NPU, 2 a switch, 255 unknown.
pub(super) fn remote_type(device: &Device<'_>, link: u32) -> Result<u32, NvmlError> {
    let mut kind = 0;
    call!(device, nvmlDeviceGetNvLinkRemoteDeviceType, link, &raw mut kind)?;
    Ok(kind)
}

/// A second value for the same handle, for the one call of the wrapper that takes a device by value.
pub(super) fn again<'nvml>(device: &Device<'nvml>) -> Device<'nvml> {
    // SAFETY: the handle is the one of a live device of the same library, and handles need no release.
    unsafe { Device::new(device.handle(), device.nvml()) }
}
