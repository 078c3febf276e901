//! Live calls: which SIP legs and media session each has, and what its machine wants done.

use std::net::IpAddr;

use sipx_sip::{Header, HeaderName};
use trunkline_edge_api::{
    ConferenceId, DigitMethod, LegFunctions, LegIndex, LegReport, Membership, MonoTime,
    PlaybackMode, SessionId, Ssrc,
};
use trunkline_sip::agent::{Agent, InviteRequest, LegError, SipLegId};

use super::locating::FarSide;
use super::{CallView, RETRY_AFTER_SECS, Switch};
use crate::call::{ForkId, Input, Machine, Output, Sound, Withdrawal};
use crate::cdr::CallRecord;
use crate::edge::{
    FunctionError, Piece, PlayList, PromptFile, RecordingOf, RecordingPlan, single_digit,
};
use crate::logging::call_span;
use crate::party::Dtmf;
use crate::pin::PinCheck;

/// Names a live call inside the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub(super) u64);

/// What a SIP leg is to its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// One of its sides.
    Leg(LegIndex),
    /// Somebody who is being rung.
    Fork(ForkId),
}

/// The conference that a call is for.
#[derive(Debug)]
pub(super) struct ConferenceSeat {
    pub(super) id: ConferenceId,
    /// Whether others hear that somebody comes or goes.
    pub(super) announces: bool,
    /// What the first member has recorded.
    pub(super) recording: Option<RecordingPlan>,
    /// Whether it is not heard until an operator says so.
    pub(super) joins_muted: bool,
    /// When it became part of the conference.
    pub(super) joined_at: Option<MonoTime>,
}

/// What is switched on of a leg: what the call needs, and what an operator asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Switches {
    pub(super) by_call: LegFunctions,
    pub(super) by_operator: LegFunctions,
}

impl Switches {
    /// Who wants a thing has it, whatever the other says.
    pub(super) fn together(self) -> LegFunctions {
        let (call, operator) = (self.by_call, self.by_operator);
        LegFunctions {
            muted: call.muted || operator.muted,
            deaf: call.deaf || operator.deaf,
            detects_tones: call.detects_tones || operator.detects_tones,
            hides_digits: call.hides_digits || operator.hides_digits,
            reports_activity: call.reports_activity || operator.reports_activity,
            detects_beep: call.detects_beep || operator.detects_beep,
            detects_progress: call.detects_progress || operator.detects_progress,
        }
    }
}

/// A live call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) call: Machine,
    pub(super) started_at: MonoTime,
    pub(super) legs: [Option<SipLegId>; 2],
    pub(super) session: Option<SessionId>,
    /// Who is being rung.
    pub(super) forks: Vec<(ForkId, SipLegId)>,
    /// Who else may be; `None` for a conference.
    pub(super) far_side: Option<FarSide>,
    pub(super) seat: Option<ConferenceSeat>,
    pub(super) hold_music: Option<PromptFile>,
    pub(super) ringback: Piece,
    /// What is recorded once the call is answered.
    pub(super) recording: Option<RecordingPlan>,
    /// What is switched on of each side, by [`LegIndex`].
    pub(super) switches: [Switches; 2],
    /// Digits that each side has pressed.
    pub(super) digit_counts: [u64; 2],
    pub(super) media_ips: [IpAddr; 2],
    pub(super) deadline: Option<MonoTime>,
}

impl Entry {
    /// Whoever was being rung no longer is, or has answered.
    fn take_fork(&mut self, fork: ForkId) -> Option<SipLegId> {
        let at = self.forks.iter().position(|(id, _)| *id == fork)?;
        Some(self.forks.swap_remove(at).1)
    }

    /// Whose a recording of this call is.
    pub(super) fn recording_of(&self) -> RecordingOf {
        let record = self.call.record();
        RecordingOf::Call {
            call_id: record.call_id.clone(),
            tenant: record.tenant.clone(),
        }
    }

