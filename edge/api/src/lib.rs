//! What control and edge may say to each other.
//!
//! This crate is the contract between the planes and nothing else: it performs no I/O, holds no
//! `unsafe`, and depends on neither plane. How the bytes travel is `trunkline-ring`'s business;
//! what the edge does about them is `trunkline-media`'s and `trunkline-edge`'s.
//!
//! | module | what it holds |
//! |---|---|
//! | [`vocabulary`] | ids and units: [`SessionId`], [`Ssrc`], [`MonoTime`], … |
//! | [`command`] | control → worker: [`Command`] |
//! | [`audio`] | codecs and formats of a leg that is not only relayed: [`LegAudio`] |
//! | [`function`] | play, record, digits, conference, fork |
//! | [`crypto`] | SRTP suites and keys: [`LegCrypto`] |
//! | [`event`] | worker → control: [`Event`] |
//! | [`counters`] | what a worker counts, by index: [`Counter`], [`DropReason`], [`Histogram`] |
//! | [`layout`] | where things stand in a worker's shared region |
//! | [`wire`] | the byte form of commands and events |
//! | [`handshake`] | the messages on the edge's Unix socket |
//! | [`config`] | the sections of `trunkline.toml` that both daemons read |
//!
//! Compatibility: see [`API_VERSION`] and `docs/adr/0003-ring-abi.md`.

#![forbid(unsafe_code)]

pub mod audio;
pub mod command;
pub mod config;
pub mod counters;
pub mod crypto;
pub mod event;
pub mod function;
pub mod handshake;
pub mod layout;
mod source_networks;
pub mod vocabulary;
pub mod wire;

pub use audio::{
    AudioCodec, AudioFormat, AudioFormats, LegAudio, OpusOptions, PacketTime, TelephoneEventFormat,
};
pub use command::{
    Command, LegConfig, LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes,
    RtcpMode, SourcePolicy,
};
pub use counters::{Counter, DropReason, Histogram, HistogramCell};
pub use crypto::{LegCrypto, SrtpKey, SrtpSuite};
pub use event::{
    CloseCause, Event, LegReport, MediaTimeoutKind, PlaybackEnd, RecordingEnd, RecordingOutcome,
    Refusal, SessionReport,
};
pub use function::{
    ConferenceId, ConferenceSettings, Digit, DigitMethod, DigitSource, DigitString, DigitsId,
    DigitsToSend, FilePath, LegFunctions, LiveLevel, MediaFork, Membership, PlaySource,
    PlaySources, Playback, PlaybackId, PlaybackMode, ProgressSignal, PromptId, RawAudio, Recording,
    RecordingFormat, RecordingId, RecordingTracks, Tone, ToneSegment,
};
pub use source_networks::{SourceNetwork, SourceNetworks};
pub use vocabulary::{
    ApiVersion, ClockRateHz, Correlation, Epoch, IoTier, LegIndex, MonoTime, PayloadType,
    PortRange, SessionId, Ssrc, WorkerIndex,
};

/// Version of everything in this crate that crosses the process boundary.
///
/// A minor difference is compatible: bodies and layouts only grow at the end, a reader ignores
/// what it does not know and takes a default for what is missing. A major difference is refused
/// at the handshake.
pub const API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 3 };
