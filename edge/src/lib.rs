//! The media edge: workers that relay RTP between the legs of calls, as control tells them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`edge`] | the main thread: start, handshake, logs, stop |
//! | `worker` | a packet thread and its duty cycle; `worker::command` carries out commands |
//! | `uring` | the io_uring tier: the only unsafe code here |
//! | `session_table`, `timer_wheel`, `closing` | what a worker keeps, sized at start |
//! | `shared` | the few words that the threads share |
//! | `publish` | the counters page |
//! | [`config`], [`status`] | the operator's side |
//!
//! What is true of a packet is `trunkline-media`'s business; this crate moves it.

#![deny(unsafe_code)]

mod closing;
pub mod config;
pub mod edge;
mod panic_message;
mod publish;
mod session_table;
mod shared;
pub mod status;
mod timer_wheel;
#[allow(unsafe_code)]
mod uring;
mod worker;

pub use edge::Edge;
pub use uring::UringError;
