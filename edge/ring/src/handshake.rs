//! The edge's Unix socket: regions out, liveness both ways.
//!
//! The messages are in [`trunkline_edge_api::handshake`]. The edge runs an [`EdgeListener`] on
//! a thread of its own, not a worker's; control makes one [`ControlConnection`], `status` one
//! [`Observer`].
//!
//! The connection stays open and carries nothing more. When a process ends, however it ends, the
//! kernel closes its sockets: control learns of the edge's death from its connection, the edge of
//! control's from [`ListenerEvent::ControlLeft`], and then the next control is let in.

mod bind;
mod client;
mod listener;
mod socket;

pub use bind::BindError;
pub use client::{ConnectError, ControlConnection, Observer};
pub use listener::{EdgeListener, ListenerEvent};
