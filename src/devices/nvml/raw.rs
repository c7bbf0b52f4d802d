//! The driver calls that nvml-wrapper binds but does not wrap.
//!
//! This module has the only unsafe code of the program.
#![expect(unsafe_code, reason = "raw calls of the driver's C API")]

use std::ffi::{CStr, c_char, c_uint};
use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlGpuFabricInfo_t, nvmlMemory_t, nvmlProcessInfo_t,
};

/// The field that holds the recovery action (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
const RECOVERY_ACTION_FIELD: u32 = 230;

/// Calls a bound symbol on a device. The result is an error if the library lacks the symbol.
macro_rules! call {
    ($device:expr, $symbol:ident $(, $argument:expr)*) => {{
        let library = $device.nvml().lib();
        match library.$symbol.as_ref() {
            // SAFETY: the handle is live, because the device borrows the initialized library. Every
            // pointer argument points to a local of the type that the binding names, or to a buffer
            // with as many elements of that type as the length argument of the call says.
            Ok(function) => nvml_try(unsafe { function($device.handle() $(, $argument)*) }),
            Err(error) => Err(NvmlError::FailedToLoadSymbol(error.to_string())),
        }
    }};
}

/// The size of a product name with its terminator, in bytes (`NVML_DEVICE_NAME_V2_BUFFER_SIZE`).
const NAME_SIZE: c_uint = 96;
/// The size of a UUID with its terminator, in bytes (`NVML_DEVICE_UUID_V2_BUFFER_SIZE`).
///
/// The longest UUIDs, of MIG devices before R470, have 62.
const UUID_SIZE: c_uint = 96;

/// Returns the product name.
///
/// The wrapper's own call reads past the buffer if a driver omits the terminator.
pub(super) fn name(device: &Device<'_>) -> Result<String, NvmlError> {
    let mut buffer: [c_char; NAME_SIZE as usize] = [0; NAME_SIZE as usize];
    call!(device, nvmlDeviceGetName, buffer.as_mut_ptr(), NAME_SIZE)?;
    text(&buffer)
}

/// Returns the UUID.
///
/// A UUID that is not text is an error, because the UUID is the key of everything.
pub(super) fn uuid(device: &Device<'_>) -> Result<String, NvmlError> {
    let mut buffer: [c_char; UUID_SIZE as usize] = [0; UUID_SIZE as usize];
    call!(device, nvmlDeviceGetUUID, buffer.as_mut_ptr(), UUID_SIZE)?;

    let uuid = text(&buffer)?;
    if is_list_item(&uuid) {
        Ok(uuid)
    } else {
        Err(NvmlError::NotFound)
    }
}

/// Whether a UUID can be used in comma-separated lists and environment variables.
fn is_list_item(uuid: &str) -> bool {
    uuid.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// Returns the text in `buffer` up to its terminator.
fn text(buffer: &[c_char]) -> Result<String, NvmlError> {
    let bytes: Vec<u8> = buffer.iter().map(|letter| letter.cast_unsigned()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map_err(|_| NvmlError::InsufficientSize(None))?;
    if text.is_empty() {
        return Err(NvmlError::NotFound);
    }
    Ok(text.to_str()?.to_owned())
}

/// One of the three lists of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessList {
    Compute,
    Graphics,
    Mps,
}

/// The first buffer size of a process list, in processes. Most devices have fewer.
const INITIAL_CAPACITY: usize = 64;
/// The largest buffer size of a process list, whatever the driver's count says.
const MAX_CAPACITY: usize = 1 << 16;
/// The number of attempts to read a list that outgrows its buffer.
const MAX_ATTEMPTS: usize = 3;

/// Returns the processes of one list.
///
/// The first call already passes a buffer. A call with an empty buffer is meant to ask for the
/// count, but some drivers answer it with SUCCESS, and the list would look empty.
pub(super) fn processes(
    device: &Device<'_>,
    list: ProcessList,
) -> Result<Vec<ProcessInfo>, NvmlError> {
    let mut capacity = INITIAL_CAPACITY;
    for _ in 0..MAX_ATTEMPTS {
        // SAFETY: the structure has only integer fields, for which zero bytes are valid.
        let mut found: Vec<nvmlProcessInfo_t> = vec![unsafe { mem::zeroed() }; capacity];
        let mut count = c_uint::try_from(capacity).unwrap_or(c_uint::MAX);
        let (length, infos) = (&raw mut count, found.as_mut_ptr());

        let result = match list {
            ProcessList::Compute => call!(
                device,
                nvmlDeviceGetComputeRunningProcesses_v3,
                length,
                infos
            ),
            ProcessList::Graphics => call!(
                device,
                nvmlDeviceGetGraphicsRunningProcesses_v3,
                length,
                infos
            ),
            ProcessList::Mps => call!(
                device,
                nvmlDeviceGetMPSComputeRunningProcesses_v3,
                length,
                infos
            ),
        };

        let count = count as usize;
        match result {
            // A count above the capacity does not describe a list.
            Ok(()) if count <= capacity => {
                found.truncate(count);
                return Ok(found.into_iter().map(ProcessInfo::from).collect());
            }
            Ok(()) | Err(NvmlError::InsufficientSize(_)) => {
                capacity = count
                    .saturating_add(count / 4)
                    .max(capacity.saturating_mul(2))
                    .min(MAX_CAPACITY);
            }
            Err(error) => return Err(error),
        }
    }

    Err(NvmlError::InsufficientSize(None))
}

/// Returns the memory by version 1 of the call. Its `used` includes the reserve since R510.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<nvmlMemory_t, NvmlError> {
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };

    call!(device, nvmlDeviceGetMemoryInfo, &raw mut memory)?;
    Ok(memory)
}

