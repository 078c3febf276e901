//! What workers answer and tell.

use trunkline_edge_api::{Correlation, Event, LegIndex, MonoTime, Refusal, SessionId};

use super::commands::{CommandResult, Subject};
use super::{
    BIND_ATTEMPTS_MAX, EdgeProxy, Leg, LegState, MediaEvent, REBIND_INTERVAL_MS, Session,
    SessionState, entry_is_opening,
};

impl EdgeProxy {
    /// What a worker said.
    pub fn handle_event(&mut self, now: MonoTime, event: Event) {
        match event {
            Event::CommandDone {
                correlation,
                result,
            } => {
                let outcome = match result {
                    Ok(()) => CommandResult::Done,
                    Err(_) => CommandResult::Refused,
                };
                match self.commands.answered(correlation, outcome) {
                    Some(Subject::Open(session, leg)) => {
                        self.handle_open_answer(now, session, leg, correlation, result);
                    }
                    Some(Subject::Configure(session, leg)) => {
                        self.handle_config_answer(session, leg, correlation, result);
                    }
                    Some(Subject::Query(session)) => {
                        self.querying.remove(&session);
                    }
                    Some(Subject::Function(asked)) => {
                        self.handle_function_answer(asked, correlation, result);
                    }
                    Some(Subject::Nothing) | None => {}
                }
            }
            Event::SessionReported { report, .. } => {
                if let Some(session) = self.sessions.get_mut(&report.session) {
                    session.figures = Some((now, report.legs));
                }
            }
            Event::SessionClosed { cause, report } => {
                self.forget(report.session, Some(cause), Some(report));
            }
            Event::MediaTimedOut { session, leg, kind } => {
                // What is closing is silent for good reason.
                let is_open = |session: &Session| session.state == SessionState::Open;
                if self.sessions.get(&session).is_some_and(is_open) {
                    self.events
                        .push_back(MediaEvent::TimedOut { session, leg, kind });
                }
            }
            Event::DigitReceived { .. }
            | Event::PlaybackEnded { .. }
            | Event::RecordingEnded { .. }
            | Event::ActivityChanged { .. }
            | Event::BeepHeard { .. }
            | Event::ProgressHeard { .. }
            | Event::DigitsSent { .. }
            | Event::SpeakerChanged { .. } => self.handle_function_event(event),
            // Nobody asks for it yet.
            Event::MediaStarted { .. } => {}
        }
    }

    pub(super) fn handle_open_answer(
        &mut self,
        now: MonoTime,
        id: SessionId,
        leg: LegIndex,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let SessionState::Closing { .. } = session.state {
            return;
        }
        let entry = &mut session.legs[leg.as_usize()];
        let LegState::Opening {
            correlation: expected,
            attempts,
        } = entry.state
        else {
            return;
        };
        if expected != correlation {
            return;
        }
        match result {
            Ok(()) => {
                entry.state = LegState::Open;
                if session.legs.iter().any(|leg| leg.state == LegState::Busy) {
                    return self.settle_busy(now, id);
                }
                let is_bound = |leg: &Leg| !matches!(leg.state, LegState::Opening { .. });
                let all_open = session.legs.iter().all(is_bound);
                if session.state == SessionState::Opening && all_open {
                    session.state = SessionState::Open;
                    let local = [session.legs[0].local, session.legs[1].local];
                    self.events
                        .push_back(MediaEvent::Opened { session: id, local });
                }
            }
            // The session is back on a restarted edge, and its port is in SDP already: only this
            // port will do. A killed edge's sockets vanish a little after its process.
            Err(Refusal::AddressInUse)
                if session.state == SessionState::Open && attempts < BIND_ATTEMPTS_MAX =>
            {
                let retry_at = now.plus_millis(REBIND_INTERVAL_MS);
                self.rebinds.push_back((retry_at, id, leg, attempts + 1));
            }
            // Before the port entered SDP another one serves as well.
            Err(Refusal::AddressInUse)
                if session.state == SessionState::Opening && attempts < BIND_ATTEMPTS_MAX =>
            {
                let ports = &mut self.workers[session.worker].ports;
                ports.set_aside(now, entry.local.rtp);
                if let Some(rtp) = ports.take(now, entry.local.rtp.ip()) {
                    entry.local.rtp = rtp;
                    self.send_open(id, leg, attempts + 1);
                } else {
                    // The pair that is set aside is the pool's again.
                    entry.local.rtp.set_port(0);
                    self.refuse(id, Refusal::AddressInUse);
                }
            }
            Err(Refusal::WorkerBusy) if session.state == SessionState::Opening => {
                entry.state = LegState::Busy;
                self.settle_busy(now, id);
            }
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    pub(super) fn handle_config_answer(
        &mut self,
        id: SessionId,
        leg: LegIndex,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let entry = &mut session.legs[leg.as_usize()];
        if entry.configuring != Some(correlation) {
            return;
        }
        entry.configuring = None;
        match (session.state, result) {
            (SessionState::Closing { .. }, _) => {}
            (_, Ok(())) => self.tell_configured(id),
            // The leg is not bound again yet; its configuration is said again with it.
            (_, Err(Refusal::NoSuchLeg)) if entry_is_opening(session, leg) => {}
            // The edge has closed it, and the word was lost.
            (SessionState::Open, Err(Refusal::NoSuchLeg)) => self.forget(id, None, None),
            (_, Err(refusal)) => self.refuse(id, refusal),
        }
    }

    /// Says that the worker has taken everything a session cannot be without, if it has.
    pub(super) fn tell_configured(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let mut legs = session.legs.iter().zip(&session.wanted.legs);
        let is_settled =
            legs.all(|(leg, wanted)| leg.configuring.is_none() && wanted.setting_audio.is_none());
        if is_settled && !matches!(session.state, SessionState::Closing { .. }) {
            self.events
                .push_back(MediaEvent::Configured { session: id });
        }
    }
}
