//! Media functions through both daemons: what callers hear when the edge does more than relay, and
//! what operators do and see.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

mod audio;
mod codecs;
mod conferences;
mod digits;
mod events;
mod forking;
mod playing;
mod recording;
mod replay;
mod support;
mod transcoding;
