//! One memory reading: v2, else v1, else the host's own where the GPU shares it.

use std::fs;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::raw;
use crate::bytes::Bytes;
use crate::devices::holders::HostRoots;
use crate::devices::host_memory;

/// What a device's memory is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryReading {
    pub(super) total: Bytes,
    pub(super) free: Bytes,
    pub(super) used: Bytes,
    /// `None` where only v1 answered: its `used` has the reserve inside.
    pub(super) reserved: Option<Bytes>,
    /// One pool with the host.
    pub(super) unified: bool,
}

/// Reads `device`, whose product name is `name`.
pub(super) fn read(device: &Device<'_>, name: &str, roots: &HostRoots) -> Result<MemoryReading, NvmlError> {
    let second = device.memory_info();
    let first = match second {
        Ok(memory) if memory.total > 0 => {
            return Ok(MemoryReading {
                total: Bytes::new(memory.total),
                free: Bytes::new(memory.free),
                used: Bytes::new(memory.used),
                reserved: Some(Bytes::new(memory.reserved)),
                unified: false,
            });
        }
        // A total of zero is how some stacks say "not supported".
        Ok(_) => Err(NvmlError::NotSupported),
        Err(error) if older_may_work(&error) => raw::memory_v1(device),
        Err(error) => return Err(error),
    };
    match first {
        Ok((total, free, used)) if total > 0 => Ok(MemoryReading {
            total: Bytes::new(total),
            free: Bytes::new(free),
            used: Bytes::new(used),
            reserved: None,
            unified: false,
        }),
        Ok(_) | Err(NvmlError::NotSupported) if integrated(name, roots) => shared(roots),
        Ok(_) => Err(NvmlError::NotSupported),
        Err(error) => Err(error),
    }
}

/// v2 appeared with R510 and was broken or half there in several drivers around it.
fn older_may_work(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::UnexpectedVariant(25)
            | NvmlError::Unknown
            | NvmlError::NotSupported
    )
}

/// Evidence that the GPU has no memory of its own. Without it, "not supported" must not turn into the host's memory:
/// nvtop once showed system RAM as that of discrete cards (Syllo/nvtop#424).
fn integrated(name: &str, roots: &HostRoots) -> bool {
    let upper = name.to_ascii_uppercase();
    ["GB10", "ORIN", "THOR", "XAVIER", "TEGRA"]
        .iter()
        .any(|part| upper.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == *part))
        || fs::read(roots.proc.join("device-tree/compatible"))
            .is_ok_and(|text| text.windows(12).any(|part| part == b"nvidia,tegra"))
}

fn shared(roots: &HostRoots) -> Result<MemoryReading, NvmlError> {
    let host = host_memory::read(&roots.proc).ok_or(NvmlError::NotSupported)?;
    Ok(MemoryReading {
        total: host.total_bytes,
        free: host.available_bytes,
        used: host.total_bytes.less(host.available_bytes).unwrap_or(host.total_bytes),
        reserved: Some(Bytes::ZERO),
        unified: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integrated_parts_are_taken_for_such() {
        let roots = HostRoots::under("/nonexistent".as_ref());
        for name in ["NVIDIA GB10", "Orin (nvgpu)", "NVIDIA Thor", "NVIDIA Tegra X1"] {
            assert!(integrated(name, &roots), "{name}");
        }
        for name in ["NVIDIA GB100", "NVIDIA H100 80GB HBM3", "Tesla T4", "NVIDIA GeForce GTX 1080 Ti"] {
            assert!(!integrated(name, &roots), "{name}");
        }
    }
}
