//! Parts that system tests, the demo and benches share.
//!
//! Everything here is the *other side* of Trunkline: it speaks to the daemons over sockets and
//! files alone and uses none of their code, so that a mistake made in one place is not agreed to
//! in the other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`phone`] | a SIP user agent: registers, calls, answers, over UDP or TCP |
//! | [`rtp`] | RTP endpoints that send paced speech and record every packet heard |
//! | [`srtp`] | SRTP as a phone does it |
//! | [`sdp`] | the little SDP a phone with one audio stream needs |
//! | [`speech`] | the recorded speech of `tests/vectors/speech` |
//! | [`conversation`] | two answered calls talking, and what each side heard |
//! | [`daemons`] | both real binaries under test, with a configuration and ports of their own |
//! | [`site`] | configuration and site files for them |
//! | [`sipp`] | SIPp as a child process, graded by exit code |
//! | [`ports`] | blocks of loopback ports that no other test uses |
//! | [`certificates`] | certificates of a test's own authority |
//! | [`dns`] | a DNS server that knows what a test tells it |
//! | [`http`] | GET, and the metrics text format |
#![forbid(unsafe_code)]

pub mod certificates;
pub mod conversation;
pub mod daemons;
pub mod dns;
pub mod http;
pub mod phone;
pub mod ports;
pub mod process;
pub mod rtp;
pub mod sdp;
pub mod sipp;
pub mod site;
pub mod speech;
pub mod srtp;
