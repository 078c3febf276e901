//! The control plane's side of the media edge.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ports`] | which media ports of a worker are free |
//! | [`proxy`] | the wanted state of every session, and the commands that bring it about (pure) |
//! | [`link`] | the connection to the edge process: handshake, rings, wake-ups |

pub mod link;
pub mod ports;
pub mod proxy;

pub use ports::{PortPool, PortPools};
pub use proxy::{
    EdgeProxy, FunctionError, LocalPair, MediaEvent, MediaRefused, Piece, PlayList, PromptFile,
    RecordingOf, RecordingPlan, Ticket, WorkerInfo, single_digit,
};
