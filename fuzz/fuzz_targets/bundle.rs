//! A bundle, or an entry of the cache, of any bytes: metadata or an error; and whatever metadata it
//! holds is a model or a refusal.
#![no_main]

use hf_mem_probe::repository::{Metadata, bundle};
use hf_mem_core::model::metadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(read) = bundle::unpack(data) {
        let _ = metadata::assemble(&read);
    }
    // The hash of a bundle hides from chance what lies behind it: the same bytes as its content.
    if let Ok(read) = serde_json::from_slice::<Metadata>(data) {
        let _ = metadata::assemble(&read);
        let packed = bundle::pack(&read).expect("what was read can be written");
        assert_eq!(bundle::unpack(packed.bytes.as_slice()).as_ref(), Ok(&read), "what is packed is found again");
    }
});
