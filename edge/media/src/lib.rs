//! Media without I/O: what a relay session does with the packets of its two legs.
//!
//! Nothing in this crate opens a socket, reads a clock or allocates for a packet. The worker hands
//! in a datagram, where and when it arrived; the answer is a [`Verdict`], and the datagram has been
//! edited in place.
//!
//! | module | what it holds | RFC |
//! |---|---|---|
//! | [`session`] | [`MediaSession`]: two legs and the way between them | |
//! | [`demux`] | which protocol a datagram belongs to | 7983, 5761 |
//! | [`rtp`] | reading and editing the RTP header | 3550 §5 |
//! | [`quality`] | statistics, MOS, reports of our own, timeouts | 3550 §6, A; G.107 |
//! | [`rtcp`] | translating RTCP compounds in place | 3550 §6, §7.2 |
//! | [`source_gate`] | whose packets a leg accepts | 7362 |
//! | [`rewrite`] | the one continuous stream that a leg sends | 3550 §5.1 |
//! | [`srtp`] | protecting and opening packets | 3711, 6188, 7714 |
//! | [`dtmf`] | digits as telephone events and as tones | 4733; ITU-T Q.23, Q.24 |
//! | [`tone`] | call progress tones | ITU-T E.180 |
//! | [`codec`] | decoding, encoding and both at once | 3551 §4.5, 7587 |
//! | [`resample`] | between 8, 16 and 48 kHz | |
//! | [`prompt`] | files to be played, and their packets | |
//! | [`recording`] | tapped packets to the bytes of a file | |
//! | [`jitter_buffer`] | packets in, sound in time out | 3550 A.8 |
//! | [`clocked_input`] | a leg's sound by the clock: decoded, concealed | 3389 |
//! | [`conference`] | every member hears all others | 7667 §3.4 |
//! | [`activity`] | who speaks, and the beeps of answering machines | |
//! | [`packet_buf`] | a packet with room to grow | |
//! | [`payload_table`] | payload type numbers from leg to leg | 3264 §6 |

#![forbid(unsafe_code)]

pub mod activity;
pub mod audio;
pub mod clocked_input;
pub mod codec;
pub mod conference;
pub mod demux;
pub mod dtmf;
pub mod jitter_buffer;
mod narrowband;
mod outbox;
pub mod packet_buf;
pub mod payload_table;
pub mod prompt;
pub mod quality;
pub mod recording;
pub mod resample;
pub mod rewrite;
pub mod rtcp;
pub mod rtp;
pub mod session;
pub mod source_gate;
pub mod srtp;
pub mod tone;

pub use audio::SampleRate;
pub use demux::MediaKind;
pub use packet_buf::PacketBuf;
pub use session::{
    MediaSession, RxMeta, SessionCommand, SessionEvent, SocketKind, Transmit, Verdict,
};
