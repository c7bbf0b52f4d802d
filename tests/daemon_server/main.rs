//! Tests of the server on a socket in a temporary folder, over a test double of the service.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers")]

mod activation;
mod bad_input;
mod cached;
mod contract;
mod double;
mod lifecycle;
mod limits;
mod routes;
mod users;
mod watching;
