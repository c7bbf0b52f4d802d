//! Reading the memory of a device.
//!
//! The reading uses v2 of the call, or else v1, or else the host's memory if the GPU shares it.

use std::fs;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Warning, WarningReason};
use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::raw;
use crate::devices::holders::HostRoots;
use crate::devices::host_memory;

/// The memory of a device at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryReading {
    pub(super) total: Bytes,
    pub(super) free: Bytes,
    pub(super) used: Bytes,
    /// `None` if only v1 answered, whose `used` includes the reserve.
    pub(super) reserved: Option<Bytes>,
    /// Whether the memory is one pool with the host's.
    pub(super) unified: bool,
}

impl MemoryReading {
    /// Returns the reading with less free memory.
    ///
    /// `self` is from before the processes were listed, and `after` from after.
    ///
    /// A lease's claim shrinks by the memory that its holder is seen to use. A process can allocate
    /// memory after the first reading and before the list. With the first reading, those bytes
    /// would count both as free and as used by the holder, and could be leased twice.
    pub(super) fn or_less_free(self, after: Self) -> Self {
        if after.free < self.free { after } else { self }
    }
}

/// Reads the memory of `device`, whose product name is `name`.
pub(super) fn read(
    device: &Device<'_>,
    name: &str,
    roots: &HostRoots,
) -> Result<MemoryReading, NvmlError> {
    match dedicated(device) {
        Err(NvmlError::NotSupported) if is_integrated(name, roots) => read_host_memory(roots),
        other => other,
    }
}

/// Reads the device's own memory. The error is "not supported" if neither call reports any.
pub(super) fn dedicated(device: &Device<'_>) -> Result<MemoryReading, NvmlError> {
    let v2 = match device.memory_info() {
        Ok(memory) => {
            let reserved = Some(memory.reserved);
            validate(memory.total, memory.free, memory.used, reserved)
        }
        Err(error) => Err(error),
    };

    match v2 {
        Err(error) if v1_may_work(&error) => {
            let memory = raw::memory_v1(device)?;
            validate(memory.total, memory.free, memory.used, None)
        }
        other => other,
    }
}

/// Checks the figures of a reading.
///
/// Some drivers report a total of zero for "not supported". A part that is larger than the total
/// makes a reading invalid.
fn validate(
    total: u64,
    free: u64,
    used: u64,
    reserved: Option<u64>,
) -> Result<MemoryReading, NvmlError> {
    if total == 0 {
        return Err(NvmlError::NotSupported);
    }

    if free
        .checked_add(reserved.unwrap_or(0))
        .is_none_or(|sum| sum > total)
        || used > total
    {
        return Err(NvmlError::Unknown);
    }

    Ok(MemoryReading {
        total: Bytes::new(total),
        free: Bytes::new(free),
        used: Bytes::new(used),
        reserved: reserved.map(Bytes::new),
        unified: false,
    })
}

/// Whether v1 may work after this error of v2.
///
/// v2 appeared with R510 and was broken or incomplete in several drivers of that time.
fn v1_may_work(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::UnexpectedVariant(25)
            | NvmlError::Unknown
            | NvmlError::NotSupported
    )
}

/// Whether there is evidence that the GPU has no memory of its own.
///
/// Without evidence, "not supported" must not become the host's memory: nvtop once showed system
/// RAM as the memory of discrete cards (Syllo/nvtop#424).
fn is_integrated(name: &str, roots: &HostRoots) -> bool {
    let upper = name.to_ascii_uppercase();
    ["GB10", "ORIN", "THOR", "XAVIER", "TEGRA"]
        .iter()
        .any(|part| {
            upper
                .split(|letter: char| !letter.is_ascii_alphanumeric())
                .any(|word| word == *part)
        })
        || fs::read(roots.proc.join("device-tree/compatible"))
            .is_ok_and(|text| text.windows(12).any(|part| part == b"nvidia,tegra"))
}

