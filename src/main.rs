//! `hf-mem-probe`: parse, dispatch, exit code.

fn main() {}