    pub(super) fn view(&self, now: MonoTime, figures: Option<[LegReport; 2]>) -> CallView {
        let record = self.call.record();
        let [caller_media, callee_media] =
            [LegIndex::A, LegIndex::B].map(|leg| Some((&figures?[leg.as_usize()]).into()));
        CallView {
            call_id: record.call_id.clone(),
            state: self.call.state_name().to_owned(),
            caller: record.caller.clone(),
            did: record.did.clone(),
            callee: record.callee.clone(),
            trunk: record.trunk.clone(),
            age_ms: now.nanos_since(self.started_at) / 1_000_000,
            codec: record.caller_codec.clone(),
            callee_codec: record.callee_codec.clone(),
            caller_digits: self.digit_counts[0],
            callee_digits: self.digit_counts[1],
            caller_media,
            callee_media,
        }
    }
}

impl Switch {
    /// Gives a call its input and does what it then wants.
    pub(super) fn drive(&mut self, now: MonoTime, key: CallKey, input: Input) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        let _span = call_span(&entry.call.record().call_id).entered();
        entry.call.handle(now, input);
        self.perform_outputs(now, key);
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        let deadline = entry.call.poll_timeout();
        if entry.deadline != deadline {
            if let Some(old) = entry.deadline.take() {
                self.deadlines.remove(&(old, key));
            }
            entry.deadline = deadline;
            self.deadlines.extend(deadline.map(|at| (at, key)));
        }
    }

    /// Does what a call wants, until it wants nothing.
    pub(super) fn perform_outputs(&mut self, now: MonoTime, key: CallKey) {
        while let Some(entry) = self.calls.get_mut(&key) {
            let Some(output) = entry.call.poll_output() else {
                return;
            };
            self.perform(now, key, output);
        }
    }

    fn perform(&mut self, now: MonoTime, key: CallKey, output: Output) {
        match output {
            Output::OpenMedia => self.open_media(now, key),
            Output::ConfigureMedia(leg, config) => {
                if let Some(session) = self.calls.get(&key).and_then(|entry| entry.session) {
                    self.proxy.configure(session, leg, config);
                }
            }
            Output::SetAudio { audio, conversion } => {
                if let Some(session) = self.calls.get(&key).and_then(|entry| entry.session) {
                    self.proxy.set_audio(session, *audio, conversion);
                }
            }
            Output::SetDigits(..)
            | Output::StartSound(..)
            | Output::StopSound(_)
            | Output::SendDigit(..)
            | Output::PlayTone(_)
            | Output::Join => self.perform_function(now, key, output),
            Output::CheckPin(pin, hash) => self.pin_checks.push_back(PinCheck { key, pin, hash }),
            Output::SayDigit(leg, digit) => {
                self.on_leg(key, leg, |agent, leg| agent.send_digit(now, leg, digit));
            }
            Output::CloseMedia => match self.calls.get(&key).and_then(|entry| entry.session) {
                Some(session) => self.proxy.close(now, session),
                None => {
                    let nothing = Input::MediaClosed {
                        cause: None,
                        legs: None,
                    };
                    self.inputs.push_back((key, nothing));
                }
            },
            Output::Invite(fork, request) => self.invite(now, key, fork, *request),
            Output::Withdraw(fork, why) => self.withdraw(now, key, fork, why),
            Output::Connect(fork, leg) => self.connect(key, fork, leg),
            Output::Locate(last) => self.locate(now, key, last),
            Output::Progress { status, sdp } => {
                self.on_leg(key, LegIndex::A, |agent, leg| {
                    agent.provisional(now, leg, status, sdp)
                });
            }
            Output::AnswerCaller(sdp) => {
                self.on_leg(key, LegIndex::A, |agent, leg| agent.answer(now, leg, sdp));
                self.begin_recording(key);
            }
            Output::RejectCaller { status, reason } => {
                let headers = if status == 503 {
                    retry_after()
                } else {
                    Vec::new()
                };
                self.on_leg(key, LegIndex::A, |agent, leg| {
                    agent.reject(now, leg, status, reason, headers)
                });
            }
            Output::Reinvite(leg, sdp) => {
                let is_sent = self.on_leg(key, leg, |agent, leg| agent.reinvite(now, leg, sdp));
                if !is_sent {
                    // The far leg is busy with an offer of its own, or just ending.
                    self.inputs.push_back((
                        key,
                        Input::OfferAnswered {
                            leg,
                            result: Err(491),
                        },
                    ));
                }
            }
            Output::AcceptOffer(leg, sdp) => {
                self.on_leg(key, leg, |agent, leg| agent.accept_offer(now, leg, sdp));
            }
            Output::RejectOffer(leg, status) => {
                self.on_leg(key, leg, |agent, leg| agent.reject_offer(now, leg, status));
            }
            Output::Hangup(leg) => {
                self.on_leg(key, leg, |agent, leg| agent.hangup(now, leg, None));
            }
            Output::Record(record) => self.finish(now, key, *record),
        }
    }

    /// Has the edge do something beside relaying. What it cannot do is logged: no peer waits for it.
    fn perform_function(&mut self, now: MonoTime, key: CallKey, output: Output) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        let Some(session) = entry.session else {
            return;
        };
        let proxy = &mut self.proxy;
        let result = match output {
            Output::SetDigits(leg, digits) => {
                let switches = &mut entry.switches[leg.as_usize()];
                switches.by_call = digits;
                proxy.set_functions(session, leg, switches.together(), None)
            }
            Output::StartSound(leg, sound) => {
                let piece = match sound {
                    Sound::HoldMusic => entry.hold_music.clone().map(Piece::File),
                    Sound::Ringback => Some(entry.ringback.clone()),
                };
                let played = piece.map(|piece| {
                    let endless = PlayList {
                        pieces: vec![piece],
                        rounds: 0,
                        ends_on_digit: false,
                        mode: PlaybackMode::Replace,
                    };
                    proxy.play(now, session, leg, endless, None)
                });
                played.transpose().map(drop)
            }
            Output::StopSound(leg) => proxy.stop_playing(session, leg, None),
            Output::SendDigit(leg, digit, dtmf) => {
                let method = match dtmf {
                    Dtmf::InBand => DigitMethod::InBand,
                    Dtmf::Rfc4733 | Dtmf::Info => DigitMethod::Preferred,
                };
                let digits = single_digit(digit);
                proxy
                    .send_digits(session, leg, digits, method, None)
                    .map(drop)
            }
            Output::PlayTone(tone) => {
                let once = PlayList {
                    pieces: vec![Piece::Tone(tone)],
                    rounds: 1,
                    ends_on_digit: true,
                    mode: PlaybackMode::Replace,
                };
                proxy.play(now, session, LegIndex::A, once, None).map(drop)
            }
            Output::Join => match &mut entry.seat {
                Some(seat) => {
                    seat.joined_at = Some(now);
                    let membership = Membership {
                        conference: seat.id,
                        muted: seat.joins_muted,
                        deaf: false,
                        whispers_to: None,
                    };
                    proxy.join(session, LegIndex::A, membership, None)
                }
                None => Err(FunctionError::NoSession),
            },
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%session, %error, "the edge was not asked");
        }
    }

    fn begin_recording(&mut self, key: CallKey) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        if let (Some(session), Some(plan)) = (entry.session, entry.recording.take())
            && let Err(error) = self.proxy.record(session, plan, None)
        {
            tracing::warn!(%session, %error, "not recorded");
        }
    }

    /// Gives an order to a leg, and says whether it was taken. One that crossed the leg's end or
    /// a change of its state is not; the agent's event about that is on its way.
    fn on_leg(
        &mut self,
        key: CallKey,
        leg: LegIndex,
        order: impl FnOnce(&mut Agent, SipLegId) -> Result<(), LegError>,
    ) -> bool {
        let Some(entry) = self.calls.get(&key) else {
            return false;
        };
        let Some(id) = entry.legs[leg.as_usize()] else {
            return false;
        };
        match order(&mut self.agent, id) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(?leg, %error, "order not taken");
                false
            }
        }
    }

    fn open_media(&mut self, now: MonoTime, key: CallKey) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        let ssrcs = [0, 1].map(|_| Ssrc(self.entropy.next_u64() as u32));
        let opened = match &mut entry.seat {
            None => self.proxy.open(now, entry.media_ips, ssrcs),
            Some(seat) => self.proxy.open_member(
                now,
                entry.media_ips[0],
                ssrcs[0],
                seat.id,
                seat.announces,
                seat.recording.take(),
            ),
        };
        match opened {
            Ok(session) => {
                entry.session = Some(session);
                self.by_session.insert(session, key);
            }
            Err(error) => {
                tracing::warn!(%error, "call refused");
                self.inputs
                    .push_back((key, Input::MediaRefused { reason: error }));
            }
        }
    }

    pub(super) fn send_invite(
        &mut self,
        now: MonoTime,
        key: CallKey,
        fork: ForkId,
        request: InviteRequest,
    ) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        match self.agent.invite(now, request) {
            Ok(leg) => {
                entry.forks.push((fork, leg));
                self.seat_leg(leg, key, Seat::Fork(fork));
            }
            Err(error) => {
                tracing::warn!(%fork, %error, "not invited");
                let rejected = Input::CalleeRejected { fork, status: 503 };
                self.inputs.push_back((key, rejected));
            }
        }
    }

    fn withdraw(&mut self, now: MonoTime, key: CallKey, fork: ForkId, why: Withdrawal) {
        if self.trunks.calls.forget_turn(key, fork) {
            return;
        }
        // One that has just refused is gone already.
        if let Some(leg) = self
            .calls
            .get_mut(&key)
            .and_then(|entry| entry.take_fork(fork))
        {
            self.by_leg.remove(&leg);
            if let Err(error) = self.agent.hangup(now, leg, why.reason()) {
                tracing::debug!(%fork, %error, "nothing to take back");
            }
        }
    }

    fn connect(&mut self, key: CallKey, fork: ForkId, leg: LegIndex) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        if let Some(id) = entry.take_fork(fork) {
            entry.legs[leg.as_usize()] = Some(id);
            self.seat_leg(id, key, Seat::Leg(leg));
        }
    }

    /// Queues an input for the call that `leg` is a side of.
    pub(super) fn leg_input(&mut self, leg: SipLegId, input: impl FnOnce(LegIndex) -> Input) {
        if let Some(&(key, Seat::Leg(index))) = self.by_leg.get(&leg) {
            self.inputs.push_back((key, input(index)));
        }
    }

    /// Queues an input for the call that rings `leg`.
    pub(super) fn fork_input(&mut self, leg: SipLegId, input: impl FnOnce(ForkId) -> Input) {
        if let Some(&(key, Seat::Fork(fork))) = self.by_leg.get(&leg) {
            self.inputs.push_back((key, input(fork)));
        }
    }

    /// The agent no longer knows `leg`.
    pub(super) fn forget_leg(&mut self, leg: SipLegId) {
        if let Some((key, seat)) = self.by_leg.remove(&leg)
            && let Some(entry) = self.calls.get_mut(&key)
        {
            match seat {
                Seat::Leg(index) => entry.legs[index.as_usize()] = None,
                Seat::Fork(fork) => drop(entry.take_fork(fork)),
            }
        }
    }

    fn finish(&mut self, now: MonoTime, key: CallKey, record: CallRecord) {
        self.release_channels(now, key);
        self.end_events(key);
        if let Some(entry) = self.calls.remove(&key) {
            if let Some(seat) = entry.seat {
                self.leave_room(seat.id);
            }
            if let Some(deadline) = entry.deadline {
                self.deadlines.remove(&(deadline, key));
            }
            let forks = entry.forks.into_iter().map(|(_, leg)| leg);
            for leg in entry.legs.into_iter().flatten().chain(forks) {
                self.by_leg.remove(&leg);
            }
            if let Some(session) = entry.session {
                self.by_session.remove(&session);
            }
        }
        self.write_record(record);
    }

    /// Sends a call record on its way, inside the call's span.
    pub(super) fn write_record(&mut self, record: CallRecord) {
        tracing::info!(
            result = %record.result,
            sip_status = record.sip_status,
            ended_by = %record.ended_by,
            duration_ms = record.duration_ms,
            "call ended"
        );
        self.records.push_back(record);
    }
}

/// `Retry-After`, for every 503.
pub(super) fn retry_after() -> Vec<Header> {
    Header::build(HeaderName::RetryAfter, RETRY_AFTER_SECS.to_string())
        .into_iter()
        .collect()
}
