//! What operators ask of the call thread.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::{mpsc, oneshot};
use trunkline_edge_api::{Counter, MonoTime};

use super::{CallThread, EdgeState};
use crate::edge::{PortPool, Ticket};
use crate::operator::{
    ActFailed, CallThreadStatus, CallsReport, FOLLOWED_MAX, Following, InterfaceStatus,
    OperatorRequest, WorkerStatus,
};
use crate::switch::{ActionError, CallEvent, CallId, Told};

/// Places for those who follow a call: fewer than the operator socket or HTTP have connections, so
/// that followers never keep others out.
const FOLLOWERS_MAX: usize = 12;

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

/// Those who follow calls, by the call's id. A place is free again when its owner has gone or the
/// call is over.
#[derive(Default)]
pub(super) struct Followers {
    by_call: HashMap<CallId, Vec<mpsc::Sender<CallEvent>>>,
}

impl Followers {
    /// A place for one more; `None` when all are taken.
    fn admit(&mut self, call_id: &str) -> Option<mpsc::Receiver<CallEvent>> {
        self.by_call.retain(|_, followers| {
            followers.retain(|follower| !follower.is_closed());
            !followers.is_empty()
        });
        if self.by_call.values().map(Vec::len).sum::<usize>() >= FOLLOWERS_MAX {
            return None;
        }
        let (follower, events) = mpsc::channel(FOLLOWED_MAX);
        let followers = self.by_call.entry(call_id.to_owned()).or_default();
        followers.push(follower);
        Some(events)
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::Event(call_id, event) => {
                for follower in self.by_call.get(&call_id).into_iter().flatten() {
                    // Who is behind misses it, and sees that by the number of the next.
                    let _ = follower.try_send(event.clone());
                }
            }
            // Their channels end.
            Told::Over(call_id) => drop(self.by_call.remove(&call_id)),
        }
    }
}

fn failed(error: &ActionError) -> ActFailed {
    let text = error.to_string();
    if error.is_not_found() {
        ActFailed::NotFound(text)
    } else {
        ActFailed::Refused(text)
    }
}

impl CallThread {
    pub(super) fn answer_operator(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        request: OperatorRequest,
    ) {
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
                    self.actions_asked.answer(ticket, Err(failed(&error)));
                }
            }
            OperatorRequest::Trace { id, reply } => {
                let _ = reply.send(self.switch.traced(&id));
            }
            OperatorRequest::Trunks(reply) => {
                let _ = reply.send(self.switch.trunks(now));
            }
            OperatorRequest::Conferences(reply) => {
                let _ = reply.send(self.switch.conferences(now));
            }
            OperatorRequest::Confer {
                tenant,
                name,
                action,
                reply,
            } => {
                let ticket = self.actions_asked.admit(reply);
                let which = (tenant.as_deref(), name.as_str());
                if let Err(error) = self.switch.confer(now, unix_ms, which, action, ticket) {
                    self.actions_asked.answer(ticket, Err(failed(&error)));
                }
            }
            OperatorRequest::Events { call_id, reply } => {
                let report = self.switch.events(&call_id);
                let _ = reply.send(report.map_err(|error| failed(&error)));
            }
            OperatorRequest::Follow { call_id, reply } => {
                let _ = reply.send(self.follow(&call_id));
            }
        }
    }

    fn follow(&mut self, call_id: &str) -> Result<Following, ActFailed> {
        // What is in the report is not told again.
        self.tell_followers();
        let report = self.switch.events(call_id).map_err(|e| failed(&e))?;
        let events = match report.is_over {
            true => mpsc::channel(1).1,
            false => self.followers.admit(call_id).ok_or_else(|| {
                let text = format!("{FOLLOWERS_MAX} calls are followed already; try again later");
                ActFailed::Refused(text)
            })?,
        };
        Ok(Following { report, events })
    }

    /// Hands on what has happened in calls.
    pub(super) fn tell_followers(&mut self) {
        while let Some(told) = self.switch.poll_told() {
            self.followers.tell(told);
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
