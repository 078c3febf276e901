//! OPTIONS to destinations and REGISTER to registrars: sending, and what the responses mean.

use bytes::Bytes;
use sipx_sip::{HeaderName, Headers, Method, Response, Uri};
use trunkline_edge_api::MonoTime;
use trunkline_sip::agent::{ClientRequest, ClientRequestId, NameAddr, RequestSequence};
use trunkline_sip::flow::Flow;
use trunkline_sip::identity;

use super::{Asked, Switch, TrunkState, Trunks};
use crate::site::Name;
use crate::trunk::health::{HealthAction, HealthState};
use crate::trunk::registration::{RegisterOutcome, RegistrationState};

impl Trunks {
    /// The way to a destination, when its address is known and a socket of ours reaches it.
    pub(super) fn flow_to(&self, state: &TrunkState, host: usize) -> Option<Flow> {
        let hop = state.hosts.get(host)?.names.hop()?;
        let flow = self.ends.flow_to(hop)?;
        // The connection that we registered on is the one that the registrar knows us by.
        let registered = state.registration.as_ref().and_then(|it| it.flow.as_ref());
        match registered {
            Some(known) if known.remote == flow.remote && known.kind == flow.kind => {
                Some(known.clone())
            }
            _ => Some(flow),
        }
    }
}

impl Switch {
    /// Sends every OPTIONS and REGISTER that is due.
    pub(super) fn ask_trunks(&mut self, now: MonoTime) {
        let names: Vec<Name> = self.trunks.states.keys().cloned().collect();
        for name in names {
            let count = self.trunks.states.get(&name).map_or(0, |it| it.hosts.len());
            for host in 0..count {
                self.ask_health(now, &name, host);
            }
            self.ask_registration(now, &name);
        }
    }

    fn ask_health(&mut self, now: MonoTime, name: &Name, host: usize) {
        let Some(state) = self.trunks.states.get_mut(name) else {
            return;
        };
        let Some(it) = state.hosts.get_mut(host) else {
            return;
        };
        let before = it.health.state();
        let action = it.health.handle_timeout(now);
        report_change(name, &it.destination.host, before, it.health.state());
        if before != HealthState::Down && it.health.state() == HealthState::Down {
            it.names.rotate();
        }
        let Some(HealthAction::Ask) = action else {
            return;
        };
        let target = it.names.uri.clone();
        let sent = self.send_options(now, name, host, target);
        if let (None, Some(state)) = (sent, self.trunks.states.get_mut(name))
            && let Some(it) = state.hosts.get_mut(host)
        {
            it.health.handle_failure(now);
        }
    }

    fn send_options(&mut self, now: MonoTime, name: &Name, host: usize, target: Uri) -> Option<()> {
        let state = self.trunks.states.get(name)?;
        let flow = self.trunks.flow_to(state, host)?;
        let user = state.route.settings.login.as_ref();
        let user = user.map_or("trunkline", |login| login.user.as_str());
        let request = ClientRequest {
            method: Method::Options,
            from: NameAddr {
                display_name: None,
                uri: identity::user_at(user, &flow.local_host())?,
            },
            to: NameAddr {
                display_name: None,
                uri: target.clone(),
            },
            target,
            flow,
            headers: Vec::new(),
            body: Bytes::new(),
            credentials: state.credentials.clone(),
            sequence: None,
        };
        let id = self.agent.request(now, request).ok()?;
        let trunk = name.clone();
        self.trunks.asked.insert(id, Asked::Options { trunk, host });
        Some(())
    }

    fn ask_registration(&mut self, now: MonoTime, name: &Name) {
        let Some(state) = self.trunks.states.get_mut(name) else {
            return;
        };
        // Nowhere to ask yet; the name is being looked up.
        if state
            .hosts
            .first()
            .is_none_or(|host| host.names.hop().is_none())
        {
            if let Some(registration) = &mut state.registration {
                registration.machine.handle_not_sent(now);
            }
            return;
        }
        let Some(registration) = &mut state.registration else {
            return;
        };
        let Some(expires_secs) = registration.machine.handle_timeout(now) else {
            return;
        };
        if self.send_register(now, name, expires_secs).is_none() {
            let outcome = RegisterOutcome::Refused {
                status: 503,
                retry_after_secs: None,
            };
            self.registered(now, name, outcome);
        }
    }

