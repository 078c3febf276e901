//! Carrying out what control asks. Every command states a wanted condition; where it holds
//! already, nothing is done and the answer is the same.

use std::net::IpAddr;

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    CloseCause, Command, Correlation, Counter, Epoch, Event, LegConfig, LegIndex, LocalMedia,
    MonoTime, PortRange, Refusal, SessionId,
};
use trunkline_media::{SessionCommand, SocketKind};

use super::{Connection, Phase, Worker, guarded, report_of};
use crate::closing::Outcome;
use crate::session_table::{Session, SessionKey, SocketOwner, TableFull};
use crate::shared::NoticeKind;
use crate::tier::SocketId;

/// Reports sent per cycle while all sessions are queried.
const REPORTS_PER_CYCLE: usize = 256;

/// A [`Command::QueryAllSessions`] that is being answered.
#[derive(Debug)]
pub(super) struct QueryAll {
    correlation: Correlation,
    /// Slot of the session that is reported next.
    next_slot: u32,
}

impl Worker {
    pub(super) fn handle_command(&mut self, now: MonoTime, command: CorrelatedCommand) {
        let CorrelatedCommand {
            correlation,
            command,
        } = command;
        let at_once = match command {
            Command::OpenLeg {
                session,
                leg,
                local,
            } => self.open_leg(now, session, leg, local),
            Command::ConfigureLeg {
                session,
                leg,
                config,
            } => self.configure_leg(now, session, leg, config),
            Command::QuerySession { session } => self.query_session(correlation, session),
            Command::CloseLeg { session, leg } => {
                return self.close_leg(now, correlation, session, leg);
            }
            Command::CloseSession { session } => {
                let outcome = Outcome {
                    answer: Some(correlation),
                    ..Outcome::default()
                };
                match self.sessions.find(session) {
                    Some(key) => return self.close_session(key, CloseCause::Commanded, outcome),
                    None => Ok(()),
                }
            }
            Command::CloseOtherEpochs { keep } => {
                return self.close_other_epochs(correlation, keep);
            }
            Command::QueryAllSessions => {
                self.query = Some(QueryAll {
                    correlation,
                    next_slot: 0,
                });
                return;
            }
            Command::SetLegAudio { .. }
            | Command::SetLegFunctions { .. }
            | Command::LoadPrompt { .. }
            | Command::UnloadPrompt { .. }
            | Command::Play { .. }
            | Command::StopPlaying { .. }
            | Command::StartRecording { .. }
            | Command::StopRecording { .. }
            | Command::SendDigits { .. }
            | Command::SetFork { .. }
            | Command::JoinConference { .. }
            | Command::LeaveConference { .. }
            | Command::SetConference { .. }
            | Command::CloseConference { .. } => {
                return self.handle_function(now, correlation, command);
            }
        };
        self.answer(correlation, at_once);
    }

    fn open_leg(
        &mut self,
        now: MonoTime,
        id: SessionId,
        leg: LegIndex,
        local: LocalMedia,
    ) -> Result<(), Refusal> {
        let found = self.sessions.find(id);
        let open = found
            .and_then(|key| self.sessions.get_mut(key))
            .and_then(|session| session.media.local(leg));
        match open {
            Some(open) if open == local => return Ok(()),
            Some(_) => return Err(Refusal::LegOpenElsewhere),
            None => {}
        }
        if self.phase == Phase::Draining {
            return Err(Refusal::Draining);
        }
        if !is_bindable(local, self.end.ports()) {
            return Err(Refusal::AddressMismatch);
        }
        if found.is_none() && self.capacity.is_exceeded() {
            self.end.counters().add(Counter::SessionsRefusedBusy, 1);
            return Err(Refusal::WorkerBusy);
        }
        let key = match found {
            Some(key) => key,
            None => self
                .sessions
                .insert(Session::new(id, now))
                .map_err(|TableFull| Refusal::SessionTableFull)?,
        };
        let result = self.bind_leg(now, key, leg, local);
        match (result, found) {
            (Ok(()), None) => {
                let timeout_secs = u64::from(self.settings.orphan_timeout_secs);
                let deadline = now.plus_secs(timeout_secs);
                self.orphan_timers.arm(key.slot(), deadline);
                self.end.counters().add(Counter::SessionsOpened, 1);
            }
            (Err(_), None) => {
                self.sessions.remove(key);
            }
            (_, Some(_)) => {}
        }
        result
    }

    /// Binds the leg's sockets, all or none.
    fn bind_leg(
        &mut self,
        now: MonoTime,
        key: SessionKey,
        leg: LegIndex,
        local: LocalMedia,
    ) -> Result<(), Refusal> {
        let owner = |socket| SocketOwner {
            session: key,
            leg,
            socket,
        };
        let rtp = self.bind(local.rtp, owner(SocketKind::Rtp))?;
        let rtcp = match local.rtcp_addr() {
            None => None,
            Some(addr) => match self.bind(addr, owner(SocketKind::Rtcp)) {
                Ok(socket) => Some(socket),
                Err(refusal) => {
                    self.close_sockets([Some(rtp), None], Outcome::default());
                    return Err(refusal);
                }
            },
        };
        let sockets = [Some(rtp), rtcp];
        let opened = self
            .command_session(now, key, SessionCommand::OpenLeg(leg, local))
            .and_then(|()| self.sessions.get_mut(key).ok_or(Refusal::NoSuchLeg))
            .map(|session| session.sockets[leg.as_usize()] = sockets);
        self.tap_if_recorded(now, key, leg);
        if opened.is_err() {
            self.close_sockets(sockets, Outcome::default());
        }
        opened
    }

