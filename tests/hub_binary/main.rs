//! The real binary before a Hub: bundles, failures, places, privacy, TLS and proxies. What is
//! typed, what comes out, the exit code, and what the Hub saw of it.

#[path = "../support/fake_hub/mod.rs"]
mod fake_hub;
#[path = "../support/gguf_writer.rs"]
mod gguf_writer;

mod again;
mod asking;
mod bundles;
mod damaged_bundles;
mod faults;
mod places;
mod privacy;
mod secure;
mod special_files;
