//! libFuzzer's way into [`trunkline_fuzz::g722`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::g722(input));
