//! A Hub over HTTP: few requests, polite ones, and a token that goes to the Hub alone.
//!
//! One call to the model API says commit, files and lengths; documents and headers follow by
//! `resolve`, the Hub's cacheable and generously limited way to files. Redirects are followed by
//! hand, so that a token never leaves the Hub's own origin and a signed address never reaches a
//! message. Nor do they lead to this host itself, or to a cloud's metadata service (`peers`).

mod answer;
mod attempt;
mod backoff;
mod budget;
mod client;
mod info;
mod peers;
mod refusal;
mod shortcut;
mod stats;
mod throttle;

pub(super) use client::{HubClient, HubReading};
pub(super) use info::{Revision, is_commit};
pub use stats::{HubOutcome, HubStats};
