//! libFuzzer's way into [`trunkline_fuzz::transcode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::transcode(input));
