//! REFER inside a session, both ways: RFC 3515 with `Refer-Sub` (RFC 4488), and of RFC 6665 what
//! its implicit subscription needs.
//!
//! ```text
//!   REFER   ─▶ Event::Refer
//!   202     ◀─ accept_refer()
//!   NOTIFY  ◀─                   SIP/2.0 100 Trying, active
//!   NOTIFY  ◀─ notify_refer()    SIP/2.0 200 OK, terminated;reason=noresource
//! ```
//!
//! One REFER of each side is open on a leg at a time; a second one gets 491. NOTIFYs leave one by
//! one, for on UDP they may overtake each other; what comes in between is told by the last. The
//! subscription ends with the leg: whoever hangs up no longer waits for news.

use std::time::Duration;

use bytes::Bytes;
use sipx_sip::event::{Reason, State as SubscriptionState, Subscription};
use sipx_sip::headers::{ContentType, Expires};
use sipx_sip::{HeaderName, Headers, Method, Request, Response};
use trunkline_edge_api::MonoTime;

use super::{Leg, State};
use crate::agent::core::{Core, Key, LegTimer, Purpose, after};
use crate::agent::{AgentEvent, LegError};
use crate::message::{header, reason_phrase, set_body_of};
use crate::replaces::{ReferTarget, ReferToRefused};
use crate::timer_queue::TimerHandle;

/// How long a subscription runs unless it ends before: longer than anything rings.
const SUBSCRIPTION: Duration = Duration::from_secs(300);

/// Longest that a peer may let us wait for its next NOTIFY.
const SUBSCRIPTION_MAX: Duration = Duration::from_secs(3_600);

/// Body type of the NOTIFYs (RFC 3420).
const SIPFRAG: &str = "message/sipfrag;version=2.0";

/// A NOTIFY's news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    status: u16,
    reason: String,
    /// Why the subscription ends with it; `None` while it goes on.
    end: Option<Reason>,
}

/// A REFER of the peer.
#[derive(Debug)]
pub(super) enum PeerRefer {
    /// It waits for the user of the agent.
    Asked {
        request: Key,
        cseq: u32,
        wants_notify: bool,
    },
    /// It was accepted and its sender hears what comes of it.
    Subscribed {
        cseq: u32,
        /// A NOTIFY has no final response yet.
        is_out: bool,
        /// What to say next.
        next: Option<News>,
        /// What was said last, for who asks again.
        last: News,
        expires_at: MonoTime,
        timer: TimerHandle,
    },
}

/// A REFER of ours.
#[derive(Debug)]
pub(super) struct OwnRefer {
    cseq: u32,
    timer: TimerHandle,
}

impl Leg {
    // ---- the peer's REFER ---------------------------------------------------------------------

