//! A client for Hugging Face Hubs that makes few requests and honors rate limits.
//!
//! A call to the model API returns the commit, the files and their lengths. Documents and headers
//! follow by `resolve`, the Hub's cacheable and generously limited way to files.
//!
//! The client follows redirects itself, so that a token never leaves the Hub's own origin and a
//! signed address never reaches a message. No redirect leads to this host itself or to a cloud's
//! metadata service (`address_policy`).

mod address_policy;
mod backoff;
mod body;
mod budget;
mod client;
mod commit_files;
mod http;
mod model_info;
mod reading;
mod refusal;
mod request;
mod request_slots;
mod resolve_cache;
mod stats;

pub(super) use client::HubClient;
pub(super) use model_info::{Revision, is_commit};
pub(super) use reading::HubReading;
pub use stats::{HubOutcome, HubStats};
