//! Which GPUs sleep. Asked of the kernel's files only: a question to the driver would wake them.

use std::fs;

use super::holders::HostRoots;

/// A GPU as the kernel module lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerState {
    /// `0000:01:00.0`
    pub bus_id: String,
    /// Product name, from the module.
    pub name: Option<String>,
    /// UUID, from the module; it shows question marks for a GPU it has not started yet.
    pub uuid: Option<String>,
    suspended: bool,
}

impl PowerState {
    /// Whether it is suspended by runtime power management.
    pub fn asleep(&self) -> bool {
        self.suspended
    }
}

/// The GPUs that the NVIDIA module owns, by bus address; none where it is not loaded or `/proc`
/// hides it.
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

/// Whether the kernel module lets a GPU suspend while the host runs ("Runtime D3", laptops): an
/// open library keeps such a GPU awake.
pub fn any_suspends(roots: &HostRoots) -> bool {
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
    let told = if suspended {
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

    let field = |name: &str| {
        let line = told
            .as_ref()?
            .lines()
            .find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned()).filter(|value| !value.is_empty() && !value.contains('?'))
    };

    PowerState {
        name: field("Model:"),
        uuid: field("GPU UUID:"),
        bus_id,
        suspended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_module_that_suspends_gpus_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let roots = HostRoots::under(folder.path());
        assert!(!any_suspends(&roots));
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
            assert_eq!(any_suspends(&roots), expected, "{status}");
        }
    }
}
