//! System tests over real sockets and real processes.
//!
//! The tests themselves are in `tests/tests/`; here is what several of them share.
#![forbid(unsafe_code)]

pub mod call;
pub mod sipp_case;
