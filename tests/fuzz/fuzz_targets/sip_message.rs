//! libFuzzer's way into [`trunkline_fuzz::sip_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trunkline_fuzz::sip_message(input));
