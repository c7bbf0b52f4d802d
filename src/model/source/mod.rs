//! Where a model's metadata comes from, and which of its files are *the* weights.

pub mod error;
pub mod reference;
pub mod token;
pub mod weights;

pub use error::SourceError;
pub use reference::{ModelReference, Place};
pub use token::{Auth, Token};
