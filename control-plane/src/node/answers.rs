//! What operators ask of the call thread.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use trunkline_edge_api::{Counter, MonoTime};

use super::{CallThread, EdgeState};
use crate::edge::{PortPool, Ticket};
use crate::operator::{
    ActFailed, CallThreadStatus, CallsReport, InterfaceStatus, OperatorRequest, WorkerStatus,
};
use crate::switch::ActionError;

/// How long the edge may take to say what its calls are like, milliseconds, before they are listed
/// without. A worker answers within a duty cycle; only one that is away or stuck does not.
const FIGURES_PATIENCE_MS: u64 = 250;

/// Somebody who wants the list of calls.
pub(super) struct CallsAsked {
    limit: usize,
    reply: oneshot::Sender<CallsReport>,
    pub(super) answer_at: MonoTime,
}

/// Those who wait for what the edge says to an action. Who has gone away is forgotten with the
/// next that comes, so there are no more than the operator socket and HTTP have connections.
#[derive(Default)]
pub(super) struct ActionsAsked {
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<(), ActFailed>>>,
    last: u64,
}

impl ActionsAsked {
    fn admit(&mut self, reply: oneshot::Sender<Result<(), ActFailed>>) -> Ticket {
        self.waiting.retain(|_, reply| !reply.is_closed());
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, reply);
        ticket
    }

    fn answer(&mut self, ticket: Ticket, result: Result<(), ActFailed>) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            // A client that has gone away wants no answer.
            let _ = reply.send(result);
        }
    }
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
            OperatorRequest::Act {
                call_id,
                action,
                reply,
            } => {
                let ticket = self.actions_asked.admit(reply);
                if let Err(error) = self.switch.act(now, &call_id, action, ticket) {
                    let text = error.to_string();
                    let failed = match error {
                        ActionError::NoSuchCall(_) => ActFailed::NoSuchCall(text),
                        _ => ActFailed::Refused(text),
                    };
                    self.actions_asked.answer(ticket, Err(failed));
                }
            }
        }
    }

    /// Tells those who asked what the edge said.
    pub(super) fn answer_actions(&mut self) {
        while let Some((ticket, result)) = self.switch.poll_outcome() {
            let result = result.map_err(|refusal| ActFailed::Refused(refusal.to_string()));
            self.actions_asked.answer(ticket, result);
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
