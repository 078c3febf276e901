//! Session timers: RFC 4028, in both roles.
//!
//! ```text
//!   INVITE, Session-Expires: 1800          ─▶
//!   422, Min-SE: 3600                      ◀─   sent again with 3600
//!   200, Session-Expires: 3600;refresher=… ◀─
//!       … half the time later, by the refresher: UPDATE without a description, where the peer
//!       takes that, else a re-INVITE with the one that stands
//!   BYE                                    ─▶   when no refresh came in time: the peer is gone
//! ```
//!
//! A peer that does not know the extension has no timer: calls without media end by themselves.

use std::time::Duration;

use bytes::Bytes;
use sipx_sip::headers::Supported;
use sipx_sip::session::{self, Answer, MinSe, Refresher, Session, SessionExpires};
use sipx_sip::{Header, HeaderName, Headers, Request, Response};
use trunkline_edge_api::MonoTime;

use super::{Leg, Negotiation, State};
use crate::agent::core::{Core, Key, LegTimer, Purpose, after};
use crate::agent::{AgentConfig, AgentEvent, EndedBy};
use crate::message::{Body, header};
use crate::timer_queue::TimerHandle;

/// Longest interval that a peer may talk us into: a dead call is not billed for longer.
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// How long before the end the side gives up that does not refresh, so that its BYE still finds
/// the path open: RFC 4028 §10.
const FAREWELL_MAX: Duration = Duration::from_secs(32);

/// Wait before a refresh that met an exchange of offers is tried again.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Shortest wait before a refresh that failed is tried again.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(5);

/// The timer of a session.
#[derive(Debug)]
pub(super) struct SessionTimer {
    interval: Duration,
    we_refresh: bool,
    /// When the session is over unless it is refreshed.
    deadline: MonoTime,
    timer: TimerHandle,
}

/// Terms on which a 2xx of ours runs the timer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    session: Session,
    requires: bool,
}

/// What a request says of session timers. `Err` has the status of the refusal and, with 422, the
/// least interval.
pub(crate) fn terms_of(
    config: &AgentConfig,
    headers: &Headers,
) -> Result<Option<Terms>, (u16, Option<u64>)> {
    let asked = match headers.typed::<SessionExpires>() {
        None => None,
        Some(Ok(asked)) => Some(asked),
        Some(Err(_)) => return Err((400, None)),
    };
    let min_se = match headers.typed::<MinSe>() {
        Some(Ok(MinSe(min_se))) => Some(min_se),
        _ => None,
    };
    let supports = headers
        .typed_all::<Supported>()
        .any(|supported| supported.is_ok_and(|list| list.contains(session::OPTION_TAG)));
    let wanted = Duration::from_secs(u64::from(config.session_expires_secs));
    if asked.is_none() && wanted.is_zero() {
        return Ok(None);
    }
    let floor = Duration::from_secs(u64::from(config.min_se_secs));
    match session::answer(supports, asked, min_se, floor) {
        Answer::None => Ok(None),
        Answer::TooBrief(floor) => Err((422, Some(floor.as_secs()))),
        Answer::Accept(accepted) => {
            let interval = match asked {
                Some(_) => accepted.interval,
                None => wanted.max(min_se.unwrap_or_default()),
            };
            Ok(Some(Terms {
                session: Session {
                    interval: interval.clamp(session::ABSOLUTE_MIN_INTERVAL, INTERVAL_MAX),
                    we_refresh: accepted.refresher == Refresher::Uas,
                },
                requires: accepted.require && supports,
            }))
        }
    }
}

/// `Session-Expires` of an INVITE that begins a session.
pub(super) fn first_rows(config: &AgentConfig) -> Option<Header> {
    let secs = config.session_expires_secs;
    (secs > 0).then(|| header(HeaderName::SessionExpires, secs.to_string()))
}

