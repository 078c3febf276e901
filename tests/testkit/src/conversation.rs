//! Two answered calls talking to each other through Trunkline, and what each side heard.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::phone::Call;
use crate::rtp::{Heard, PTIME, RtpEndpoint, compare};
use crate::speech::{self, Speech};

/// Grace for the last packets to arrive before the figures are taken.
const DRAIN: Duration = Duration::from_millis(300);

/// Clock of the G.711 speech.
const CLOCK_RATE_HZ: u32 = 8_000;

/// One side of a conversation.
pub struct Party<'a> {
    /// Its call.
    pub call: &'a Call,
    /// Its ears and mouth.
    pub rtp: &'a RtpEndpoint,
}

/// What both sides heard.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Conversation {
    /// What the caller heard of the callee.
    pub caller: Heard,
    /// What the callee heard of the caller.
    pub callee: Heard,
}

impl Conversation {
    /// Whether each side heard every packet of the other, unchanged and once.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        [&self.caller, &self.callee].iter().all(|heard| {
            heard.payload_identical
                && heard.timestamps_kept
                && heard.lost == 0
                && heard.duplicates == 0
                && heard.sources == 1
        })
    }
}

/// Both sides speak `frames` frames of their recording at the same time, then fall silent.
/// Earlier records of both endpoints are forgotten first.
pub fn talk(caller: &Party<'_>, callee: &Party<'_>, frames: usize) -> Result<Conversation> {
    begin_both(caller, callee, frames)?;
    finish(caller, callee, frames)
}

/// Starts both sides of [`talk`].
pub fn begin_both(caller: &Party<'_>, callee: &Party<'_>, frames: usize) -> Result<()> {
    // Both, before either speaks: the first packet is heard within a fraction of a millisecond.
    caller.rtp.clear();
    callee.rtp.clear();
    speak(caller, speech::caller(), frames)?;
    speak(callee, speech::callee(), frames)
}

/// Starts one side of [`talk`]: `frames` frames to where its call says the far side listens. Its
/// own earlier records are forgotten.
pub fn begin(party: &Party<'_>, speech: Speech, frames: usize) -> Result<()> {
    party.rtp.clear();
    speak(party, speech, frames)
}

fn speak(party: &Party<'_>, speech: Speech, frames: usize) -> Result<()> {
    let remote = party
        .call
        .remote_media()
        .context("the far side never described its media")?;
    let payload_type = remote
        .codecs
        .iter()
        .find(|codec| codec.rtpmap.eq_ignore_ascii_case("PCMU/8000"))
        .context("the far side does not take PCMU")?
        .payload_type;
    party.rtp.speak(remote.rtp, payload_type, speech, frames);
    Ok(())
}

/// Waits for the end of what [`begin`] started on both sides and compares.
pub fn finish(caller: &Party<'_>, callee: &Party<'_>, frames: usize) -> Result<Conversation> {
    let limit = PTIME * u32::try_from(frames)? + Duration::from_secs(10);
    for party in [caller, callee] {
        ensure!(
            party.rtp.wait_spoken(limit),
            "the speech of {frames} frames was not sent within {limit:?}"
        );
        ensure!(
            party.rtp.send_error_count() == 0,
            "the kernel refused {} RTP packets",
            party.rtp.send_error_count()
        );
    }
    std::thread::sleep(DRAIN);
    Ok(Conversation {
        caller: compare(&callee.rtp.sent(), &caller.rtp.received(), CLOCK_RATE_HZ),
        callee: compare(&caller.rtp.sent(), &callee.rtp.received(), CLOCK_RATE_HZ),
    })
}
