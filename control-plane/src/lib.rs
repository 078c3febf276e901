//! The control plane: SIP signalling, routing, calls, store and operator surface.

#![forbid(unsafe_code)]

pub mod call;
pub mod cdr;
pub mod cli;
pub mod config;
pub mod credential;
pub mod edge;
pub mod epoch;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod operator;
pub mod party;
pub mod pin;
pub mod resolver;
pub mod routing;
pub mod site;
pub mod store;
pub mod switch;
pub mod tones;
pub mod trace;
pub mod transport;
pub mod trunk;
