//! A simulation of the NVIDIA management library (`libnvidia-ml.so.1`), for tests of hf-mem-probe.
//!
//! The shared library that this crate builds exports NVML's C ABI, so the real nvml-wrapper can
//! load it. A scenario defines its answers: the JSON file `scenario.json` **in the library's
//! folder**, or the file in `HF_MEM_PROBE_NVML_SCENARIO`. Each call checks the file, so you change
//! the machine by replacing it. Each test has its own copy of the library, so tests in one process
//! share nothing:
//!
//! ```no_run
//! use simulated_nvml::{profiles, Scenario, SimulatedDriver};
//! let directory = std::path::Path::new("/tmp/test");
//! let driver = SimulatedDriver::install(directory, &Scenario::of([profiles::h100_80()])).unwrap();
//! // ... let the program load `driver.library()`, then break a device:
//! driver.set(&Scenario::of([profiles::h100_80().lost()])).unwrap();
//! ```

mod abi;
mod arguments;
mod device_calls;
mod driver;
mod events;
mod health_calls;
mod host;
mod library_calls;
mod machine;
mod memory_calls;
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
