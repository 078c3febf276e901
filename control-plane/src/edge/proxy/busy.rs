//! Workers that are past their capacity.
//!
//! A worker that never finds time to wait refuses sessions it does not have yet
//! ([`Refusal::WorkerBusy`]). Such a session tries another worker, unless something ties it to this
//! one; a worker that has refused is the last that is asked for a moment.

use trunkline_edge_api::{LegIndex, MonoTime, Refusal, SessionId};

use super::{EdgeProxy, LegState, Worker};

/// For how long a worker that refused counts as busy, milliseconds. It says so after some tenths
/// of a second without a pause, and takes it back within as much.
const BUSY_MS: u64 = 1_000;

impl Worker {
    pub(super) fn is_busy(&self, now: MonoTime) -> bool {
        now < self.busy_until
    }
}

impl EdgeProxy {
    /// A worker has refused one leg of a session, or taken the other: decides once both are
    /// answered. Only then is it known that the worker has nothing of the session.
    pub(super) fn settle_busy(&mut self, now: MonoTime, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if session.is_opening() {
            return;
        }
        let busy = session.worker;
        let is_refused = |leg: &super::Leg| leg.state == LegState::Busy;
        let has_nothing = session.legs.iter().all(is_refused);
        let [first, second] = session.legs.each_ref().map(|leg| leg.local.rtp);
        if let Some(worker) = self.workers.get_mut(busy) {
            worker.busy_until = now.plus_millis(BUSY_MS);
        }
        if !has_nothing {
            return self.refuse(id, Refusal::WorkerBusy);
        }
        let Ok((index, taken)) = self.take_ports(now, [first.ip(), second.ip()]) else {
            return self.refuse(id, Refusal::WorkerBusy);
        };
        if self.workers[index].is_busy(now) {
            self.give_back(index, taken);
            return self.refuse(id, Refusal::WorkerBusy);
        }
        self.give_back(busy, [first, second]);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.worker = index;
            for (leg, rtp) in session.legs.iter_mut().zip(taken) {
                leg.local.rtp = rtp;
            }
        }
        for leg in LegIndex::ALL {
            self.send_open(id, leg, 0);
        }
    }

    fn give_back(&mut self, index: usize, ports: [std::net::SocketAddr; 2]) {
        if let Some(worker) = self.workers.get_mut(index) {
            for rtp in ports {
                worker.ports.give_back(rtp);
            }
        }
    }
}
