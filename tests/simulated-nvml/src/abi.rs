//! The C types and names of NVML that the simulated calls use, in the layout of `nvml.h` (API 13).

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};

/// `nvmlReturn_t`.
pub type Return = c_uint;
/// `nvmlDevice_t`: in this library, the number of an interned UUID in the form of a pointer.
pub type Handle = *mut c_void;

#[repr(C)]
pub struct MemoryV1 {
    pub total: c_ulonglong,
    pub free: c_ulonglong,
    pub used: c_ulonglong,
}

#[repr(C)]
pub struct MemoryV2 {
    pub version: c_uint,
    pub total: c_ulonglong,
    pub reserved: c_ulonglong,
    pub free: c_ulonglong,
    pub used: c_ulonglong,
}

#[repr(C)]
pub struct PciInfo {
    pub bus_id_legacy: [c_char; 16],
    pub domain: c_uint,
    pub bus: c_uint,
    pub device: c_uint,
    pub pci_device_id: c_uint,
    pub pci_subsystem_id: c_uint,
    pub bus_id: [c_char; 32],
}

#[repr(C)]
pub struct ProcessInfo {
    pub pid: c_uint,
    pub used_gpu_memory: c_ulonglong,
    pub gpu_instance_id: c_uint,
    pub compute_instance_id: c_uint,
}

#[repr(C)]
pub struct Attributes {
    pub multiprocessor_count: c_uint,
    pub shared_copy_engine_count: c_uint,
    pub shared_decoder_count: c_uint,
    pub shared_encoder_count: c_uint,
    pub shared_jpeg_count: c_uint,
    pub shared_ofa_count: c_uint,
    pub gpu_instance_slice_count: c_uint,
    pub compute_instance_slice_count: c_uint,
    pub memory_size_mb: c_ulonglong,
}

#[repr(C)]
pub struct FabricInfo {
    pub cluster_uuid: [u8; 16],
    pub status: Return,
    pub clique_id: c_uint,
    pub state: u8,
}

#[repr(C)]
pub struct FieldValue {
    pub field_id: c_uint,
    pub scope_id: c_uint,
    pub timestamp: c_longlong,
    pub latency_usec: c_longlong,
    pub value_type: c_uint,
    pub nvml_return: Return,
    pub value: c_ulonglong,
}

#[repr(C)]
pub struct EventData {
    pub device: Handle,
    pub event_type: c_ulonglong,
    pub event_data: c_ulonglong,
    pub gpu_instance_id: c_uint,
    pub compute_instance_id: c_uint,
}

#[repr(C)]
pub struct SymbolInfo {
    pub file_name: *const c_char,
    pub file_base: *mut c_void,
    pub symbol_name: *const c_char,
    pub symbol_address: *mut c_void,
}

unsafe extern "C" {
    /// Finds the file that an address was loaded from (`dlfcn.h`).
    pub fn dladdr(address: *const c_void, info: *mut SymbolInfo) -> c_int;
}
