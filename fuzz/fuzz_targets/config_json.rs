//! A config.json of any JSON gives an architecture or an error with a reason, and never a panic.
#![no_main]

use hf_mem_core::model::{Inventory, config};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = serde_json::from_slice(data) {
        let _ = config::architecture(&value, None, &Inventory::default());
        let _ = config::architecture(
            &serde_json::Value::Object(serde_json::Map::new()),
            Some(&value),
            &Inventory::default(),
        );
    }
});