/// Returns the id of the GPU instance that a MIG device belongs to.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut id = 0;
    call!(device, nvmlDeviceGetGpuInstanceId, &raw mut id)?;
    Ok(id)
}

/// The state of row remapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemappedRows {
    pub(super) pending: bool,
    pub(super) failed: bool,
}

/// Returns the state of row remapping.
pub(super) fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, NvmlError> {
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
    let (first, second, third, fourth) = (
        &raw mut correctable,
        &raw mut uncorrectable,
        &raw mut pending,
        &raw mut failed,
    );

    call!(
        device,
        nvmlDeviceGetRemappedRows,
        first,
        second,
        third,
        fourth
    )?;

    Ok(RemappedRows {
        pending: pending != 0,
        failed: failed != 0,
    })
}

/// The registration of a GPU with the NVLink fabric.
#[derive(Clone, Copy, Debug)]
pub(super) struct FabricState {
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub(super) state: u8,
    /// With state 3: 0 is success.
    pub(super) status: u32,
}

/// Returns the registration of a GPU with the NVLink fabric.
pub(super) fn fabric(device: &Device<'_>) -> Result<FabricState, NvmlError> {
    // SAFETY: the structure has only integer and byte fields, for which zero bytes are valid.
    let mut info: nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
    call!(device, nvmlDeviceGetGpuFabricInfo, &raw mut info)?;
    Ok(FabricState {
        state: info.state,
        status: info.status,
    })
}

/// Returns the recovery action that the driver asks for.
///
/// 0 none, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
pub(super) fn recovery_action(device: &Device<'_>) -> Result<u32, NvmlError> {
    // SAFETY: the structure has only integer fields and a union of integers, for which zero bytes
    // are valid.
    let mut field: nvmlFieldValue_t = unsafe { mem::zeroed() };
    field.fieldId = RECOVERY_ACTION_FIELD;
    call!(device, nvmlDeviceGetFieldValues, 1, &raw mut field)?;
    nvml_try(field.nvmlReturn)?;

    // SAFETY: all members of the union are plain integers over the same bytes, which were zeroed
    // before the call. The small members are little-endian within the large one on every
    // architecture that NVIDIA's driver supports.
    Ok(unsafe { field.value.uiVal })
}

/// Returns the type of the remote end of an NVLink: 0 a GPU, 1 an NPU, 2 a switch, 255 unknown.
pub(super) fn remote_type(device: &Device<'_>, link: u32) -> Result<u32, NvmlError> {
    let mut kind = 0;
    call!(
        device,
        nvmlDeviceGetNvLinkRemoteDeviceType,
        link,
        &raw mut kind
    )?;

    Ok(kind)
}

/// Returns a second `Device` with the same handle, for the one wrapper call that takes it by value.
pub(super) fn copy_handle<'nvml>(device: &Device<'nvml>) -> Device<'nvml> {
    // SAFETY: the handle belongs to a live device of the same library, and handles need no release.
    unsafe { Device::new(device.handle(), device.nvml()) }
}
