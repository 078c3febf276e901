//! The user agent against scripted peers and against itself over a bad network.

mod branches;
mod carriers;
mod challenges;
mod differential;
mod digits;
mod hostile;
mod loops;
mod races;
mod reliable;
mod renegotiation;
mod requests;
mod routing;
mod sessions;
mod simulation;
mod support;
mod torture;
mod transfer;
