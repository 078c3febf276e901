//! libFuzzer's way into [`trunkline_fuzz::sdp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::sdp(input));
