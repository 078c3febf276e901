//! The user agent against scripted peers and against itself over a bad network.

mod challenges;
mod digits;
mod hostile;
mod races;
mod reliable;
mod renegotiation;
mod requests;
mod routing;
mod sessions;
mod simulation;
mod support;
mod transfer;
