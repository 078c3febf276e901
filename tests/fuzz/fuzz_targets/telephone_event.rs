//! libFuzzer's way into [`trunkline_fuzz::telephone_event`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::telephone_event(input));
