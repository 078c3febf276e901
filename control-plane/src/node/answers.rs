//! What operators ask of the call thread.

use tokio::sync::oneshot;
use trunkline_edge_api::{Counter, MonoTime};

use super::{CallThread, EdgeState};
use crate::edge::PortPool;
use crate::operator::{
    CallThreadStatus, CallsReport, InterfaceStatus, OperatorRequest, WorkerStatus,
};

/// How long the edge may take to say what its calls are like, milliseconds, before they are listed
/// without. A worker answers within a duty cycle; only one that is away or stuck does not.
const FIGURES_PATIENCE_MS: u64 = 250;

/// Somebody who wants the list of calls.
pub(super) struct CallsAsked {
    limit: usize,
    reply: oneshot::Sender<CallsReport>,
    pub(super) answer_at: MonoTime,
}

impl CallThread {
    pub(super) fn answer_operator(&mut self, now: MonoTime, request: OperatorRequest) {
        // A client that has gone away wants no answer.
        match request {
            OperatorRequest::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            OperatorRequest::Calls { limit, reply } => {
                self.switch.ask_for_figures(now, limit);
                self.calls_asked.push_back(CallsAsked {
                    limit,
                    reply,
                    answer_at: now.plus_millis(FIGURES_PATIENCE_MS),
                });
            }
        }
    }

    /// Lists calls for those who asked, once the edge has said what their media is like, or has
    /// had its time.
    pub(super) fn answer_calls(&mut self, now: MonoTime) {
        while let Some(asked) = self.calls_asked.front() {
            if self.switch.proxy().is_querying() && asked.answer_at > now {
                return;
            }
            let report = CallsReport {
                total: self.switch.call_count(),
                calls: self.switch.calls(now, asked.limit),
            };
            if let Some(asked) = self.calls_asked.pop_front() {
                // A client that has gone away wants no answer.
                let _ = asked.reply.send(report);
            }
        }
    }

    fn status(&self, now: MonoTime) -> CallThreadStatus {
        let mut status = CallThreadStatus {
            uptime_secs: now.nanos_since(self.started_at) / 1_000_000_000,
            listen: self.listen.clone(),
            calls_active: self.switch.call_count(),
            calls_max: self.calls_max,
            transactions_active: self.switch.transaction_count(),
            registrations_active: self.switch.registration_count(),
            edge_connected: false,
            workers: Vec::new(),
            interfaces: self.interfaces(),
            draining: self.switch.is_draining(),
        };
        if let EdgeState::Linked(link) = &self.edge {
            status.edge_connected = true;
            let pools = self.switch.proxy().port_pools();
            status.workers = link
                .ends()
                .zip(pools)
                .map(|(end, (worker, ports))| WorkerStatus {
                    worker: worker.0,
                    sessions_active: end.counter(Counter::SessionsActive),
                    ports_used: ports.iter().map(|(_, pool)| pool.used_count()).sum(),
                    ports_capacity: ports.iter().map(|(_, pool)| pool.capacity()).sum(),
                    heartbeat_age_ms: now.nanos_since(end.edge_heartbeat()) / 1_000_000,
                })
                .collect();
        }
        status
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        let pools = |address| {
            let workers = self.switch.proxy().port_pools();
            workers.filter_map(move |(_, pools)| pools.get(address))
        };
        let entries = self.media_addresses.iter();
        entries
            .map(|entry| InterfaceStatus {
                name: entry.name.clone(),
                address: entry.address,
                advertise: entry.advertise,
                ports_used: pools(entry.address).map(PortPool::used_count).sum(),
                ports_capacity: pools(entry.address).map(PortPool::capacity).sum(),
            })
            .collect()
    }
}
