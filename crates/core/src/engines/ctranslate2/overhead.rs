//! Memory of the process that its tensors do not explain, by the constants of the profile.

use super::profile_error;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::profile::Profile;
use crate::engines::{Basis, Component, ComponentName, EngineError, Interval};

/// The overhead of one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overhead<'a> {
    pub(super) profile: &'a Profile,
}

impl Overhead<'_> {
    fn mib(self, constant: &str) -> Result<Bytes, EngineError> {
        self.profile
            .mib(constant)
            .map_err(|error| profile_error(&error))
    }

    fn count(self, constant: &str) -> Result<u64, EngineError> {
        self.profile
            .count(constant)
            .map_err(|error| profile_error(&error))
    }

    /// The workspace of cuBLAS for one worker.
    pub(super) fn workspace(self, device: &DeviceFacts) -> Result<Interval, EngineError> {
        let is_older = device
            .capability()
            .is_some_and(|capability| capability < 90);
        let (likely, high) = if is_older {
            ("workspace_likely_mib", "workspace_high_mib")
        } else {
            ("workspace_hopper_likely_mib", "workspace_hopper_high_mib")
        };

        Ok(Interval::new(
            Bytes::ZERO,
            self.mib(likely)?,
            self.mib(high)?,
        ))
    }

    /// The CUDA context with the kernels that were loaded.
    pub(super) fn context(self, device: &DeviceFacts) -> Result<Component, EngineError> {
        let (bytes, detail) = match device.multiprocessors {
            Some(count) => {
                let base = self.mib("context_mib_per_multiprocessor")? * u64::from(count);
                let likely = base + self.mib("kernels_likely_mib")?;
                let high = base + self.mib("kernels_high_mib")?;
                let detail = format!("3 MiB x {count} multiprocessors and the libraries' kernels");
                (Interval::new(base, likely, high), detail)
            }
            None => (
                Interval::new(
                    self.mib("context_unknown_low_mib")?,
                    self.mib("context_unknown_likely_mib")?,
                    self.mib("context_unknown_high_mib")?,
                ),
                "number of multiprocessors unknown".to_owned(),
            ),
        };

        Ok(Component::between(
            ComponentName::Context,
            bytes,
            Basis::Assumed,
            detail,
        ))
    }

    /// Bytes of CUDA's memory pool beyond the live blocks of `workers`.
    ///
    /// A cache that grows by a token frees blocks that are too small for the next step, so as much
    /// as it holds may be lost.
    pub(super) fn pool(
        self,
        workers: Interval,
        text_cache: Bytes,
    ) -> Result<Interval, EngineError> {
        let likely = self.count("fragmentation_likely_percent")?;
        let high = self.count("fragmentation_high_percent")?;

        Ok(Interval::new(
            Bytes::ZERO,
            workers.likely.scale(likely, 100),
            workers.high.scale(high, 100) + text_cache + self.mib("pool_high_mib")?,
        ))
    }
}
