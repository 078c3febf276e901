//! Trunks as pure deciders: where calls to carriers go, when, in what form, and who may make them.
//!
//! ```text
//!  a member dials ─▶ policy ─▶ routes ─▶ destinations ─▶ health, pacing, channels ─▶ INVITE
//!                     │                     ▲                                          │
//!                     ▼                     └──────────── failover ◀── refused ────────┘
//!                   refused
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | [`policy`] | whether a member may call a number, as whom, for how long |
//! | [`number`] | how a trunk writes numbers |
//! | [`destination`] | in which order hosts are tried |
//! | [`pacing`] | when a call may go out |
//! | [`health`] | whether a host lives |
//! | [`registration`] | when to register, and when again |
//! | [`failover`] | what a refusal means |
//! | [`identity`] | how a trunk is told who calls |
//! | [`settings`], [`preset`] | what the site file says, and what a carrier's name stands for |
//!
//! The shell part, which sends and receives, is in `switch/trunks.rs`.

pub mod destination;
pub mod failover;
pub mod health;
pub mod identity;
pub mod number;
pub mod pacing;
pub mod policy;
pub mod preset;
pub mod registration;
pub mod settings;

pub use destination::Destination;
pub use policy::{MemberOutbound, TenantOutbound};
pub use preset::Preset;
pub use settings::TrunkSettings;
