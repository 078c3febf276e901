//! The media edge: workers that relay RTP between the legs of calls, as control tells them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`edge`] | the main thread: start, handshake, logs, stop |
//! | `worker` | a packet thread and its duty cycle; `worker::command` carries out commands |
//! | `tier` | how a worker does I/O: the face of the two that follow |
//! | `uring` | the io_uring tier: the only unsafe code here |
//! | `epoll` | the epoll tier |
//! | `session_table`, `timer_wheel`, `closing` | what a worker keeps, sized at start |
//! | `shared` | the few words that the threads share |
//! | [`prompts`] | the helper thread that reads and encodes files to be played |
//! | [`recording`] | the recorder thread |
//! | `publish` | the counters page |
//! | [`config`], [`status`], [`doctor`] | the operator's side |
//!
//! What is true of a packet is `trunkline-media`'s business; this crate moves it.

#![deny(unsafe_code)]

mod closing;
pub mod config;
pub mod doctor;
#[cfg(test)]
mod each_tier;
pub mod edge;
mod epoll;
mod panic_message;
pub mod prompts;
mod publish;
pub mod recording;
mod session_table;
mod shared;
pub mod status;
mod tier;
mod timer_wheel;
#[allow(unsafe_code)]
mod uring;
mod worker;

pub use edge::Edge;
pub use tier::TierError;
pub use uring::UringError;
