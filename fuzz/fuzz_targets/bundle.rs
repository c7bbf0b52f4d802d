//! A bundle or a cache entry of any bytes gives metadata or an error.
//!
//! Any metadata in it gives a model or an error.
#![no_main]

use hf_mem_core::model::metadata;
use hf_mem_probe::repository::{Metadata, bundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(read) = bundle::unpack(data) {
        let _ = metadata::assemble(&read);
    }

    // Random bytes never match a bundle's hash, so they are also parsed as its content.
    if let Ok(read) = serde_json::from_slice::<Metadata>(data) {
        let _ = metadata::assemble(&read);
        let packed = bundle::pack(&read).expect("parsed metadata can be packed");
        assert_eq!(
            bundle::unpack(packed.bytes.as_slice()).as_ref(),
            Ok(&read),
            "unpacking returns the packed metadata"
        );
    }
});
