//! A packet thread.
//!
//! One worker owns its ring, its sockets, its sessions and its counters; nobody else touches them,
//! so nothing is locked. Its whole life is [`Worker::duty_cycle`] over and over:
//!
//! ```text
//!   clock -> commands -> completions -> timers -> submit -> publish -> wait, if there was no work
//! ```

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use trunkline_edge_api::{
    CloseCause, Correlation, Counter, DropReason, Event, IoTier, MonoTime, Refusal, SessionId,
    SessionReport,
};
use trunkline_media::demux::{Protocol, protocol_of};
use trunkline_media::{RxMeta, SessionEvent, SocketKind, Transmit, Verdict};
use trunkline_ring::{RecvError, WorkerEnd, monotonic_now};

use crate::closing::{Closings, Outcome};
use crate::panic_message;
use crate::publish;
use crate::session_table::{Session, SessionKey, SessionTable, SocketOwner};
use crate::shared::{Notice, NoticeKind, Shared};
use crate::tier::{CloseTicket, Completion, RxBuffer, Tier, TierError, TierSettings};
use crate::timer_wheel::TimerWheel;
use crate::uring::UringError;

mod capacity;
mod clocked;
mod command;
mod conferences;
mod connections;
mod functions;
mod timeouts;

use capacity::{Capacity, CycleWork};
use command::QueryAll;
pub(crate) use connections::Connection;
use connections::connect_leg;
use functions::Functions;
pub(crate) use functions::{Helpers, RunningRecording};

/// Commands taken per cycle. One that opens a leg makes some ten system calls, 20 to 40 µs; this
/// many hold up media for less than a millisecond.
const COMMANDS_PER_CYCLE: usize = 16;

/// Batches of completions handled per cycle, before timers and counters get their turn.
const BATCHES_PER_CYCLE: usize = 8;

/// Longest wait in the kernel: the heartbeat stands still no longer than this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Wait while a query goes on and control does not read: its room is looked for this often.
const QUERY_WAIT: Duration = Duration::from_millis(10);

/// A control whose connection has ended and whose heartbeat is older than this is gone. It beats
/// at least once a second.
const CONTROL_STALE_SECS: u64 = 3;

/// What a worker needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerSettings {
    pub(crate) sessions_max: u32,
    pub(crate) tier: TierSettings,
    pub(crate) orphan_timeout_secs: u32,
}

pub(crate) struct Worker {
    // Dropped first: it watches a doorbell that belongs to `end`.
    tier: Tier,
    end: WorkerEnd,
    settings: WorkerSettings,
    shared: Arc<Shared>,
    sessions: SessionTable,
    /// One per session slot.
    orphan_timers: TimerWheel,
    /// One per session slot.
    media_timers: TimerWheel,
    /// One per session slot.
    connection_timers: TimerWheel,
    capacity: Capacity,
    /// Whether a packet was sent on in this duty cycle.
    has_forwarded: bool,
    closings: Closings,
    query: Option<QueryAll>,
    functions: Functions,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The edge stops: every session was told to close.
    Draining,
}

/// Whether there is anything left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    GoesOn,
    /// The edge stops, and every socket is closed.
    IsOver,
}

/// A session's code panicked.
struct Panicked;

impl Worker {
    /// To be called on the worker's own thread. With the worker comes why it is not on io_uring,
    /// where that was tried first.
    ///
    /// # Errors
    /// What its I/O lacks here.
    pub(crate) fn new(
        end: WorkerEnd,
        settings: WorkerSettings,
        shared: Arc<Shared>,
        helpers: Helpers,
    ) -> Result<(Self, Option<UringError>), TierError> {
        let (tier, fallback) = Tier::new(settings.tier, end.doorbell())?;
        end.set_io_tier(tier.kind());
        let worker = Self {
            tier,
            end,
            settings,
            shared,
            sessions: SessionTable::new(settings.sessions_max),
            orphan_timers: TimerWheel::new(settings.sessions_max, monotonic_now()),
            media_timers: TimerWheel::new(settings.sessions_max, monotonic_now()),
            connection_timers: TimerWheel::new(settings.sessions_max, monotonic_now()),
            capacity: Capacity::default(),
            has_forwarded: false,
            closings: Closings::with_capacity(settings.tier.sockets_max as usize),
            query: None,
            functions: Functions::new(helpers, settings.sessions_max),
            phase: Phase::Serving,
        };
        Ok((worker, fallback))
    }

