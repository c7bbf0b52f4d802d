//! Placement: which devices, which split, how many bytes on each, and the limits of the result.
//!
//! - [`availability`] computes the available memory of each device.
//! - [`plan`] searches every legal placement and recommends one.
//! - [`frontier`] returns the limits of a placement.
//! - [`suggestions`] computes what to change if the model does not fit.
//! - [`fit_together`] places several models at once.
//!
//! `order.rs` defines the order of preference. Everything here is values in, values out: no clock,
//! no driver, no file.

mod alternatives;
mod ask;
mod availability;
mod candidate;
mod claim;
mod device_names;
mod found;
mod frontier;
mod groups;
mod layers;
mod needs;
mod offload;
mod order;
mod placed;
mod plan;
mod pool;
mod search;
mod search_state;
mod search_summary;
mod stage_division;
mod strategy;
mod suggestions;
mod together;
mod wires;
mod workload_limits;

pub use alternatives::AlternativePlacement;
pub use ask::{Ask, Constraints, Packing, PlacementError, Policy};
pub use availability::{Availability, Available, availability};
pub use device_names::is_named;
pub use frontier::frontier;
pub use placed::{HostShare, Placement, RankShare};
pub use plan::{PassedOver, Plan, ResolvedWorkload, plan};
pub use strategy::Strategy;
pub use suggestions::{Advice, MemoryHolder, suggestions, wait};
pub use together::{BatchFit, fit_together};
