//! From a plan to phones: where those who are to be rung can be reached now, and how the call is
//! shown to them.

use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::{Header, HeaderName, Uri};
use trunkline_edge_api::MonoTime;
use trunkline_sip::agent::{InviteRequest, NameAddr};
use trunkline_sip::flow::Flow;
use trunkline_sip::identity::{self, Caller};
use trunkline_sip::offer_answer::TranscodingPolicy;
use trunkline_sip::registrar::Binding;

use super::Switch;
use super::calls::CallKey;
use super::trunks::outgoing::OutboundHunt;
use crate::call::{Callee, CalleeMedia, Cause, Input, Round};
use crate::cdr::CallDirection;
use crate::party::PartyAudio;
use crate::routing::{Plan, Target};
use crate::store::MemberRoute;

/// What it takes to ring somebody for a call.
#[derive(Debug)]
pub(super) struct FarSide {
    pub(super) plan: Plan,
    /// A call that goes out: its trunks take the place of the plan.
    pub(super) outbound: Option<OutboundHunt>,
    /// From whom the call was diverted before it came here, for the phones to show.
    pub(super) diversions: Vec<Header>,
    /// Whom those who are rung see.
    pub(super) caller: Caller,
    /// What the caller's INVITE had left, less one.
    pub(super) max_forwards: u8,
    /// The one phone that is meant, where the caller dialled its GRUU (RFC 5627).
    pub(super) instance: Option<Box<[u8]>>,
}

impl Switch {
    /// Says who is rung next in a call.
    pub(super) fn locate(&mut self, now: MonoTime, key: CallKey, last: Cause) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        let far_side = entry.far_side.take();
        let input = match far_side {
            None => Input::NobodyLeft,
            Some(mut far_side) => {
                let round = self.next_round(now, &mut far_side, Some(last)).ok();
                if let Some(entry) = self.calls.get_mut(&key) {
                    entry.far_side = Some(far_side);
                }
                round.map_or(Input::NobodyLeft, Input::Round)
            }
        };
        self.inputs.push_back((key, input));
    }

    /// The next round of which somebody can be reached.
    ///
    /// # Errors
    /// Why nobody can.
    pub(super) fn next_round(
        &mut self,
        now: MonoTime,
        far_side: &mut FarSide,
        mut last: Option<Cause>,
    ) -> Result<Round, Cause> {
        if far_side.outbound.is_some() {
            let round = self.next_trunk_round(now, far_side, last);
            return round.ok_or(Cause::Unavailable);
        }
        let snapshot = Arc::clone(&self.snapshot);
        let mut cause = Cause::Offline;
        while let Some(planned) = far_side.plan.next(&snapshot, &mut self.turns, last) {
            let mut callees = Vec::new();
            let mut missed = Cause::Offline;
            for target in &planned.targets {
                match target {
                    Target::Member(member) if planned.skip_busy && self.is_in_call(member) => {
                        missed = Cause::Busy;
                    }
                    Target::Member(member) => {
                        callees.extend(self.phones(now, member, far_side));
                    }
                }
            }
            if !callees.is_empty() {
                let ring_timeout_secs = planned.ring_timeout_secs;
                return Ok(Round {
                    callees,
                    ring_timeout_secs: ring_timeout_secs.unwrap_or(self.config.ring_timeout_secs),
                });
            }
            last = Some(missed);
            cause = cause.max(missed);
        }
        Err(far_side.plan.cause().unwrap_or(cause))
    }

    /// Whether a member is in a call that somebody has answered.
    fn is_in_call(&self, member: &MemberRoute) -> bool {
        let mut calls = self.calls.values();
        calls.any(|entry| {
            let record = entry.call.record();
            let extension = member.extension.as_str();
            let is_caller =
                record.direction == CallDirection::Internal && record.caller == extension;
            let is_callee = record.callee.as_deref() == Some(extension);
            record.answer_unix_ms.is_some()
                && record.tenant.as_deref() == Some(member.tenant.as_str())
                && (is_caller || is_callee)
        })
    }

    /// Every phone that a member has registered.
    fn phones(&mut self, now: MonoTime, member: &MemberRoute, far_side: &FarSide) -> Vec<Callee> {
        let bindings = self.registrar.bindings(now, member.sip_user.as_str());
        let is_meant = |binding: &&&Binding| {
            let instance = far_side.instance.as_deref();
            instance.is_none_or(|instance| binding.is_instance(instance))
        };
        let phones = bindings.iter().filter(is_meant).filter_map(|binding| {
            let target = binding.contact.clone();
            let flow = binding.flow.clone();
            let to = member.sip_user.as_str();
            let nat = binding.is_behind_nat().then_some(flow.remote.ip());
            let mut request = invite_request(target, flow, far_side, to)?;
            request.headers.extend(binding.routes());
            Some(Callee {
                name: member.extension.to_string(),
                trunk: None,
                request,
                media: CalleeMedia {
                    srtp: member.srtp,
                    transcoding: transcoding_policy(&self.config.media.codecs, member.audio),
                    dtmf: member.audio.dtmf,
                    nat,
                    interface: member.media.clone(),
                    media_from: None,
                },
            })
        });
        phones.collect()
    }
}