    /// How it does I/O.
    pub(crate) fn io_tier(&self) -> IoTier {
        self.tier.kind()
    }

    /// Everything once, in the order that the module describes.
    ///
    /// # Errors
    /// The kernel refuses to go on with this I/O; the worker cannot.
    pub(crate) fn duty_cycle(&mut self) -> io::Result<Life> {
        let start = monotonic_now();
        let command_count = self.drain_commands(start);
        let completion_count = self.handle_completions(start);
        self.expire_timers(start);
        self.expire_media_timers(start);
        self.expire_connection_timers(start);
        let ticked_count = self.run_functions(start);
        let report_count = self.continue_query(start);
        if self.shared.is_stopping() && self.phase == Phase::Serving {
            self.begin_draining();
        }
        self.tier.submit()?;

        let end = monotonic_now();
        let cells = self.end.counters();
        let work = match (
            command_count + report_count,
            completion_count + ticked_count,
        ) {
            (0, 0) => CycleWork::Idle,
            (0, _) => CycleWork::Media,
            _ => CycleWork::Commands,
        };
        self.capacity.observe(work);
        let is_idle = work == CycleWork::Idle;
        if !is_idle {
            publish::count_busy_cycle(cells, start, end);
        }
        if std::mem::take(&mut self.has_forwarded) {
            publish::observe_forwarding(cells, start, end);
        }
        publish::publish_gauges(cells, &self.tier.counters(), self.sessions.len());
        self.end.beat(end);

        if self.phase == Phase::Draining && self.tier.is_empty() && !self.functions.is_busy() {
            return Ok(Life::IsOver);
        }
        if is_idle {
            self.wait()?;
        }
        Ok(Life::GoesOn)
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.query.is_some() {
            // Commands stay where they are meanwhile, so they are no reason to stay awake.
            return self.tier.submit_and_wait(QUERY_WAIT);
        }
        if self.end.before_wait() {
            let until_tick = self.functions.next_tick().map(|tick| {
                let nanos = tick.nanos_since(monotonic_now());
                Duration::from_nanos(nanos)
            });
            let timeout = until_tick.map_or(WAIT_MAX, |tick| tick.min(WAIT_MAX));
            self.tier.submit_and_wait(timeout)?;
            self.end.after_wait();
        }
        Ok(())
    }

    fn drain_commands(&mut self, now: MonoTime) -> usize {
        for taken in 0..COMMANDS_PER_CYCLE {
            // A query is answered before anything else, so that its reports are of one state.
            if self.query.is_some() {
                return taken;
            }
            match self.end.recv_command() {
                Ok(Some(command)) => self.handle_command(now, command),
                Ok(None) => return taken,
                Err(RecvError::Undecodable(error)) => {
                    if let Some(correlation) = error.correlation {
                        self.answer(correlation, Err(Refusal::Undecodable));
                    }
                }
                Err(RecvError::Poisoned(fault)) => {
                    self.notify(NoticeKind::RingFault(fault));
                    return taken;
                }
            }
        }
        COMMANDS_PER_CYCLE
    }

    fn handle_completions(&mut self, start: MonoTime) -> usize {
        let mut now = start;
        let mut handled = 0;
        for batch in 0..BATCHES_PER_CYCLE {
            let len = self.tier.reap();
            if len == 0 {
                break;
            }
            if batch > 0 {
                now = monotonic_now();
            }
            while let Some(completion) = self.tier.poll_completion() {
                self.handle_completion(now, completion);
            }
            handled += len;
        }
        handled
    }

    fn handle_completion(&mut self, now: MonoTime, completion: Completion) {
        match completion {
            Completion::Received {
                owner,
                meta,
                buffer,
            } => self.handle_datagram(now, owner, &meta, buffer),
            Completion::Sent {
                session,
                transmit,
                is_made,
                result,
            } => match result {
                Ok(()) => publish::count_sent(self.end.counters(), transmit.kind, transmit.len),
                Err(reason) if is_made => self.handle_own_send_failure(session, &transmit, reason),
                Err(reason) => self.handle_send_failure(session, &transmit, reason),
            },
            Completion::Closed(ticket) => self.arrive(ticket),
            Completion::DoorbellRang => self.end.silence_doorbell(),
        }
    }

