//! A simulated `/proc`, `/sys` and `/etc` in a directory of the test.
//!
//! They contain only what the reading of devices uses.

use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};

/// A directory with `proc`, `sys` and `etc` in it.
#[derive(Debug)]
pub struct FakeHost {
    root: PathBuf,
}

impl FakeHost {
    /// Creates a host with 128 GiB of memory, most of it available.
    ///
    /// It has two users, `root` and `ann` (1000).
    pub fn new(root: &Path) -> Result<Self> {
        let host = Self {
            root: root.to_owned(),
        };

        host.memory(134_217_728, 125_829_120)?;
        host.write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\n",
        )?;

        host.write(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  590.44.01\n",
        )?;

        Ok(host)
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file under the directory.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)
    }

    /// Sets `MemTotal` and `MemAvailable`.
    ///
    /// `MemFree` is small, as on a host that has run for some time.
    pub fn memory(&self, total_kib: u64, available_kib: u64) -> Result<()> {
        let text = format!(
            "MemTotal: {total_kib} kB\nMemFree: 3040870 kB\nMemAvailable: {available_kib} kB\n"
        );
        self.write("proc/meminfo", &text)
    }

    /// Adds a process.
    pub fn process(&self, pid: u32, name: &str, uid: u32, cgroup: &str) -> Result<()> {
        self.write(&format!("proc/{pid}/comm"), &format!("{name}\n"))?;
        self.write(
            &format!("proc/{pid}/status"),
            &format!("Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        )?;
        self.write(&format!("proc/{pid}/cgroup"), &format!("0::{cgroup}\n"))?;

        let stat = format!(
            "{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0",
            u64::from(pid) * 10
        );

        self.write(&format!("proc/{pid}/stat"), &stat)
    }

    /// Adds a GPU of the kernel module. `runtime_status` is `active` or `suspended`.
    pub fn gpu(&self, bus_id: &str, model: &str, uuid: &str, runtime_status: &str) -> Result<()> {
        let text = format!(
            "Model: \t\t {model}\nIRQ:   \t\t 16\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n"
        );
        self.write(
            &format!("proc/driver/nvidia/gpus/{bus_id}/information"),
            &text,
        )?;

        self.write(
            &format!("sys/bus/pci/devices/{bus_id}/power/runtime_status"),
            &format!("{runtime_status}\n"),
        )?;

        self.write(&format!("sys/bus/pci/devices/{bus_id}/numa_node"), "1\n")
    }
}
