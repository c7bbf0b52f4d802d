//! The verified releases of engines, which `hf-mem-probe --version -v` prints.

use hf_mem_core::engines::releases;

use super::output;

/// Prints each engine with its verified releases, the newest last.
pub(super) fn print_engines() {
    let lines: Vec<String> = releases::verified_ranges()
        .map(|(engine, [first, last])| format!("{engine:<13} verified from {first} to {last}"))
        .collect();
    output::text(&(lines.join("\n") + "\n"));
}