/// What a party may be converted to.
pub(super) fn transcoding_policy(
    codecs: &[trunkline_edge_api::AudioCodec],
    audio: PartyAudio,
) -> TranscodingPolicy {
    TranscodingPolicy {
        transcode: audio.transcode,
        codecs: codecs.to_vec(),
    }
}

/// How the call is shown: our own addresses, the caller's number and name.
fn invite_request(target: Uri, flow: Flow, far_side: &FarSide, to: &str) -> Option<InviteRequest> {
    let host = flow.local.ip().to_string();
    let caller = &far_side.caller;
    let from = if caller.is_withheld {
        // RFC 3323 §4.1.
        NameAddr {
            display_name: Some("Anonymous".to_owned()),
            uri: identity::user_at(identity::ANONYMOUS, "anonymous.invalid")?,
        }
    } else {
        NameAddr {
            display_name: caller.display_name.clone(),
            uri: identity::verified_at(&caller.number, &host, caller.verstat)?,
        }
    };
    let to = NameAddr {
        display_name: None,
        uri: identity::user_at(to, &host)?,
    };
    Some(InviteRequest {
        target,
        flow,
        from,
        to,
        max_forwards: far_side.max_forwards,
        headers: diversion_headers(far_side, &host),
        offer: bytes::Bytes::new(),
        credentials: None,
    })
}

/// Who forwarded the call: `Diversion` (RFC 5806), the last one first, and `History-Info`
/// (RFC 7044), the first one first.
fn diversion_headers(far_side: &FarSide, host: &str) -> Vec<Header> {
    let diversions = far_side.plan.diversions();
    if diversions.is_empty() {
        return far_side.diversions.clone();
    }
    let uri = |user: &str| Some(identity::user_at(user, host)?.to_string());
    let mut headers = Vec::new();
    let diversion = HeaderName::Other(Bytes::from_static(b"Diversion"));
    for diverted in diversions.iter().rev() {
        let Some(uri) = uri(&diverted.from) else {
            continue;
        };
        let reason = diverted.event.diversion_reason();
        let value = format!("<{uri}>;reason={reason};counter=1");
        headers.extend(Header::build(diversion.clone(), value));
    }
    let mut index = "1".to_owned();
    let mut history = Vec::new();
    for diverted in diversions {
        if let Some(uri) = uri(&diverted.from) {
            let status = diverted.event.status();
            history.push(format!(
                "<{uri}?Reason=SIP%3Bcause%3D{status}>;index={index}"
            ));
        }
        index.push_str(".1");
    }
    headers.extend(Header::build(HeaderName::HistoryInfo, history.join(", ")));
    headers.extend(far_side.diversions.iter().cloned());
    headers
}