    pub(super) fn handle_refer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
        cseq: u32,
    ) {
        if !matches!(self.state, State::Answered(_) | State::Confirmed(_)) {
            return self.refuse(core, now, key, 403);
        }
        let refer_to = match ReferTarget::of(&request.headers) {
            Ok(target) => target,
            Err(ReferToRefused(status)) => return self.refuse(core, now, key, status),
        };
        if self.peer_refer.is_some() {
            return self.refuse(core, now, key, 491);
        }
        let wants_notify = !is_false(&request.headers);
        self.peer_refer = Some(Box::new(PeerRefer::Asked {
            request: key.clone(),
            cseq,
            wants_notify,
        }));
        let referred_by = request.headers.value(&HeaderName::ReferredBy);
        core.emit(AgentEvent::Refer {
            leg: self.id,
            refer_to,
            referred_by: referred_by.map(|value| Bytes::copy_from_slice(&value)),
            wants_notify,
        });
    }

    /// 202, and the first NOTIFY, which RFC 3515 §2.4.4 wants at once.
    pub(crate) fn accept_refer(&mut self, core: &mut Core, now: MonoTime) -> Result<(), LegError> {
        let (request, cseq, wants_notify) = self.asked()?;
        self.peer_refer = None;
        let Some(mut response) = core.response(&request, 202, None, self.dialog.local_tag) else {
            return Err(LegError::WrongState);
        };
        let headers = &mut response.headers;
        headers.push(header(HeaderName::Contact, self.dialog.contact.clone()));
        if !wants_notify {
            headers.push(header(HeaderName::ReferSub, "false"));
        }
        crate::message::set_body(headers, &Bytes::new());
        core.respond(now, &request, response);
        if wants_notify {
            let trying = News {
                status: 100,
                reason: reason_phrase(100).to_owned(),
                end: None,
            };
            let expires_at = after(now, SUBSCRIPTION);
            self.peer_refer = Some(Box::new(PeerRefer::Subscribed {
                cseq,
                is_out: false,
                next: Some(trying.clone()),
                last: trying,
                expires_at,
                timer: core.set_leg_timer(expires_at, self.id, LegTimer::PeerReferExpires),
            }));
            self.send_news(core, now);
        }
        Ok(())
    }

    pub(crate) fn reject_refer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
    ) -> Result<(), LegError> {
        let (request, ..) = self.asked()?;
        if !(300..=699).contains(&status) {
            return Err(LegError::Status(status));
        }
        self.peer_refer = None;
        self.refuse(core, now, &request, status);
        Ok(())
    }

    fn asked(&self) -> Result<(Key, u32, bool), LegError> {
        match self.peer_refer.as_deref() {
            Some(PeerRefer::Asked {
                request,
                cseq,
                wants_notify,
            }) => Ok((request.clone(), *cseq, *wants_notify)),
            _ => Err(LegError::WrongState),
        }
    }

    /// Tells the peer how its REFER fares. Nothing is sent when it did not ask to hear it.
    pub(crate) fn notify_refer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
        reason: Option<&str>,
        is_final: bool,
    ) -> Result<(), LegError> {
        if !(100..=699).contains(&status) {
            return Err(LegError::Status(status));
        }
        let reason = reason.unwrap_or_else(|| reason_phrase(status));
        self.tell(
            core,
            now,
            News {
                status,
                reason: reason.chars().filter(|c| !c.is_control()).collect(),
                end: is_final.then_some(Reason::NoResource),
            },
        )
    }

    fn tell(&mut self, core: &mut Core, now: MonoTime, news: News) -> Result<(), LegError> {
        match self.peer_refer.as_deref_mut() {
            Some(PeerRefer::Subscribed { next, last, .. }) => {
                // What ends the subscription is not taken back by what comes after.
                if last.end.is_none() {
                    *last = news.clone();
                    *next = Some(news);
                    self.send_news(core, now);
                }
                Ok(())
            }
            Some(PeerRefer::Asked { .. }) => Err(LegError::WrongState),
            None => Ok(()),
        }
    }

    fn send_news(&mut self, core: &mut Core, now: MonoTime) {
        let Some(PeerRefer::Subscribed {
            cseq,
            is_out,
            next,
            expires_at,
            ..
        }) = self.peer_refer.as_deref_mut()
        else {
            return;
        };
        if *is_out {
            return;
        }
        let Some(news) = next.take() else {
            return;
        };
        *is_out = true;
        let event = format!("refer;id={cseq}");
        let state = match news.end {
            Some(reason) => Subscription::terminated(reason),
            None => Subscription::active(Duration::from_nanos(expires_at.nanos_since(now))),
        };
        let body = Bytes::from(format!("SIP/2.0 {} {}\r\n", news.status, news.reason));
        let number = self.dialog.next_cseq();
        let (mut notify, flow) = self.dialog.request(Method::Notify, number, core.random());
        let headers = &mut notify.headers;
        headers.push(header(HeaderName::Contact, self.dialog.contact.clone()));
        headers.push(header(HeaderName::Event, event));
        headers.push(header(HeaderName::SubscriptionState, state.to_value()));
        headers.push(header(HeaderName::UserAgent, core.product.clone()));
        set_body_of(headers, SIPFRAG, &body);
        notify.set_body(body);
        self.send_whole(core, now, notify, flow, Purpose::Notify);
    }

    /// A NOTIFY of ours has its final response, or none (`None`). Who refuses one has no
    /// subscription any more (RFC 6665 §4.2.2).
    pub(super) fn news_arrived(&mut self, core: &mut Core, now: MonoTime, status: Option<u16>) {
        let is_wanted = status.is_some_and(|status| (200..300).contains(&status));
        let Some(PeerRefer::Subscribed {
            is_out, next, last, ..
        }) = self.peer_refer.as_deref_mut()
        else {
            return;
        };
        *is_out = false;
        let is_over = next.is_none() && last.end.is_some();
        if is_wanted && !is_over {
            self.send_news(core, now);
        } else {
            self.drop_peer_refer(core);
        }
    }

    /// The subscription has run its time.
    pub(super) fn peer_refer_expires(&mut self, core: &mut Core, now: MonoTime) {
        if let Some(PeerRefer::Subscribed { last, .. }) = self.peer_refer.as_deref() {
            let mut news = last.clone();
            news.end = Some(Reason::Timeout);
            // There is a subscription, so nothing can be wrong with telling it.
            let _ = self.tell(core, now, news);
        }
    }

    /// SUBSCRIBE inside the dialog: the peer prolongs or ends what its REFER began.
    pub(super) fn handle_subscribe(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
    ) {
        let Some(PeerRefer::Subscribed {
            cseq,
            last,
            expires_at,
            timer,
            ..
        }) = self.peer_refer.as_deref_mut()
        else {
            return self.reply(
                core,
                now,
                key,
                489,
                Some((HeaderName::AllowEvents, "refer")),
            );
        };
        if last.end.is_some() || !names_refer(&request.headers, *cseq) {
            return self.refuse(core, now, key, 481);
        }
        let asked = match request.headers.typed::<Expires>() {
            Some(Ok(Expires(secs))) => Duration::from_secs(u64::from(secs)),
            _ => SUBSCRIPTION,
        };
        let granted = asked.min(SUBSCRIPTION);
        core.cancel_timer(*timer);
        *expires_at = after(now, granted);
        *timer = core.set_leg_timer(*expires_at, self.id, LegTimer::PeerReferExpires);
        let mut news = last.clone();
        news.end = granted.is_zero().then_some(Reason::Timeout);
        let granted = granted.as_secs().to_string();
        self.reply(core, now, key, 200, Some((HeaderName::Expires, &granted)));
        let _ = self.tell(core, now, news);
    }

    fn drop_peer_refer(&mut self, core: &mut Core) {
        if let Some(PeerRefer::Subscribed { timer, .. }) = self.peer_refer.take().as_deref() {
            core.cancel_timer(*timer);
        }
    }

    // ---- ours ---------------------------------------------------------------------------------

    /// Asks the peer to call `target`.
    pub(crate) fn refer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        target: &ReferTarget,
        referred_by: Option<&[u8]>,
        wants_notify: bool,
    ) -> Result<(), LegError> {
        match &self.state {
            State::Terminated(_) => return Err(LegError::UnknownLeg),
            State::Confirmed(_) => {}
            _ => return Err(LegError::WrongState),
        }
        if self.own_refer.is_some() {
            return Err(LegError::ReferPending);
        }
        let cseq = self.dialog.next_cseq();
        let (mut refer, flow) = self.dialog.request(Method::Refer, cseq, core.random());
        let headers = &mut refer.headers;
        headers.push(header(HeaderName::Contact, self.dialog.contact.clone()));
        headers.push(header(HeaderName::ReferTo, target.to_value()));
        if let Some(referred_by) = referred_by {
            let value = Bytes::copy_from_slice(referred_by);
            headers.push(header(HeaderName::ReferredBy, value));
        }
        if !wants_notify {
            headers.push(header(HeaderName::ReferSub, "false"));
            headers.push(header(HeaderName::Supported, "norefersub"));
        }
        let at = after(now, SUBSCRIPTION);
        let timer = core.set_leg_timer(at, self.id, LegTimer::OwnReferExpires);
        self.own_refer = Some(Box::new(OwnRefer { cseq, timer }));
        self.send(core, now, refer, flow, Purpose::Refer);
        Ok(())
    }

    /// The final response to our REFER.
    pub(super) fn refer_answered(&mut self, core: &mut Core, response: &Response) {
        let status = response.status.code();
        let will_notify = response.status.is_success() && !is_false(&response.headers);
        self.end_refer_attempt(core, status, will_notify);
    }

    pub(super) fn end_refer_attempt(&mut self, core: &mut Core, status: u16, will_notify: bool) {
        if self.is_terminated() {
            return;
        }
        if !will_notify {
            self.drop_own_refer(core);
        }
        core.emit(AgentEvent::ReferAnswered {
            leg: self.id,
            status,
            will_notify,
        });
    }

    /// A new attempt of our REFER has a new number, and the subscription its name.
    pub(super) fn refer_renumbered(&mut self, cseq: u32) {
        if let Some(own) = &mut self.own_refer {
            own.cseq = cseq;
        }
    }

    pub(super) fn handle_notify(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
    ) {
        let event = request.headers.value(&HeaderName::Event);
        let is_refer = event.is_some_and(|event| event_name(&event).eq_ignore_ascii_case(b"refer"));
        if !is_refer {
            return self.reply(
                core,
                now,
                key,
                489,
                Some((HeaderName::AllowEvents, "refer")),
            );
        }
        let Some(own) = self.own_refer.as_deref_mut() else {
            return self.refuse(core, now, key, 481);
        };
        if !names_refer(&request.headers, own.cseq) {
            return self.refuse(core, now, key, 481);
        }
        let state = request
            .headers
            .value(&HeaderName::SubscriptionState)
            .and_then(|value| Subscription::parse(&value));
        let Some(state) = state else {
            return self.refuse(core, now, key, 400);
        };
        let is_sipfrag = matches!(
            request.headers.typed::<ContentType>(),
            Some(Ok(kind)) if kind.is("message", "sipfrag")
        );
        let status = is_sipfrag.then(|| sipfrag_status(request.body())).flatten();
        let is_final = state.state == SubscriptionState::Terminated;
        core.cancel_timer(own.timer);
        if is_final {
            self.own_refer = None;
        } else {
            let expires = state.expires.unwrap_or(SUBSCRIPTION).min(SUBSCRIPTION_MAX);
            let at = after(now, expires + core.config.timers.timeout());
            own.timer = core.set_leg_timer(at, self.id, LegTimer::OwnReferExpires);
        }
        self.refuse(core, now, key, 200);
        core.emit(AgentEvent::ReferProgress {
            leg: self.id,
            status,
            is_final,
        });
    }

    /// No NOTIFY for too long.
    pub(super) fn own_refer_expires(&mut self, core: &mut Core) {
        if self.own_refer.take().is_some() {
            core.emit(AgentEvent::ReferProgress {
                leg: self.id,
                status: None,
                is_final: true,
            });
        }
    }

    fn drop_own_refer(&mut self, core: &mut Core) {
        if let Some(own) = self.own_refer.take() {
            core.cancel_timer(own.timer);
        }
    }

    /// The leg ends, and with it everything that was referred on it.
    pub(super) fn drop_refers(&mut self, core: &mut Core, now: MonoTime) {
        if let Ok((request, ..)) = self.asked() {
            self.peer_refer = None;
            self.refuse(core, now, &request, 481);
        }
        self.drop_peer_refer(core);
        self.drop_own_refer(core);
    }

    /// The answer to a REFER cannot be delivered any more.
    pub(super) fn forget_refer(&mut self, key: &Key) {
        if matches!(self.asked(), Ok((request, ..)) if request == *key) {
            self.peer_refer = None;
        }
    }
}

