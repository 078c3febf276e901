//! A call between a carrier and a member's phone, from INVITE to BYE, with real media.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use trunkline_testkit::conversation::{Conversation, Party, talk};
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Call, Phone};
use trunkline_testkit::rtp::{MediaHub, RtpEndpoint};
use trunkline_testkit::sdp::AudioDescription;

/// Longest wait for one step of a call.
pub const LIMIT: Duration = Duration::from_secs(5);

/// An answered call, with both ends in hand.
pub struct Answered {
    /// The caller's half.
    pub outgoing: Call,
    /// The callee's half.
    pub incoming: Call,
    /// The caller's media.
    pub caller_rtp: RtpEndpoint,
    /// The callee's media.
    pub callee_rtp: RtpEndpoint,
}

/// `caller` dials `number`; `callee` rings and answers. Each side's media is on the address its
/// signalling uses.
pub fn place(hub: &MediaHub, caller: &Phone, number: &str, callee: &Phone) -> Result<Answered> {
    let caller_rtp = hub.endpoint(caller.local_addr().ip())?;
    let callee_rtp = hub.endpoint(callee.local_addr().ip())?;
    let outgoing = caller.call(number, AudioDescription::pcmu(caller_rtp.local_addr()))?;
    let incoming = callee
        .wait_call(LIMIT)
        .with_context(|| format!("the caller's side: {}", caller.trace()))?;
    incoming.ring()?;
    outgoing.wait_provisional(180, LIMIT)?;
    incoming.answer(&AudioDescription::pcmu(callee_rtp.local_addr()))?;
    outgoing.wait_answered(LIMIT)?;
    incoming.wait_established(LIMIT)?;
    Ok(Answered {
        outgoing,
        incoming,
        caller_rtp,
        callee_rtp,
    })
}

impl Answered {
    /// The caller with its media.
    #[must_use]
    pub fn caller(&self) -> Party<'_> {
        Party {
            call: &self.outgoing,
            rtp: &self.caller_rtp,
        }
    }

    /// The callee with its media.
    #[must_use]
    pub fn callee(&self) -> Party<'_> {
        Party {
            call: &self.incoming,
            rtp: &self.callee_rtp,
        }
    }

    /// Both speak `frames` frames of 20 ms.
    pub fn talk(&self, frames: usize) -> Result<Conversation> {
        talk(&self.caller(), &self.callee(), frames)
    }

    /// The caller hangs up and the callee hears of it.
    pub fn hang_up(&self) -> Result<()> {
        self.outgoing.hang_up(LIMIT)?;
        self.incoming.wait_ended(LIMIT)?;
        Ok(())
    }
}

/// A whole call to member 0 with phones that registered just now and half a second of speech:
/// proof that the daemons live.
pub fn prove_service(daemons: &mut Daemons) -> Result<()> {
    daemons.check_alive()?;
    let hub = MediaHub::start()?;
    let (carrier, phone) = (daemons.carrier()?, daemons.member_phone(0)?);
    let call = place(&hub, &carrier, &daemons.member(0)?.did, &phone)?;
    let heard = call.talk(25)?;
    ensure!(heard.is_perfect(), "{heard:?}");
    call.hang_up()?;
    daemons.check_alive()
}
