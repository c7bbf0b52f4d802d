//! A configuration file of any text gives a configuration or an error with file and line.
#![no_main]

use std::path::Path;

use hf_mem_probe::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Config::parse(text, Path::new("fuzz.toml"));
});
