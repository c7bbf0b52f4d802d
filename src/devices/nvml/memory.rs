//! One memory reading: v2, else v1, else the host's own where the GPU shares it.

use std::fs;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Warning, WarningReason};
use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::raw;
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

impl MemoryReading {
    /// The one of two readings, made before and after the processes were listed, that leaves less.
    ///
    /// A lease's claim shrinks by what its holder is seen to have. Were that seen and the memory
    /// read before it was taken, the same bytes would count as free and as arrived, and be promised
    /// twice.
    pub(super) fn or_less_free(self, after: Self) -> Self {
        if after.free < self.free { after } else { self }
    }
}

/// Reads `device`, whose product name is `name`.
pub(super) fn read(
    device: &Device<'_>,
    name: &str,
    roots: &HostRoots,
) -> Result<MemoryReading, NvmlError> {
    match dedicated(device) {
        Err(NvmlError::NotSupported) if integrated(name, roots) => shared(roots),
        other => other,
    }
}

/// Memory of the device's own: "not supported" where neither call tells of any.
pub(super) fn dedicated(device: &Device<'_>) -> Result<MemoryReading, NvmlError> {
    let second = match device.memory_info() {
        Ok(memory) => {
            let reserved = Some(memory.reserved);
            believable(memory.total, memory.free, memory.used, reserved)
        }
        Err(error) => Err(error),
    };

    match second {
        Err(error) if older_may_work(&error) => {
            let (total, free, used) = raw::memory_v1(device)?;
            believable(total, free, used, None)
        }
        other => other,
    }
}

/// A total of zero is how some stacks say "not supported"; a part larger than the whole is no
/// reading at all.
fn believable(
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

/// Evidence that the GPU has no memory of its own. Without it, "not supported" must not turn into
/// the host's memory: nvtop once showed system RAM as that of discrete cards (Syllo/nvtop#424).
fn integrated(name: &str, roots: &HostRoots) -> bool {
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

fn shared(roots: &HostRoots) -> Result<MemoryReading, NvmlError> {
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

/// Less page cache than this is not worth a word.
const MENTIONED: Bytes = Bytes::mib(256);

/// Where the host manages the GPU's memory as NUMA node `node`, how much of what is in use there is
/// page cache.
///
/// It stays counted as in use: the kernel could give it up, but whether an allocation of CUDA's
/// makes it do so is not known, and a "fits" that relied on it might be wrong. Nothing is said of a
/// node that is not this GPU's memory: one with processors, one that is larger than the GPU's
/// memory, or one with more page cache than the GPU has in use.
pub(super) fn page_cache(node: u32, reading: MemoryReading, roots: &HostRoots) -> Option<Warning> {
    let folder = roots.sys.join(format!("devices/system/node/node{node}"));
    if fs::read_to_string(folder.join("cpulist"))
        .is_ok_and(|processors| !processors.trim().is_empty())
    {
        return None;
    }

    let meminfo = fs::read_to_string(folder.join("meminfo")).ok()?;
    if figure(&meminfo, "MemTotal:").is_some_and(|total| total > reading.total) {
        return None;
    }

    let cached = figure(&meminfo, "FilePages:")
        .filter(|bytes| (MENTIONED..=reading.used).contains(bytes))?;

    let message = format!(
        "{cached} of what is in use is the host's page cache (NUMA node {node}); it is not counted as free; \
         to give it back: sync; echo 1 > /proc/sys/vm/drop_caches"
    );

    Some(super::health::warning(WarningReason::PageCache, message))
}

/// `Node 4 FilePages:  3145728 kB`
fn figure(meminfo: &str, name: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.split_once(name))?;
    let kibibytes: u64 = line.1.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_cache_is_read_from_the_nodes_own_file() {
        let text = "Node 4 MemTotal:       100663296 kB\nNode 4 MemUsed:  3 kB\nNode 4 FilePages:       3145728 kB\n";
        assert_eq!(figure(text, "FilePages:"), Some(Bytes::gib(3)));
        assert_eq!(figure(text, "MemTotal:"), Some(Bytes::gib(96)));
        assert_eq!(figure("Node 4 FilePages: many kB", "FilePages:"), None);
    }

    #[test]
    fn parts_larger_than_the_whole_are_no_reading() {
        assert_eq!(
            believable(100, 60, 30, Some(10)).unwrap().free,
            Bytes::new(60)
        );
        assert_eq!(believable(100, 60, 40, None).unwrap().reserved, None);

        assert!(matches!(
            believable(0, 0, 0, None),
            Err(NvmlError::NotSupported)
        ));

        for (free, used, reserved) in [
            (101, 0, None),
            (0, 101, None),
            (95, 0, Some(10)),
            (u64::MAX, 0, Some(1)),
        ] {
            assert!(matches!(
                believable(100, free, used, reserved),
                Err(NvmlError::Unknown)
            ));
        }
    }

    #[test]
    fn only_integrated_parts_are_taken_for_such() {
        let roots = HostRoots::under("/nonexistent".as_ref());
        for name in [
            "NVIDIA GB10",
            "Orin (nvgpu)",
            "NVIDIA Thor",
            "NVIDIA Tegra X1",
        ] {
            assert!(integrated(name, &roots), "{name}");
        }

        for name in [
            "NVIDIA GB100",
            "NVIDIA H100 80GB HBM3",
            "Tesla T4",
            "NVIDIA GeForce GTX 1080 Ti",
        ] {
            assert!(!integrated(name, &roots), "{name}");
        }
    }
}
