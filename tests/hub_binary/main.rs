//! The real binary with a Hub: bundles, failures, settings, privacy, TLS and proxies. Each test
//! checks the command line, the output, the exit code and the Hub's requests.

#[path = "../support/fake_hub/mod.rs"]
mod fake_hub;
#[path = "../support/gguf_writer.rs"]
mod gguf_writer;

mod answer_cache;
mod bundles;
mod damaged_bundles;
mod faults;
mod harness;
mod privacy;
mod settings_sources;
mod special_files;
mod tls_and_proxy;