    fn send_register(&mut self, now: MonoTime, name: &Name, expires_secs: u32) -> Option<()> {
        let state = self.trunks.states.get(name)?;
        let settings = &state.route.settings;
        let flow = self.trunks.flow_to(state, 0)?;
        let host = state.hosts.first()?;
        let user = &settings.login.as_ref()?.user;
        let domain = settings.from_domain.as_ref();
        let domain = domain.unwrap_or(&host.destination.host);
        let own = NameAddr {
            display_name: None,
            uri: identity::user_at(user, domain)?,
        };
        let expires = sipx_sip::Header::build(HeaderName::Expires, expires_secs.to_string());
        let request = ClientRequest {
            method: Method::Register,
            target: host.names.uri.clone(),
            flow: flow.clone(),
            from: own.clone(),
            to: own,
            headers: expires.into_iter().collect(),
            body: Bytes::new(),
            credentials: state.credentials.clone(),
            sequence: state.registration.as_ref()?.sequence.clone(),
        };
        let id = self.agent.request(now, request).ok()?;
        let trunk = name.clone();
        self.trunks.asked.insert(id, Asked::Register { trunk });
        let state = self.trunks.states.get_mut(name)?;
        state.registration.as_mut()?.flow = Some(flow);
        Some(())
    }

    /// The response to a question of ours.
    pub(in crate::switch) fn handle_asked(
        &mut self,
        now: MonoTime,
        id: ClientRequestId,
        status: u16,
        response: Option<&Response>,
        sequence: RequestSequence,
    ) {
        match self.trunks.asked.remove(&id) {
            None => return,
            Some(Asked::Options { trunk, host }) => {
                let state = self.trunks.states.get_mut(&trunk);
                if let Some(it) = state.and_then(|state| state.hosts.get_mut(host)) {
                    let before = it.health.state();
                    match response {
                        Some(_) => it.health.handle_answer(now, status),
                        None => it.health.handle_lost(now),
                    }
                    report_change(&trunk, &it.destination.host, before, it.health.state());
                }
            }
            Some(Asked::Register { trunk }) => {
                let asked_secs = self.asked_secs(&trunk);
                let state = self.trunks.states.get_mut(&trunk);
                if let Some(registration) = state.and_then(|state| state.registration.as_mut()) {
                    registration.sequence = Some(sequence);
                    let contact = registration.flow.as_ref().map(Flow::sent_by);
                    let contact = contact.unwrap_or_default();
                    let outcome = outcome_of(status, response, &contact, asked_secs);
                    self.registered(now, &trunk, outcome);
                }
            }
        }
        self.trunks.reschedule();
    }

    fn asked_secs(&self, trunk: &Name) -> u32 {
        let state = self.trunks.states.get(trunk);
        let register = state.and_then(|state| state.route.settings.register);
        register.map_or(0, |register| register.expires_secs)
    }

    fn registered(&mut self, now: MonoTime, trunk: &Name, outcome: RegisterOutcome) {
        let draw = self.entropy.next_u64();
        let state = self.trunks.states.get_mut(trunk);
        let Some(registration) = state.and_then(|state| state.registration.as_mut()) else {
            return;
        };
        let before = registration.machine.state();
        registration.machine.handle_outcome(now, outcome, draw);
        let after = registration.machine.state();
        let status = registration.machine.last_status();
        match (before, after) {
            (RegistrationState::Registered, RegistrationState::Registered) => {}
            (_, RegistrationState::Registered) => {
                tracing::info!(trunk = trunk.as_str(), "registered");
            }
            (_, RegistrationState::Failed) => {
                tracing::warn!(trunk = trunk.as_str(), status, "not registered");
            }
            (_, RegistrationState::Trying) => {}
        }
    }
}

