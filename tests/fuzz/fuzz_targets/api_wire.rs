//! libFuzzer's way into [`trunkline_fuzz::api_wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::api_wire(input));
