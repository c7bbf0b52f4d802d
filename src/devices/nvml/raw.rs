//! The driver calls that nvml-wrapper binds and does not wrap. The only unsafe code of the program.
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

/// Calls a bound symbol on a device, or says that the library lacks it.
macro_rules! call {
    ($device:expr, $symbol:ident $(, $argument:expr)*) => {{
        let library = $device.nvml().lib();
        match library.$symbol.as_ref() {
            // SAFETY: the handle is live (the device borrows the initialised library), and every
            // pointer passed is to a local of the type that the binding names, or to a buffer of as
            // many of them as the call is told.
            Ok(function) => nvml_try(unsafe { function($device.handle() $(, $argument)*) }),
            Err(error) => Err(NvmlError::FailedToLoadSymbol(error.to_string())),
        }
    }};
}

/// Bytes of a product name with its end (`NVML_DEVICE_NAME_V2_BUFFER_SIZE`).
const NAME_SIZE: c_uint = 96;
/// Bytes of a UUID with its end; the longest, of a MIG device before R470, have 62
/// (`NVML_DEVICE_UUID_V2_BUFFER_SIZE`).
const UUID_SIZE: c_uint = 96;

/// The product name. The wrapper's own call reads on where a driver leaves out the end.
pub(super) fn name(device: &Device<'_>) -> Result<String, NvmlError> {
    let mut buffer: [c_char; NAME_SIZE as usize] = [0; NAME_SIZE as usize];
    call!(device, nvmlDeviceGetName, buffer.as_mut_ptr(), NAME_SIZE)?;
    text(&buffer)
}

/// The UUID; an error where it is no text, for it is the key of everything.
pub(super) fn uuid(device: &Device<'_>) -> Result<String, NvmlError> {
    let mut buffer: [c_char; UUID_SIZE as usize] = [0; UUID_SIZE as usize];
    call!(device, nvmlDeviceGetUUID, buffer.as_mut_ptr(), UUID_SIZE)?;

    // It goes into lists and environment variables.
    let plain = |uuid: &String| {
        uuid.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
    };

    text(&buffer).and_then(|uuid| {
        if plain(&uuid) {
            Ok(uuid)
        } else {
            Err(NvmlError::NotFound)
        }
    })
}

/// The text in `buffer` up to its end.
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

/// Processes asked for at first; more than most devices have.
const FIRST_ROOM: usize = 64;
/// Processes asked for at the most, whatever the driver's count says.
const MOST_ROOM: usize = 1 << 16;
/// How often a list is asked for that outgrows its buffer.
const ATTEMPTS: usize = 3;

/// The processes of one list.
///
/// The driver is given a buffer from the start. Some answer SUCCESS to the question for a count,
/// which an empty buffer is meant to be, and their list would be taken for empty.
pub(super) fn processes(
    device: &Device<'_>,
    list: ProcessList,
) -> Result<Vec<ProcessInfo>, NvmlError> {
    let mut room = FIRST_ROOM;
    for _ in 0..ATTEMPTS {
        // SAFETY: a structure of integers, for which zeroes are valid.
        let mut found: Vec<nvmlProcessInfo_t> = vec![unsafe { mem::zeroed() }; room];
        let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
        let (length, infos) = (&raw mut count, found.as_mut_ptr());

        let answered = match list {
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
        match answered {
            // More than there was room for is no list.
            Ok(()) if count <= room => {
                found.truncate(count);
                return Ok(found.into_iter().map(ProcessInfo::from).collect());
            }
            Ok(()) | Err(NvmlError::InsufficientSize(_)) => {
                room = count
                    .saturating_add(count / 4)
                    .max(room.saturating_mul(2))
                    .min(MOST_ROOM);
            }
            Err(error) => return Err(error),
        }
    }

    Err(NvmlError::InsufficientSize(None))
}

/// Memory as the first version of the call tells it: (total, free, used), the reserve within `used`
/// since R510.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<(u64, u64, u64), NvmlError> {
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };

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

    Ok((pending != 0, failed != 0))
}

/// NVLink fabric registration: (state, status).
pub(super) fn fabric(device: &Device<'_>) -> Result<(u8, u32), NvmlError> {
    // SAFETY: a structure of integers and bytes, for which zeroes are valid.
    let mut info: nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
    call!(device, nvmlDeviceGetGpuFabricInfo, &raw mut info)?;
    Ok((info.state, info.status))
}

/// What the driver wants done with the GPU: 0 nothing, 1 reset, 2 reboot, 3 drain peers, 4 drain
/// and reset.
pub(super) fn recovery_action(device: &Device<'_>) -> Result<u32, NvmlError> {
    // SAFETY: a structure of integers and a union of them, for which zeroes are valid.
    let mut field: nvmlFieldValue_t = unsafe { mem::zeroed() };
    field.fieldId = RECOVERY_ACTION_FIELD;
    call!(device, nvmlDeviceGetFieldValues, 1, &raw mut field)?;
    nvml_try(field.nvmlReturn)?;

    // SAFETY: all members are plain integers over the same bytes, zeroed before; the small ones are
    // little-endian within the large one on every architecture that NVIDIA's driver runs on.
    Ok(unsafe { field.value.uiVal })
}

/// What sits at the other end of an NVLink: 0 a GPU, 1 an NPU, 2 a switch, 255 unknown.
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

/// A second value for the same handle, for the one call of the wrapper that takes a device by
/// value.
pub(super) fn again<'nvml>(device: &Device<'nvml>) -> Device<'nvml> {
    // SAFETY: the handle is the one of a live device of the same library, and handles need no
    // release.
    unsafe { Device::new(device.handle(), device.nvml()) }
}
