//! The power state of the GPUs.
//!
//! It is read from kernel files only, because a driver call would wake a sleeping GPU.

use std::fs;

use super::holders::HostRoots;

/// A GPU as the kernel module lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerState {
    /// `0000:01:00.0`
    pub bus_id: String,
    /// The product name, from the module.
    pub name: Option<String>,
    /// The UUID, from the module, which shows question marks for a GPU that it has not started yet.
    pub uuid: Option<String>,
    suspended: bool,
}

impl PowerState {
    /// Whether runtime power management has suspended the GPU.
    pub fn asleep(&self) -> bool {
        self.suspended
    }
}

/// Returns the GPUs that the NVIDIA module owns, in the order of their bus addresses.
///
/// The list is empty if the module is not loaded or `/proc` hides it.
pub fn states(roots: &HostRoots) -> Vec<PowerState> {
    let Ok(folder) = fs::read_dir(roots.proc.join("driver/nvidia/gpus")) else {
        return Vec::new();
    };

    let mut bus_ids: Vec<String> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    bus_ids.sort();

    bus_ids
        .into_iter()
        .map(|bus_id| state(roots, bus_id))
        .collect()
}

/// Whether the kernel module lets a GPU suspend while the host runs ("Runtime D3", laptops).
///
/// An open NVML library keeps such a GPU awake.
pub fn any_can_suspend(roots: &HostRoots) -> bool {
    let Ok(folder) = fs::read_dir(roots.proc.join("driver/nvidia/gpus")) else {
        return false;
    };

    folder.flatten().any(|gpu| {
        let text = fs::read_to_string(gpu.path().join("power")).unwrap_or_default();
        let status = text
            .lines()
            .find_map(|line| line.strip_prefix("Runtime D3 status:"));
        status.is_some_and(|status| status.trim().starts_with("Enabled"))
    })
}

fn state(roots: &HostRoots, bus_id: String) -> PowerState {
    let status = roots
        .sys
        .join("bus/pci/devices")
        .join(&bus_id)
        .join("power/runtime_status");
    let suspended = fs::read_to_string(status)
        .is_ok_and(|text| matches!(text.trim(), "suspended" | "suspending"));
    let information = if suspended {
        fs::read_to_string(
            roots
                .proc
                .join("driver/nvidia/gpus")
                .join(&bus_id)
                .join("information"),
        )
        .ok()
    } else {
        None
    };

    let information = information.unwrap_or_default();
    PowerState {
        name: information_field(&information, "Model:"),
        uuid: information_field(&information, "GPU UUID:"),
        bus_id,
        suspended,
    }
}

/// A field of the module's `information` file. Question marks mean that it is unknown.
fn information_field(information: &str, name: &str) -> Option<String> {
    let value = information
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim();

    (!value.is_empty() && !value.contains('?')).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_d3_status_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let roots = HostRoots::under(folder.path());
        assert!(!any_can_suspend(&roots));
        let gpu = folder.path().join("proc/driver/nvidia/gpus/0000:01:00.0");
        fs::create_dir_all(&gpu).unwrap();

        for (status, expected) in [
            ("Not supported", false),
            ("Disabled by default", false),
            ("Enabled (fine-grained)", true),
            ("?", false),
        ] {
            let text = format!(
                "Runtime D3 status:          {status}\nVideo Memory:               Active\n"
            );
            fs::write(gpu.join("power"), text).unwrap();
            assert_eq!(any_can_suspend(&roots), expected, "{status}");
        }
    }
}
