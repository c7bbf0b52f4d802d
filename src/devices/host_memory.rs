//! The host's memory, from `/proc/meminfo`.

use std::fs;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::HostMemory;

/// Reads `meminfo` under `proc` (`/proc`, or a test's directory).
///
/// Returns `None` if the file cannot be read or lacks a figure.
pub fn read(proc: &Path) -> Option<HostMemory> {
    parse(&fs::read_to_string(proc.join("meminfo")).ok()?)
}

/// Parses the text of `meminfo`.
///
/// `MemAvailable` is the memory that can be allocated without swapping. `MemFree` leaves out the
/// page cache, which the kernel evicts on demand.
pub fn parse(meminfo: &str) -> Option<HostMemory> {
    Some(HostMemory {
        total_bytes: parse_figure(meminfo, "MemTotal")?,
        available_bytes: parse_figure(meminfo, "MemAvailable")?,
    })
}

fn parse_figure(meminfo: &str, name: &str) -> Option<Bytes> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;

    kibibytes.checked_mul(1024).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_available_not_free() {
        let text = "MemTotal:       127600748 kB\nMemFree:         3040870 kB\nMemAvailable:   121425100 kB\n";
        let memory = parse(text).unwrap();
        assert_eq!(memory.total_bytes, Bytes::new(127_600_748 * 1024));
        assert_eq!(memory.available_bytes, Bytes::new(121_425_100 * 1024));
    }

    #[test]
    fn incomplete_file_gives_none() {
        for text in [
            "",
            "MemTotal: 1 kB",
            "MemTotal: x kB\nMemAvailable: 1 kB",
            "MemTotal: 1\nMemAvailable: 1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