/// Raises the interval of `request` to what a 422 asks for; `None` when it asks for nothing that
/// helps.
pub(super) fn raise_interval(request: &mut Request, response: &Response) -> Option<()> {
    let least = match response.headers.typed::<MinSe>() {
        Some(Ok(MinSe(least))) => least,
        _ => return None,
    };
    let asked = match request.headers.typed::<SessionExpires>() {
        Some(Ok(asked)) => asked,
        _ => return None,
    };
    if least <= asked.interval || least > INTERVAL_MAX {
        return None;
    }
    let raised = SessionExpires {
        interval: least,
        refresher: asked.refresher,
    };
    let headers = &mut request.headers;
    headers.remove_all(&HeaderName::SessionExpires);
    headers.remove_all(&HeaderName::MinSe);
    let index = headers.len().saturating_sub(1);
    let secs = least.as_secs().to_string();
    headers.insert(index, header(HeaderName::MinSe, secs));
    headers.insert(
        index,
        header(HeaderName::SessionExpires, raised.to_string()),
    );
    Some(())
}

impl Leg {
    /// The rows of a 2xx of ours to an INVITE or UPDATE, and the timer with them. A request that
    /// says nothing readable was refused before.
    pub(super) fn accept_terms(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        request: &Headers,
    ) -> Vec<Header> {
        let Ok(Some(terms)) = terms_of(&core.config, request) else {
            self.stop_session(core);
            return Vec::new();
        };
        self.run_session(core, now, terms.session);
        let agreed = SessionExpires {
            interval: terms.session.interval,
            refresher: Some(match terms.session.we_refresh {
                true => Refresher::Uas,
                false => Refresher::Uac,
            }),
        };
        let mut rows = vec![header(HeaderName::SessionExpires, agreed.to_string())];
        if terms.requires {
            rows.push(header(HeaderName::Require, session::OPTION_TAG));
        }
        rows
    }

    /// What a 2xx to our INVITE, re-INVITE or UPDATE says.
    pub(super) fn adopt_terms(&mut self, core: &mut Core, now: MonoTime, response: &Response) {
        let agreed = match response.headers.typed::<SessionExpires>() {
            Some(Ok(agreed)) => Some(agreed),
            _ => None,
        };
        match session::adopt(agreed, None) {
            Some(agreed) => self.run_session(core, now, agreed),
            None => self.stop_session(core),
        }
    }

    /// The rows of a re-INVITE or UPDATE of ours.
    pub(super) fn session_rows(&self) -> Option<Header> {
        let session = self.session.as_deref()?;
        let asked = SessionExpires {
            interval: session.interval,
            refresher: Some(match session.we_refresh {
                true => Refresher::Uac,
                false => Refresher::Uas,
            }),
        };
        Some(header(HeaderName::SessionExpires, asked.to_string()))
    }

    fn run_session(&mut self, core: &mut Core, now: MonoTime, session: Session) {
        self.stop_session(core);
        let interval = session.interval.min(INTERVAL_MAX);
        let farewell = FAREWELL_MAX.min(interval / 3);
        let deadline = after(now, interval.saturating_sub(farewell));
        let next = match session.we_refresh {
            true => after(now, interval / 2),
            false => deadline,
        };
        self.session = Some(Box::new(SessionTimer {
            interval,
            we_refresh: session.we_refresh,
            deadline,
            timer: core.set_leg_timer(next, self.id, LegTimer::Session),
        }));
    }

    pub(super) fn stop_session(&mut self, core: &mut Core) {
        if let Some(session) = self.session.take() {
            core.cancel_timer(session.timer);
        }
    }

    // ---- refreshing ---------------------------------------------------------------------------

