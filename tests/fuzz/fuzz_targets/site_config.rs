//! libFuzzer's way into [`trunkline_fuzz::site_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::site_config(input));