    fn handle_datagram(
        &mut self,
        now: MonoTime,
        owner: SocketOwner,
        meta: &RxMeta,
        mut buffer: RxBuffer,
    ) {
        let Some(session) = self.sessions.get_mut(owner.session) else {
            self.tier.release(buffer);
            return;
        };
        let packet = self.tier.packet_mut(&mut buffer);
        let len = packet.len();
        let protocol = protocol_of(&packet);
        let judged = guarded(|| {
            #[cfg(test)]
            tests::panic_on_demand(&packet);
            let verdict = session.media.handle_packet(now, owner.leg, meta, packet);
            (verdict, session.media.poll_event(), session.media.wants())
        });
        let Ok((verdict, event, wants)) = judged else {
            self.tier.release(buffer);
            self.close_panicked(owner.session);
            return;
        };
        let cells = self.end.counters();
        if let (true, Protocol::Media(kind)) = (verdict.accepts(), protocol) {
            publish::count_received(cells, kind, len);
            // Before the packet goes on: who has it may be sure that strangers are turned away.
            if owner.socket == SocketKind::Rtp
                && session.connections[owner.leg.as_usize()].hear(meta.source)
            {
                let timers = &mut self.connection_timers;
                connect_leg(&mut self.tier, timers, session, owner, now, meta.source);
            }
        }
        match verdict {
            Verdict::Forward(transmit) => {
                let socket = session.sockets[transmit.leg.as_usize()][transmit.socket as usize];
                self.has_forwarded = true;
                let result = match socket {
                    Some(socket) => self.tier.send(buffer, socket, owner.session, transmit),
                    None => {
                        self.tier.release(buffer);
                        Err(DropReason::NoDestination)
                    }
                };
                if let Err(reason) = result {
                    self.handle_send_failure(owner.session, &transmit, reason);
                }
            }
            Verdict::Consumed => self.tier.release(buffer),
            Verdict::Drop(reason) => {
                publish::count_dropped(cells, reason);
                self.tier.release(buffer);
            }
        }
        if let Some(event) = event {
            self.tell(owner.session, event);
        }
        if wants.tapped {
            self.record_tapped(now, owner.session, owner.leg);
        }
        if wants.transmit || wants.ticks {
            self.serve_session(now, owner.session);
        }
    }

    fn handle_send_failure(&mut self, key: SessionKey, transmit: &Transmit, reason: DropReason) {
        publish::count_dropped(self.end.counters(), reason);
        if let Some(session) = self.sessions.get_mut(key)
            && guarded(|| session.media.handle_send_failure(transmit)).is_err()
        {
            self.close_panicked(key);
        }
    }

