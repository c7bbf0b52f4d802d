//! Any bytes as a `model.bin` end in a model or an error, within a bounded number of windows, and
//! never in a panic.
#![no_main]

use hf_mem_core::model::ctranslate2::{Reading, Walk, Window, is_model_bin, whisper};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = is_model_bin(data);

    for reading in [Reading::EveryHeader, Reading::Predicted] {
        let mut walk = Walk::new(data.len() as u64, reading);
        let mut windows = 0;
        let mut is_valid = true;

        while let Some(Window { start, bytes }) = walk.window().filter(|_| is_valid) {
            windows += 1;
            assert!(windows < 50_000, "the walk does not end");
            let start = usize::try_from(start).unwrap_or(usize::MAX).min(data.len());
            let end = start
                .saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX))
                .min(data.len());
            is_valid = walk.feed(&data[start..end]).is_ok();
        }

        if let Ok(walked) = walk.finish() {
            let _ = whisper::architecture(&walked.model, &walked.inventory);
        }
    }
});
