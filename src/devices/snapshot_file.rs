//! The argument of `--gpus`: declared devices, or a snapshot file that `gpus --json` wrote.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use hf_mem_core::device::declared::{Declared, DeclaredError, from_json, parse};

use crate::files;

/// The largest snapshot file that is read, in bytes.
///
/// A file of [`MAX_DEVICES`](hf_mem_core::device::declared::MAX_DEVICES) devices, with their
/// processes and links, is far smaller.
const MAX_SNAPSHOT_FILE: u64 = 64 << 20;

/// Reads the argument of `--gpus`: a snapshot file if it names one, or else a specification.
///
/// `now` becomes the time of the reading of a specification.
pub fn resolve(argument: &str, now: SystemTime) -> Result<Declared, DeclaredError> {
    let path = Path::new(argument);
    if !names_a_file(argument) {
        return Ok(Declared {
            snapshot: parse(argument, now)?,
            leased: BTreeMap::new(),
        });
    }

    let file = path.to_owned();
    let text = files::try_wait(path, move |disk| disk.read_text(&file, MAX_SNAPSHOT_FILE))
        .map_err(|error| DeclaredError::File {
            path: argument.to_owned(),
            reason: error.to_string(),
        })?;

    from_json(&text)
}

/// Whether the argument of `--gpus` names a snapshot file.
///
/// It does if the file exists, or if the argument has the form of a file name.
pub fn names_a_file(argument: &str) -> bool {
    let path = Path::new(argument);
    argument.contains('/')
        || path.extension().is_some_and(|ending| ending == "json")
        || is_file(path)
}

fn is_file(path: &Path) -> bool {
    let file = path.to_owned();
    files::wait(path, move |disk| disk.is_file(&file)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_specification_are_distinguished() {
        // The distinction does not depend on whether the file exists.
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
