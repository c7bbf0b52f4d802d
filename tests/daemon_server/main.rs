//! The server on a socket in a temporary folder, over a program of the tests' own: what each kind
//! of caller gets.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of tests"
)]

mod activation;
mod bad_input;
mod contract;
mod double;
mod ending;
mod known;
mod limits;
mod routes;
mod users;
mod watching;
