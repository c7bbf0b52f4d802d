//! A prefix of any bytes gives a GGUF header, a request for more bytes or an error, and never a
//! panic.
#![no_main]

use hf_mem_core::model::gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(gguf::Progress::Complete(header)) = gguf::parse(data, Some(data.len() as u64)) {
        let _ = gguf::architecture(&header);
    }
});
