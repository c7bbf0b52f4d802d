//! Weight files that hold bytes which no tensor of their header covers.
//!
//! A few such bytes are normal: padding, or what a writer appended. If they are a large part of a
//! file, the header describes another file, and its tensors are not the model's weights.

use hf_mem_core::model::weight_files::WeightFile;

/// Bytes of a file that may belong to no tensor, whatever its length.
const MAX_UNCOVERED_BYTES: u64 = 1 << 20;
/// Part of a longer file that may belong to no tensor.
const MAX_UNCOVERED_PERCENT: u64 = 1;

/// The files that contradict their headers.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// Path, bytes that no tensor covers, and length of each such file.
    gaps: Vec<(String, u64, u64)>,
}

impl Coverage {
    /// Records that no tensor covers `uncovered` bytes of `file`.
    pub(super) fn add(&mut self, file: &WeightFile, uncovered: u64) {
        let length = file.bytes.unwrap_or(uncovered);
        let is_large =
            u128::from(uncovered) * 100 > u128::from(length) * u128::from(MAX_UNCOVERED_PERCENT);
        if uncovered > MAX_UNCOVERED_BYTES && is_large {
            self.gaps.push((file.path.clone(), uncovered, length));
        }
    }

    /// Records that no tensor covers `uncovered` bytes of `file`, in a format without padding.
    pub(super) fn add_exact(&mut self, file: &WeightFile, uncovered: u64) {
        if uncovered > 0 {
            let length = file.bytes.unwrap_or(uncovered);
            self.gaps.push((file.path.clone(), uncovered, length));
        }
    }

    /// Adds what `other` recorded.
    pub(super) fn absorb(&mut self, other: Self) {
        self.gaps.extend(other.gaps);
    }

    /// Describes the contradiction for a person. Returns `None` if every header accounts for its
    /// file.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (path, uncovered, length) = self.gaps.iter().min()?;
        let others = match self.gaps.len() {
            1 => String::new(),
            count => format!(" (as in {count} files)"),
        };

        Some(format!(
            "the header of {path} contradicts its file: {uncovered} of its {length} bytes belong to no tensor{others}; \
             download the file again, or ask its publisher"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contradiction(files: &[(u64, u64)]) -> Option<String> {
        let mut coverage = Coverage::default();
        for (number, (uncovered, length)) in files.iter().enumerate() {
            let path = format!("model-{number}.safetensors");
            coverage.add(
                &WeightFile {
                    path,
                    component: String::new(),
                    bytes: Some(*length),
                },
                *uncovered,
            );
        }

        coverage.contradiction()
    }

    #[test]
    fn large_gap_is_a_contradiction() {
        const MIB: u64 = 1 << 20;

        assert_eq!(
            contradiction(&[(MIB, MIB), (MIB + 1, 101 * MIB), (0, 0)]),
            None
        );
        let first = contradiction(&[(0, 9), (2 * MIB, 3 * MIB)]).expect("a contradiction");
        assert!(
            first
                .contains("model-1.safetensors contradicts its file: 2097152 of its 3145728 bytes"),
            "{first}"
        );
        let both =
            contradiction(&[(2 * MIB, 3 * MIB), (u64::MAX, u64::MAX)]).expect("a contradiction");
        assert!(
            both.contains("model-0.safetensors") && both.contains("as in 2 files"),
            "{both}"
        );
    }
}
