//! A safetensors header of any bytes gives an inventory or an error, and never a panic.
//!
//! Its memory stays in proportion to its length.
#![no_main]

use hf_mem_core::model::safetensors;
use hf_mem_core::model::tensors::InventoryBuilder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = safetensors::header_length(data, Some(data.len() as u64));
    if let Ok(header) = safetensors::parse(data, None) {
        let mut inventory = InventoryBuilder::default();
        header.add_to("", &mut inventory);
        let inventory = inventory.finish();
        let _ = (inventory.bytes(), inventory.elements(), inventory.tensors());
    }
});