fn read_host_memory(roots: &HostRoots) -> Result<MemoryReading, NvmlError> {
    let host = host_memory::read(&roots.proc).ok_or(NvmlError::NotSupported)?;
    Ok(MemoryReading {
        total: host.total_bytes,
        free: host.available_bytes,
        used: host
            .total_bytes
            .less(host.available_bytes)
            .unwrap_or(host.total_bytes),
        reserved: Some(Bytes::ZERO),
        unified: true,
    })
}

/// The smallest page cache that causes a warning.
const MIN_PAGE_CACHE: Bytes = Bytes::mib(256);

/// Returns a warning about page cache in the GPU's memory.
///
/// The host manages that memory as NUMA node `node`.
///
/// Page cache counts as used memory. The kernel can evict it, but it is unknown whether a CUDA
/// allocation makes it do so, and an answer "fits" that relied on it could be wrong. There is no
/// warning for a node that is not this GPU's memory: one with processors, one that is larger than
/// the GPU's memory, or one with more page cache than the GPU's used memory.
pub(super) fn page_cache_warning(
    node: u32,
    reading: MemoryReading,
    roots: &HostRoots,
) -> Option<Warning> {
    let folder = roots.sys.join(format!("devices/system/node/node{node}"));
    if fs::read_to_string(folder.join("cpulist"))
        .is_ok_and(|processors| !processors.trim().is_empty())
    {
        return None;
    }

    let meminfo = fs::read_to_string(folder.join("meminfo")).ok()?;
    if parse_figure(&meminfo, "MemTotal:").is_some_and(|total| total > reading.total) {
        return None;
    }

    let cached = parse_figure(&meminfo, "FilePages:")
        .filter(|bytes| (MIN_PAGE_CACHE..=reading.used).contains(bytes))?;

    let message = format!(
        "{cached} of the used memory is the host's page cache (NUMA node {node}) \
         and is not counted as free; \
         to free it, run: sync; echo 1 > /proc/sys/vm/drop_caches"
    );

    Some(super::health::warning(WarningReason::PageCache, message))
}

/// Parses a figure of a node's `meminfo`, such as `Node 4 FilePages:  3145728 kB`.
fn parse_figure(meminfo: &str, name: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.split_once(name))?;
    let kibibytes: u64 = line.1.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_meminfo_figures_are_parsed() {
        let text = "Node 4 MemTotal:       100663296 kB\nNode 4 MemUsed:  3 kB\nNode 4 FilePages:       3145728 kB\n";
        assert_eq!(parse_figure(text, "FilePages:"), Some(Bytes::gib(3)));
        assert_eq!(parse_figure(text, "MemTotal:"), Some(Bytes::gib(96)));
        assert_eq!(
            parse_figure("Node 4 FilePages: many kB", "FilePages:"),
            None
        );
    }

    #[test]
    fn part_above_total_is_rejected() {
        assert_eq!(
            validate(100, 60, 30, Some(10)).unwrap().free,
            Bytes::new(60)
        );
        assert_eq!(validate(100, 60, 40, None).unwrap().reserved, None);

        assert!(matches!(
            validate(0, 0, 0, None),
            Err(NvmlError::NotSupported)
        ));

        for (free, used, reserved) in [
            (101, 0, None),
            (0, 101, None),
            (95, 0, Some(10)),
            (u64::MAX, 0, Some(1)),
        ] {
            assert!(matches!(
                validate(100, free, used, reserved),
                Err(NvmlError::Unknown)
            ));
        }
    }

    #[test]
    fn integrated_gpus_are_recognized() {
        let roots = HostRoots::under("/nonexistent".as_ref());
        for name in [
            "NVIDIA GB10",
            "Orin (nvgpu)",
            "NVIDIA Thor",
            "NVIDIA Tegra X1",
        ] {
            assert!(is_integrated(name, &roots), "{name}");
        }

        for name in [
            "NVIDIA GB100",
            "NVIDIA H100 80GB HBM3",
            "Tesla T4",
            "NVIDIA GeForce GTX 1080 Ti",
        ] {
            assert!(!is_integrated(name, &roots), "{name}");
        }
    }
}
