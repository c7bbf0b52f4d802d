//! The server on a socket in a temporary folder, over a program of the tests' own: what each kind of caller gets.

#![expect(clippy::unwrap_used, reason = "the helpers of tests")]

mod bad_input;
mod double;
mod ending;
mod limits;
mod routes;
mod watching;
