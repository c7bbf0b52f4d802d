//! What `--gpus` names: declared devices, or a snapshot file that `gpus --json` wrote.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use hf_mem_core::device::declared::{Declared, DeclaredError, from_json, parse};

use crate::files;

/// A snapshot file of [`MAX_DEVICES`] devices with their processes and links stays far below this.
const MAX_SNAPSHOT_FILE: u64 = 64 << 20;

/// What `--gpus` names: a snapshot file where one stands at that path, else a specification. `now`
/// is when the declaration is taken to have been read.
pub fn resolve(argument: &str, now: SystemTime) -> Result<Declared, DeclaredError> {
    let path = Path::new(argument);
    if !names_a_file(argument) {
        return Ok(Declared {
            snapshot: parse(argument, now)?,
            leased: BTreeMap::new(),
        });
    }

    let failed = |reason: String| DeclaredError::File {
        path: argument.to_owned(),
        reason,
    };

    let file = path.to_owned();
    let read = files::try_wait(path, move |disk| disk.read_text(&file, MAX_SNAPSHOT_FILE));

    from_json(&read.map_err(|error| failed(error.to_string()))?)
}

/// Whether `--gpus` means a snapshot file: one that is there, or that is named as one.
pub fn names_a_file(argument: &str) -> bool {
    let path = Path::new(argument);
    argument.contains('/')
        || path.extension().is_some_and(|ending| ending == "json")
        || is_file(path)
}

fn is_file(path: &Path) -> bool {
    let asked = path.to_owned();
    files::wait(path, move |disk| disk.is_file(&asked)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_specification_whether_or_not_it_is_there() {
        for file in [
            "a.json",
            "./a",
            "/nonexistent/a",
            env!("CARGO_MANIFEST_DIR"),
        ] {
            assert!(names_a_file(file), "{file}");
        }

        for spec in ["24GiB", "8xH100-80GB,host:64GiB", "H200:1g.18gb", "22.5GiB"] {
            assert!(!names_a_file(spec), "{spec}");
        }
    }
}
