//! NVIDIA's devices through NVML.
//!
//! [`NvmlReader`] holds the one `Nvml` of a process and turns it into a [`Snapshot`](super::Snapshot), again and again.
//! Its rules: everything is keyed by UUID and looked up anew on each pass; one bad GPU never voids the others; an error
//! is never read as zero; what cannot be told stays `None`.
//!
//! Knowingly left out: BAR1 (an aperture, not capacity), retired pages and *pending* row remaps (they change nothing
//! for new work), vGPU (its total is already the profile's), HMM addressing (adds no memory), memory of Grace's NUMA
//! mode that page cache occupies (counted as used, so that the answer errs towards refusing), the cgroup limit of whatever
//! service will use unified memory (it is not known here).

mod device;
mod events;
mod health;
mod library;
mod memory;
mod mig;
mod processes;
mod raw;
mod reader;
mod topology;

pub use events::{XidEvent, watch_xids};
pub use library::Fingerprint;
pub use reader::{Margins, NvmlOptions, NvmlReader, all_asleep};
