//! What sessions do because time has passed: RTCP of their own, silence that is told, the farewell.
//!
//! Each session has one timer, armed for what it waits for next. Packets only move that later, so
//! they leave the timer alone; when it runs out too early it is armed again.

use trunkline_edge_api::{Counter, DropReason, Histogram, LegReport, MonoTime};
use trunkline_media::session::TRANSMIT_LEN_MAX;
use trunkline_media::{MediaKind, Transmit};
use trunkline_ring::CounterCells;

use super::{Worker, guarded};
use crate::publish;
use crate::session_table::{Session, SessionKey};

/// Packets that a session makes at once: a report for each leg.
const OWN_PACKETS_MAX: usize = 4;

/// What a session can have to tell at once: a start and a silence for each leg, and what the
/// functions of both keep.
const EVENTS_MAX: usize = 20;

impl Worker {
    /// Arms the session's timer for what it waits for, after a command that may have changed it.
    pub(super) fn arm_media_timer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match session.media.poll_timeout() {
            Some(deadline) => self.media_timers.arm(key.slot(), deadline),
            None => self.media_timers.cancel(key.slot()),
        }
    }

    pub(super) fn expire_media_timers(&mut self, now: MonoTime) {
        while let Some(slot) = self.media_timers.poll_expired(now) {
            let Some((key, _)) = self.sessions.in_slot(slot) else {
                continue;
            };
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let (tier, cells) = (&mut self.tier, self.end.counters());
            let judged = guarded(|| {
                #[cfg(test)]
                super::tests::panic_when_timed(session.id);
                session.media.handle_timeout(now);
                transmit_own(cells, session, now, |session, transmit, packet| {
                    tier.send_now(session.socket_of(transmit)?, transmit.dest, packet)
                });
            });
            if judged.is_err() {
                self.close_panicked(key);
                continue;
            }
            self.tell_all(key);
            self.arm_media_timer(key);
        }
    }

    /// The session's last words: BYE to both peers, while its sockets are still open.
    pub(super) fn say_goodbye(&mut self, now: MonoTime, session: &mut Session) {
        let (tier, cells) = (&mut self.tier, self.end.counters());
        // One that panics here is as gone as it would have been.
        let told = guarded(|| {
            session.media.handle_close();
            transmit_own(cells, session, now, |session, transmit, packet| {
                tier.send_now(session.socket_of(transmit)?, transmit.dest, packet)
            });
            std::array::from_fn::<_, EVENTS_MAX, _>(|_| session.media.poll_event())
        });
        for event in told.into_iter().flatten().flatten() {
            self.tell_of(session.id, event);
        }
    }

    pub(super) fn tell_all(&mut self, key: SessionKey) {
        for _ in 0..EVENTS_MAX {
            let event = self
                .sessions
                .get_mut(key)
                .and_then(|session| session.media.poll_event());
            match event {
                Some(event) => self.tell(key, event),
                None => return,
            }
        }
    }
}

/// Has `send` send what the session itself has to say.
fn transmit_own(
    cells: &CounterCells,
    session: &mut Session,
    now: MonoTime,
    mut send: impl FnMut(&Session, &Transmit, &[u8]) -> Result<(), DropReason>,
) {
    let mut packet = [0; TRANSMIT_LEN_MAX];
    for _ in 0..OWN_PACKETS_MAX {
        let Some(transmit) = session.media.poll_transmit(now, &mut packet) else {
            return;
        };
        let bytes = packet.get(..transmit.len).unwrap_or_default();
        match send(session, &transmit, bytes) {
            Ok(()) => {
                publish::count_sent(cells, MediaKind::Rtcp, transmit.len);
                cells.add(Counter::RtcpGenerated, 1);
            }
            Err(reason) => {
                publish::count_dropped(cells, reason);
                session.media.handle_own_send_failure(&transmit);
            }
        }
    }
}

/// What a closed session's legs were like, for the distributions.
pub(super) fn observe_quality(cells: &CounterCells, legs: &[LegReport]) {
    for leg in legs.iter().filter(|leg| leg.rx_packets != 0) {
        cells.observe(Histogram::JitterMicros, u64::from(leg.jitter_micros));
        cells.observe(Histogram::MosCenti, u64::from(leg.mos_centi));
    }
}
