//! INFO inside a session: digits, both ways (RFC 6086 §2: the usage that came before packages).
//!
//! Digits to the peer leave one at a time: two INFOs on UDP may overtake each other when the first
//! is lost, and their order is all a number has.

use bytes::Bytes;
use sipx_sip::headers::ContentType;
use sipx_sip::{HeaderName, Method, Request};
use trunkline_edge_api::MonoTime;

use super::{Leg, State};
use crate::agent::core::{ClientOwner, ClientUser, Core, Key, Purpose};
use crate::agent::{AgentEvent, LegError};
use crate::info::{ACCEPT_INFO, DTMF_RELAY, InfoDigit};
use crate::message::{header, set_body_of};

/// Digits that may wait for the one before: longer than any number or card.
const DIGITS_WAITING_MAX: usize = 64;

impl Leg {
    /// An INFO of the peer in its transaction.
    pub(super) fn handle_info(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
    ) {
        let package = HeaderName::parse(&Bytes::from_static(b"Info-Package"));
        if request.headers.value(&package).is_some() {
            // None was ever offered; the empty list says so again (RFC 6086 §4.2.2).
            let none = (HeaderName::parse(&Bytes::from_static(b"Recv-Info")), "");
            return self.reply(core, now, key, 469, Some(none));
        }
        let body = request.body();
        if body.is_empty() {
            return self.refuse(core, now, key, 200);
        }
        let is_digit = match request.headers.typed::<ContentType>() {
            Some(Ok(kind)) => {
                kind.is("application", "dtmf-relay") || kind.is("application", "dtmf")
            }
            _ => false,
        };
        if !is_digit {
            // Pictures nobody here would act on: a 200 would claim they arrived.
            return self.reply(core, now, key, 415, Some((HeaderName::Accept, ACCEPT_INFO)));
        }
        let Some(digit) = InfoDigit::parse(body) else {
            return self.refuse(core, now, key, 400);
        };
        self.refuse(core, now, key, 200);
        core.emit(AgentEvent::Digit {
            leg: self.id,
            digit,
        });
    }

    /// Sends a digit to the peer, after those that are on their way.
    pub(crate) fn send_digit(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        digit: InfoDigit,
    ) -> Result<(), LegError> {
        match &self.state {
            State::Terminated(_) => return Err(LegError::UnknownLeg),
            State::Confirmed(_) => {}
            _ => return Err(LegError::WrongState),
        }
        if self.digits.len() >= DIGITS_WAITING_MAX {
            return Err(LegError::TooManyDigits);
        }
        self.digits.push_back(digit);
        if !self.is_digit_out {
            self.send_next_digit(core, now);
        }
        Ok(())
    }

    /// The last digit was answered, refused or lost. A refusal is no reason to keep the next.
    pub(super) fn digit_done(&mut self, core: &mut Core, now: MonoTime) {
        self.is_digit_out = false;
        if self.is_terminated() {
            self.digits.clear();
        }
        self.send_next_digit(core, now);
    }

    fn send_next_digit(&mut self, core: &mut Core, now: MonoTime) {
        let Some(digit) = self.digits.pop_front() else {
            return;
        };
        let cseq = self.dialog.next_cseq();
        let (mut info, flow) = self.dialog.request(Method::Info, cseq, core.random());
        let body = digit.to_body();
        info.headers
            .push(header(HeaderName::UserAgent, core.product.clone()));
        set_body_of(&mut info.headers, DTMF_RELAY, &body);
        info.set_body(body);
        self.transactions += 1;
        self.is_digit_out = true;
        let owner = ClientOwner::new(ClientUser::Leg(self.id, Purpose::Info), cseq);
        core.send_request(now, info, flow, owner);
    }
}
