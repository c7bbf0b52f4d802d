//! The pure path of hf-mem-probe: values in, values out.
//!
//! 1. [`report`] defines the question and the answer.
//! 2. [`model`] describes the model of a repository, from headers alone.
//! 3. [`engines`] compute the need under an inference engine: bytes by component for any split.
//! 4. [`device`] describes devices, read or declared.
//! 5. [`placement`] finds how the model fits on the devices.
//! 6. [`evaluate`] is that path in one function.
//!
//! The crate does no I/O, reads no clock and no environment, and has no runtime.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod bytes;
pub mod device;
pub mod engines;
pub mod evaluate;
pub mod model;
pub mod placement;
pub mod report;
pub mod rfc3339;
pub mod strict_json;
pub mod wire_word;

/// The example of the README, compiled and run with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
