//! A look-alike of the NVIDIA management library (`libnvidia-ml.so.1`), for tests of hf-mem-probe.
//!
//! The shared library that this crate builds exports NVML's C ABI, and the real nvml-wrapper loads
//! it like the real one. What it answers stands in a scenario, a JSON file called `scenario.json`
//! **beside the library file** (or wherever `HF_MEM_PROBE_NVML_SCENARIO` points). The file is
//! looked at on every call, so a test changes the machine by replacing it. Each test works on a
//! copy of the library of its own, so that tests in one process share nothing:
//!
//! ```no_run
//! use simulated_nvml::{profiles, Scenario, SimulatedDriver};
//! let directory = std::path::Path::new("/tmp/test");
//! let driver = SimulatedDriver::install(directory, &Scenario::of([profiles::h100_80()])).unwrap();
//! // ... let the program load `driver.library()`, then break something:
//! driver.set(&Scenario::of([profiles::h100_80().lost()])).unwrap();
//! ```

mod abi;
mod calls;
mod driver;
mod events;
mod host;
mod machine;
mod mig_calls;
pub mod profiles;
mod scenario;
mod topology_calls;

pub use driver::{SimulatedDriver, library_path};
pub use host::FakeHost;
pub use machine::Statistics;
pub use scenario::{
    Event, Fabric, Fault, Gpu, HolderKind, Memory, Mig, MigInstance, NvLink, Process, RemappedRows,
    Scenario, codes,
};
