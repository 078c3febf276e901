//! Load generation and measurements.
//!
//! | module | what it holds |
//! |---|---|
//! | [`report`] | a measurement with machine, commit and method beside it, as JSON and Markdown |
//! | [`allocation_counter`] | an allocator that counts |
//! | `rig` | what both of the next share: wire, relay, generator, far end |
//! | [`relay`] | RTP through one core of the edge beside rtpengine: packets per second, overload, latency, memory |
//! | [`media`] | sessions that transcode, play, record, listen and confer: CPU per frame, calls through the edge beside rtpengine |
//! | [`setup`] | calls through both daemons with SIPp: INVITE in → INVITE out on the wire |
//!
//! The rewrite path alone is measured by `benches/rewrite.rs`.
#![deny(unsafe_code)]

pub mod allocation_counter;
pub mod media;
pub mod quantiles;
pub mod relay;
pub mod report;
mod rig;
pub mod setup;