    pub(super) fn session_due(&mut self, core: &mut Core, now: MonoTime) {
        let Some(session) = self.session.as_deref_mut() else {
            return;
        };
        if now >= session.deadline {
            self.session = None;
            let reason = Bytes::from_static(b"SIP;cause=408;text=\"Session expired\"");
            self.send_bye(core, now, Some(reason));
            return self.end(core, now, EndedBy::SessionExpired, None);
        }
        let is_idle = matches!(self.state, State::Confirmed(Negotiation::Idle));
        let next = match is_idle {
            true => session.deadline,
            false => after(now, BUSY_WAIT).min(session.deadline),
        };
        session.timer = core.set_leg_timer(next, self.id, LegTimer::Session);
        if is_idle {
            self.refresh_session(core, now);
        }
    }

    fn refresh_session(&mut self, core: &mut Core, now: MonoTime) {
        if self.allows_update {
            let dialog = self.dialog.clone();
            self.send_update(core, now, &dialog, &Bytes::new(), Purpose::Refresh);
        } else {
            let offer = self.local_sdp.clone();
            let invite = self.send_offer(core, now, &offer);
            self.state = State::Confirmed(Negotiation::Refreshing { invite });
        }
    }

    /// The final response to our UPDATE.
    pub(super) fn refreshed_by_update(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        response: &Response,
    ) {
        if self.is_terminated() {
            return;
        }
        let status = response.status.code();
        if response.status.is_success() {
            self.dialog.refresh_target(&response.headers);
            self.adopt_terms(core, now, response);
        } else if matches!(status, 405 | 501) {
            self.allows_update = false;
            self.session_due_again(core, now, Duration::ZERO);
        } else {
            self.refresh_failed(core, now, status);
        }
    }

    /// The final response to our re-INVITE. Whether it was one of these.
    pub(super) fn refreshed_by_invite(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: &Response,
    ) -> bool {
        match &self.state {
            State::Confirmed(Negotiation::Refreshing { invite }) if invite == key => {}
            _ => return false,
        }
        if response.status.is_provisional() {
            return true;
        }
        self.state = State::Confirmed(Negotiation::Idle);
        if !response.status.is_success() {
            self.refresh_failed(core, now, response.status.code());
            return true;
        }
        self.dialog.refresh_target(&response.headers);
        self.acknowledge_reinvite(core, key, response);
        self.adopt_terms(core, now, response);
        // Our description is the one the peer knows; its own may be new.
        if let Some(sdp) = Body::sdp_of(&response.headers, response.body())
            && self.is_news(&sdp)
        {
            core.emit(AgentEvent::AnswerInAck { leg: self.id, sdp });
        }
        true
    }

    /// RFC 4028 §10: a peer that no longer answers, or no longer knows the dialog, is gone. Any
    /// other refusal leaves the rest of the interval to try again.
    pub(super) fn refresh_failed(&mut self, core: &mut Core, now: MonoTime, status: u16) {
        match status {
            _ if self.is_terminated() => {}
            408 | 481 => {
                self.send_bye(core, now, None);
                self.end(core, now, EndedBy::DialogLost, None);
            }
            491 => self.session_due_again(core, now, BUSY_WAIT),
            _ => {
                let left = match self.session.as_deref() {
                    Some(session) => Duration::from_nanos(session.deadline.nanos_since(now)),
                    None => return,
                };
                self.session_due_again(core, now, (left / 2).max(RETRY_WAIT_MIN));
            }
        }
    }

    fn session_due_again(&mut self, core: &mut Core, now: MonoTime, wait: Duration) {
        if let Some(session) = self.session.as_deref_mut() {
            core.cancel_timer(session.timer);
            let next = after(now, wait).min(session.deadline);
            session.timer = core.set_leg_timer(next, self.id, LegTimer::Session);
        }
    }

    // ---- what the peer described --------------------------------------------------------------

    /// Notes a description of the peer, and says whether it is another than the last.
    pub(super) fn is_news(&mut self, sdp: &[u8]) -> bool {
        use std::hash::Hasher;
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(sdp);
        let hash = hasher.finish();
        std::mem::replace(&mut self.remote_hash, hash) != hash
    }
}