    fn tell(&mut self, key: SessionKey, event: SessionEvent) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let id = session.id;
        if let SessionEvent::DigitReceived {
            leg,
            duration_millis,
            ..
        } = event
            && session.media.hides_digits(leg)
        {
            self.hide_from_recordings(key, leg, duration_millis);
        }
        self.tell_of(id, event);
    }

    fn tell_of(&mut self, session: SessionId, event: SessionEvent) {
        let event = match event {
            SessionEvent::MediaStarted { leg, source } => Event::MediaStarted {
                session,
                leg,
                source,
            },
            SessionEvent::MediaTimedOut { leg, kind } => {
                self.end.counters().add(Counter::MediaTimeouts, 1);
                Event::MediaTimedOut { session, leg, kind }
            }
            SessionEvent::DigitReceived {
                leg,
                digit,
                duration_millis,
                source,
            } => {
                self.end.counters().add(Counter::DigitsReceived, 1);
                Event::DigitReceived {
                    session,
                    leg,
                    digit,
                    duration_millis,
                    source,
                }
            }
            SessionEvent::ActivityChanged { leg, is_speaking } => Event::ActivityChanged {
                session,
                leg,
                is_speaking,
            },
            SessionEvent::BeepHeard {
                leg,
                frequency_hz,
                duration_millis,
            } => Event::BeepHeard {
                session,
                leg,
                frequency_hz,
                duration_millis,
            },
            SessionEvent::ProgressHeard {
                leg,
                signal,
                frequencies_hz,
            } => Event::ProgressHeard {
                session,
                leg,
                signal,
                frequencies_hz,
            },
            SessionEvent::DigitsSent { leg, digits } => Event::DigitsSent {
                session,
                leg,
                digits,
            },
            SessionEvent::PlaybackEnded {
                leg,
                playback,
                cause,
                played_millis,
            } => Event::PlaybackEnded {
                session,
                leg,
                playback,
                cause,
                played_millis,
            },
        };
        // One that finds no room is counted by the ring; one that must arrive makes it ask control
        // to resync.
        let _ = self.end.send_event(&event);
    }

    /// Closes what neither control nor media have touched for the orphan timeout.
    fn expire_timers(&mut self, now: MonoTime) {
        let timeout_secs = u64::from(self.settings.orphan_timeout_secs);
        let control_gone_since = self.control_gone_since(now);
        while let Some(slot) = self.orphan_timers.poll_expired(now) {
            let Some((key, session)) = self.sessions.in_slot(slot) else {
                continue;
            };
            let last_heard = session.media.last_heard().unwrap_or(session.opened_at);
            let alone_since = control_gone_since.map_or(now, |gone| gone.max(last_heard));
            let deadline = alone_since.plus_secs(timeout_secs);
            if deadline > now {
                self.orphan_timers.arm(slot, deadline);
                continue;
            }
            let session = session.id;
            self.end.counters().add(Counter::SessionsOrphaned, 1);
            self.notify(NoticeKind::SessionOrphaned { session });
            self.close_session(key, CloseCause::Orphaned, Outcome::default());
        }
    }

    /// Since when there is no control; `None` while there is one, or may be: its connection stands
    /// or its heart beats.
    fn control_gone_since(&self, now: MonoTime) -> Option<MonoTime> {
        let left_at = self.shared.control_left_at()?;
        let last_beat = self.end.control_heartbeat().unwrap_or_default();
        let is_stale = now >= last_beat.plus_secs(CONTROL_STALE_SECS);
        is_stale.then(|| left_at.max(last_beat))
    }

    fn begin_draining(&mut self) {
        self.phase = Phase::Draining;
        self.query = None;
        let mut from = 0;
        while let Some((key, _)) = self.sessions.next_from(from) {
            from = key.slot() + 1;
            self.close_session(key, CloseCause::EdgeStopped, Outcome::default());
        }
    }

    #[cold]
    fn close_panicked(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let session = session.id;
        self.end.counters().add(Counter::SessionsPanicked, 1);
        let message = panic_message::take();
        self.notify(NoticeKind::SessionPanicked { session, message });
        self.close_session(key, CloseCause::Panicked, Outcome::default());
    }

    /// Forgets the session and begins to close its sockets. `SessionClosed` and what `outcome`
    /// adds is said when they are.
    fn close_session(&mut self, key: SessionKey, cause: CloseCause, outcome: Outcome) {
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.orphan_timers.cancel(key.slot());
        self.media_timers.cancel(key.slot());
        self.connection_timers.cancel(key.slot());
        if cause != CloseCause::Panicked {
            self.say_goodbye(monotonic_now(), &mut session);
        }
        self.end_functions(monotonic_now(), key, &mut session);
        let report = report_of(&session);
        timeouts::observe_quality(self.end.counters(), &report.legs);
        let ticket = self.closings.open(Outcome {
            session: Some((cause, report)),
            ..outcome
        });
        let [a, b] = session.sockets;
        for socket in a.into_iter().chain(b).flatten() {
            if self.tier.close(socket, ticket) {
                self.closings.expect_one(ticket);
            }
        }
        self.arrive(ticket);
    }

    /// One of the things that `ticket` waits for has come.
    fn arrive(&mut self, ticket: CloseTicket) {
        let mut next = Some(ticket);
        while let Some(ticket) = next.take() {
            let Some(outcome) = self.closings.arrive(ticket) else {
                return;
            };
            if let Some((cause, report)) = outcome.session {
                // One that is lost makes the ring ask control to resync.
                let _ = self.end.send_event(&Event::SessionClosed { cause, report });
            }
            if let Some(correlation) = outcome.answer {
                self.answer(correlation, Ok(()));
            }
            next = outcome.part_of;
        }
    }

    fn answer(&mut self, correlation: Correlation, result: Result<(), Refusal>) {
        if result.is_err() {
            self.end.counters().add(Counter::CommandsRefused, 1);
        }
        // One that is lost makes the ring ask control to resync.
        let _ = self.end.send_event(&Event::CommandDone {
            correlation,
            result,
        });
    }

    fn notify(&self, kind: NoticeKind) {
        self.shared.notify(Notice {
            worker: self.end.worker(),
            kind,
        });
    }
}

/// Runs a session's code; a panic stays inside.
#[inline]
fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    // A session that panicked is only asked for its figures afterwards, which are plain numbers.
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| Panicked)
}

fn report_of(session: &Session) -> SessionReport {
    SessionReport {
        session: session.id,
        legs: session.media.report(),
    }
}

#[cfg(test)]
mod tests;