    fn bind(
        &mut self,
        local: std::net::SocketAddr,
        owner: SocketOwner,
    ) -> Result<SocketId, Refusal> {
        self.tier.open(local, owner).map_err(|(refusal, error)| {
            if let (Refusal::SocketFailed, Some(error)) = (refusal, error) {
                self.notify(NoticeKind::SocketFailed { local, error });
            }
            refusal
        })
    }

    fn configure_leg(
        &mut self,
        now: MonoTime,
        id: SessionId,
        leg: LegIndex,
        config: LegConfig,
    ) -> Result<(), Refusal> {
        let key = self.sessions.find(id).ok_or(Refusal::NoSuchLeg)?;
        self.reconfigure_connection(key, leg, &config);
        self.command_session(now, key, SessionCommand::ConfigureLeg(leg, config))
    }

    /// Hands a command to the session's own code.
    pub(super) fn command_session(
        &mut self,
        now: MonoTime,
        key: SessionKey,
        command: SessionCommand,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get_mut(key).ok_or(Refusal::NoSuchLeg)?;
        match guarded(|| session.media.handle_command(now, command)) {
            Ok(result) => {
                self.arm_media_timer(key);
                result
            }
            Err(super::Panicked) => {
                self.close_panicked(key);
                Err(Refusal::NoSuchLeg)
            }
        }
    }

    fn close_leg(&mut self, now: MonoTime, correlation: Correlation, id: SessionId, leg: LegIndex) {
        let mut sockets = [None; 2];
        if let Some(key) = self.sessions.find(id) {
            if let Some(session) = self.sessions.get_mut(key) {
                sockets = std::mem::take(&mut session.sockets[leg.as_usize()]);
                session.connections[leg.as_usize()] = Connection::Unfit;
            }
            self.leave_closed(id, leg);
            // Closing a leg is never refused.
            let _ = self.command_session(now, key, SessionCommand::CloseLeg(leg));
            self.serve_session(now, key);
        }
        let outcome = Outcome {
            answer: Some(correlation),
            ..Outcome::default()
        };
        self.close_sockets(sockets, outcome);
    }

    /// Begins to close `sockets`; what `outcome` holds is said when they are.
    fn close_sockets(&mut self, sockets: [Option<SocketId>; 2], outcome: Outcome) {
        let ticket = self.closings.open(outcome);
        for socket in sockets.into_iter().flatten() {
            if self.tier.close(socket, ticket) {
                self.closings.expect_one(ticket);
            }
        }
        self.arrive(ticket);
    }

    fn close_other_epochs(&mut self, correlation: Correlation, keep: Epoch) {
        let all = self.closings.open(Outcome {
            answer: Some(correlation),
            ..Outcome::default()
        });
        let mut from = 0;
        while let Some((key, session)) = self.sessions.next_from(from) {
            from = key.slot() + 1;
            if session.id.epoch() == keep {
                continue;
            }
            self.closings.expect_one(all);
            let outcome = Outcome {
                part_of: Some(all),
                ..Outcome::default()
            };
            self.close_session(key, CloseCause::Commanded, outcome);
        }
        self.arrive(all);
    }

    fn query_session(&mut self, correlation: Correlation, id: SessionId) -> Result<(), Refusal> {
        let key = self.sessions.find(id).ok_or(Refusal::NoSuchLeg)?;
        let session = self.sessions.get_mut(key).ok_or(Refusal::NoSuchLeg)?;
        let report = report_of(session);
        // Without room control gets the answer alone, and asks again if it needs the figures.
        let _ = self.end.send_event(&Event::SessionReported {
            correlation,
            report,
        });
        Ok(())
    }

    /// Reports more of the sessions that control asked for. Returns how many.
    pub(super) fn continue_query(&mut self, now: MonoTime) -> usize {
        let Some(mut query) = self.query.take() else {
            return 0;
        };
        // Whoever asked has gone; the next control asks for itself.
        if self.control_gone_since(now).is_some() {
            return 0;
        }
        for sent in 0..REPORTS_PER_CYCLE {
            let Some((key, session)) = self.sessions.next_from(query.next_slot) else {
                self.answer(query.correlation, Ok(()));
                return sent + 1;
            };
            let event = Event::SessionReported {
                correlation: query.correlation,
                report: report_of(session),
            };
            if self.end.send_event(&event).is_err() {
                self.query = Some(query);
                return sent;
            }
            query.next_slot = key.slot() + 1;
        }
        self.query = Some(query);
        REPORTS_PER_CYCLE
    }
}

/// Whether a leg may bind `local`: one address of this machine, and ports of this worker.
fn is_bindable(local: LocalMedia, ports: PortRange) -> bool {
    let ip = local.rtp.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let is_in_slice = |port: u16| (ports.first()..=ports.last()).contains(&port);
    !ip.is_unspecified()
        && !ip.is_multicast()
        && !is_broadcast
        && is_in_slice(local.rtp.port())
        && local
            .rtcp_addr()
            .is_none_or(|addr| is_in_slice(addr.port()))
}