/// `Refer-Sub: false`. RFC 4488 §4 wants the option tag in `Supported`, too; phones forget it.
fn is_false(headers: &Headers) -> bool {
    headers.value(&HeaderName::ReferSub).is_some_and(|value| {
        let value = value.split(|&b| b == b';').next().unwrap_or_default();
        value.trim_ascii().eq_ignore_ascii_case(b"false")
    })
}

fn event_name(event: &[u8]) -> &[u8] {
    let name = event.split(|&b| b == b';').next().unwrap_or_default();
    name.trim_ascii()
}

/// Whether `Event` means the REFER with number `cseq`: by its `id`, or by having none.
fn names_refer(headers: &Headers, cseq: u32) -> bool {
    let Some(event) = headers.value(&HeaderName::Event) else {
        return false;
    };
    if !event_name(&event).eq_ignore_ascii_case(b"refer") {
        return false;
    }
    let id = event.split(|&b| b == b';').skip(1).find_map(|parameter| {
        let at = parameter.iter().position(|&b| b == b'=')?;
        let (name, value) = (&parameter[..at], &parameter[at + 1..]);
        name.trim_ascii()
            .eq_ignore_ascii_case(b"id")
            .then(|| value.trim_ascii())
    });
    id.is_none_or(|id| id == cseq.to_string().as_bytes())
}

/// The status in the first line of a `message/sipfrag`.
fn sipfrag_status(body: &[u8]) -> Option<u16> {
    let line = body.split(|&b| matches!(b, b'\r' | b'\n')).next()?;
    let rest = line.strip_prefix(b"SIP/2.0 ")?;
    let digits = rest.get(..3)?;
    let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (100..=699).contains(&status).then_some(status)
}
