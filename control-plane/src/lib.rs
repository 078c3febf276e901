//! The control plane: SIP signalling, routing, calls, store and operator surface.

#![forbid(unsafe_code)]
