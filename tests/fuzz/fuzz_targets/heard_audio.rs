//! libFuzzer's way into [`trunkline_fuzz::heard_audio`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::heard_audio(input));
