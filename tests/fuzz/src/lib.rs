//! What is fuzzed: one function per parser or state machine that meets bytes from outside. Each
//! takes any input and returns, or panics because something that must hold does not.
//!
//! | target | what it feeds |
//! |---|---|
//! | [`rtp`] | the RTP header reader and the in-place edit |
//! | [`rtcp`] | validation and translation of RTCP compounds |
//! | [`srtp`] | SRTP and SRTCP packets into a session with keys |
//! | [`session()`] | packets, reconfigurations and time into a media session |
//! | [`api_wire`] | commands and events in their byte form |
//! | [`ring`] | the words of a shared region behind a worker's back |
//! | [`sdp`] | offers and answers |
//! | [`sip_message`] | datagrams into a SIP agent |
//! | [`site_config`] | configuration and site files |
//! | [`g722`] | G.722 payloads |
//! | [`opus`] | streams of Opus payloads, with losses |
//! | [`transcode`] | packets into a transcoder between any two formats |
//! | [`clocked_input`] | packets and time into a jitter buffer and its decoders |
//! | [`telephone_event`] | payloads of telephone events |
//! | [`heard_audio`] | audio into the detectors of digits, beeps and speech |
//! | [`prompt`] | files to be played |
//! | [`recording`] | packets and time into a recording |
//!
//! The same functions run in two ways: under libFuzzer (`cargo xtask fuzz`), and in the plain test
//! `tests/tests/fuzz_replay.rs`, which plays `seeds/`, `regressions/` and a fixed number of
//! mutations of them.
#![forbid(unsafe_code)]

mod clocked;
mod codecs;
mod config;
mod digits;
mod files;
mod media;
mod packets;
mod session;
mod shared_region;
mod signalling;
mod wire;

pub use clocked::clocked_input;
pub use codecs::{g722, opus, transcode};
pub use config::site_config;
pub use digits::{heard_audio, telephone_event};
pub use files::{prompt, recording};
pub use media::{rtcp, rtp};
pub use session::{session, srtp};
pub use shared_region::ring;
pub use signalling::{sdp, sip_message};
pub use wire::api_wire;

/// A name and the function behind it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its directories under `seeds/` and `regressions/`.
    pub name: &'static str,
    /// Takes any input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 17] = [
    target("rtp", rtp),
    target("rtcp", rtcp),
    target("srtp", srtp),
    target("session", session),
    target("api_wire", api_wire),
    target("ring", ring),
    target("sdp", sdp),
    target("sip_message", sip_message),
    target("site_config", site_config),
    target("g722", g722),
    target("opus", opus),
    target("transcode", transcode),
    target("clocked_input", clocked_input),
    target("telephone_event", telephone_event),
    target("heard_audio", heard_audio),
    target("prompt", prompt),
    target("recording", recording),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}
