//! libFuzzer's way into [`trunkline_fuzz::clocked_input`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::clocked_input(input));