fn report_change(trunk: &Name, host: &str, before: HealthState, after: HealthState) {
    let trunk = trunk.as_str();
    match (before, after) {
        (before, after) if before == after => {}
        (_, HealthState::Down) => tracing::warn!(trunk, host, "a trunk's destination is down"),
        (_, after) => tracing::info!(trunk, host, state = after.as_str(), "a trunk's destination"),
    }
}

fn outcome_of(
    status: u16,
    response: Option<&Response>,
    contact: &str,
    asked_secs: u32,
) -> RegisterOutcome {
    let headers = response.map(|response| &response.headers);
    let number = |name| headers.and_then(|headers| number_in(headers, name));
    match status {
        200..=299 => {
            let ours = headers.and_then(|headers| contact_expires(headers, contact));
            let expires = ours.or_else(|| number(HeaderName::Expires));
            RegisterOutcome::Accepted {
                expires_secs: expires.unwrap_or(asked_secs),
            }
        }
        423 => RegisterOutcome::TooBrief {
            min_expires_secs: number(HeaderName::MinExpires).unwrap_or(0),
        },
        _ => RegisterOutcome::Refused {
            status,
            retry_after_secs: number(HeaderName::RetryAfter),
        },
    }
}

/// The number that a header begins with.
pub(super) fn number_in(headers: &Headers, name: HeaderName) -> Option<u32> {
    let row = headers.get(&name)?;
    let value = row.value();
    let text = std::str::from_utf8(&value).ok()?.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// For how long the binding of our own contact is good (RFC 3261 §10.2.4): others of the same
/// account may be listed beside it.
fn contact_expires(headers: &Headers, contact: &str) -> Option<u32> {
    for row in headers.get_all(&HeaderName::Contact) {
        let value = row.value();
        let text = String::from_utf8_lossy(&value).to_ascii_lowercase();
        for binding in text.split(',').filter(|binding| binding.contains(contact)) {
            let expires = binding.split(';').find_map(|part| {
                let value = part.trim().strip_prefix("expires")?.trim_start();
                value
                    .strip_prefix('=')?
                    .trim()
                    .trim_matches('"')
                    .parse()
                    .ok()
            });
            if expires.is_some() {
                return expires;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use sipx_sip::Header;

    use super::*;

    fn response(rows: &[(HeaderName, &'static str)]) -> Response {
        let mut response = Response::new(sipx_sip::StatusCode::new(200).expect("valid"), "OK");
        for (name, value) in rows {
            response
                .headers
                .push(Header::build(name.clone(), *value).expect("valid"));
        }
        response
    }

    #[test]
    fn our_own_contact_says_how_long_we_are_registered() {
        let ours = "192.0.2.1:5060";
        for (rows, secs) in [
            (
                vec![(
                    HeaderName::Contact,
                    "<sip:a@198.51.100.7>;expires=30, <sip:a@192.0.2.1:5060>;q=1;expires=300",
                )],
                300,
            ),
            (
                vec![
                    (HeaderName::Contact, "<sip:a@192.0.2.1:5060>"),
                    (HeaderName::Expires, "120"),
                ],
                120,
            ),
            (vec![], 600),
        ] {
            let response = response(&rows);
            let outcome = outcome_of(200, Some(&response), ours, 600);
            assert_eq!(outcome, RegisterOutcome::Accepted { expires_secs: secs });
        }
    }

    #[test]
    fn refusals_bring_what_the_registrar_asks_for() {
        let brief = response(&[(HeaderName::MinExpires, "1800")]);
        assert_eq!(
            outcome_of(423, Some(&brief), "", 60),
            RegisterOutcome::TooBrief {
                min_expires_secs: 1_800
            }
        );
        let busy = response(&[(HeaderName::RetryAfter, "120 (maintenance)")]);
        assert_eq!(
            outcome_of(503, Some(&busy), "", 60),
            RegisterOutcome::Refused {
                status: 503,
                retry_after_secs: Some(120)
            }
        );
    }
}
