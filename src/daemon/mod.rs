//! The daemon: from a socket and a [`Service`](crate::api::service::Service) to a process that an operator can trust.
//!
//! The order of a boot is log, configuration, sources, socket, READY; the order of an end is STOPPING, drain with a
//! deadline, and a line that says which way it ended.

pub mod socket;
