//! The arguments of the C calls: texts that the caller passes, and answers that it receives.

use std::ffi::{CStr, c_char, c_uint};

use crate::abi::{PciInfo, Return};
use crate::scenario::codes;

/// Writes an answer to the address that the caller passed.
pub fn put<T>(target: *mut T, value: T) -> Result<(), Return> {
    if target.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null, and the contract of the C call makes it valid for a write.
    unsafe { target.write(value) };

    Ok(())
}

/// Writes a text and its terminator to the buffer that the caller passed.
pub fn put_text(buffer: *mut c_char, length: c_uint, text: &str) -> Result<(), Return> {
    if buffer.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }

    if text.len() >= length as usize {
        return Err(codes::INSUFFICIENT_SIZE);
    }
    // SAFETY: the contract of the C call makes `length` bytes writable. The text and its NUL are
    // not longer than that.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }

    Ok(())
}

fn text<const N: usize>(value: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().take(N - 1).zip(value.bytes()) {
        *to = from.cast_signed();
    }
    out
}

/// Returns NVML's PCI structure of an address such as `00000000:41:00.0`.
pub fn pci_info(bus_id: &str) -> PciInfo {
    let mut parts = bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    PciInfo {
        bus_id_legacy: text(bus_id.get(4..).unwrap_or(bus_id)),
        domain: next(),
        bus: next(),
        device: next(),
        pci_device_id: 0x2330_10de,
        pci_subsystem_id: 0,
        bus_id: text(bus_id),
    }
}

/// Returns the text that the caller passed.
pub fn given_text<'a>(text: *const c_char) -> Result<&'a str, Return> {
    if text.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null, and the contract of the C call makes the text
    // NUL-terminated.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| codes::INVALID_ARGUMENT)
}
