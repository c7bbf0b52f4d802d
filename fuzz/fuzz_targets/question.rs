//! A request body of any bytes gives a question or an error.
#![no_main]

use hf_mem_core::report::Question;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<Question>(data);
});
