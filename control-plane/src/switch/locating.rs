//! From a plan to phones: where those who are to be rung can be reached now, and how the call is
//! shown to them.

use sipx_sip::Uri;
use trunkline_edge_api::MonoTime;
use trunkline_sip::agent::{InviteRequest, NameAddr};
use trunkline_sip::flow::Flow;
use trunkline_sip::identity::{self, Caller};
use trunkline_sip::offer_answer::TranscodingPolicy;

use super::Switch;
use super::calls::CallKey;
use crate::call::{Callee, CalleeMedia, Cause, Input, Round};
use crate::party::PartyAudio;
use crate::routing::{Plan, Target};
use crate::store::MemberRoute;

/// What it takes to ring somebody for a call.
#[derive(Debug)]
pub(super) struct FarSide {
    pub(super) plan: Plan,
    /// Whom those who are rung see.
    pub(super) caller: Caller,
    /// What the caller's INVITE had left, less one.
    pub(super) max_forwards: u8,
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
                let round = self.next_round(now, &mut far_side, Some(last));
                if let Some(entry) = self.calls.get_mut(&key) {
                    entry.far_side = Some(far_side);
                }
                round.map_or(Input::NobodyLeft, Input::Round)
            }
        };
        self.inputs.push_back((key, input));
    }

    /// The next round of which somebody can be reached.
    pub(super) fn next_round(
        &mut self,
        now: MonoTime,
        far_side: &mut FarSide,
        mut last: Option<Cause>,
    ) -> Option<Round> {
        while let Some(planned) = far_side.plan.next(last) {
            let mut callees = Vec::new();
            for target in &planned.targets {
                match target {
                    Target::Member(member) => {
                        callees.extend(self.phones(now, member, far_side));
                    }
                }
            }
            if !callees.is_empty() {
                let ring_timeout_secs = planned.ring_timeout_secs;
                return Some(Round {
                    callees,
                    ring_timeout_secs: ring_timeout_secs.unwrap_or(self.config.ring_timeout_secs),
                });
            }
            last = Some(Cause::Offline);
        }
        None
    }

    /// Every phone that a member has registered.
    fn phones(&mut self, now: MonoTime, member: &MemberRoute, far_side: &FarSide) -> Vec<Callee> {
        let bindings = self.registrar.bindings(now, member.sip_user.as_str());
        let phones = bindings.iter().filter_map(|binding| {
            let target = binding.contact.clone();
            let flow = binding.flow.clone();
            let to = member.sip_user.as_str();
            let nat = binding.is_behind_nat().then_some(flow.remote.ip());
            Some(Callee {
                name: member.extension.to_string(),
                trunk: None,
                request: invite_request(target, flow, &far_side.caller, to, far_side.max_forwards)?,
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
fn invite_request(
    target: Uri,
    flow: Flow,
    caller: &Caller,
    to: &str,
    max_forwards: u8,
) -> Option<InviteRequest> {
    let host = flow.local.ip().to_string();
    let from = if caller.is_withheld {
        // RFC 3323 §4.1.
        NameAddr {
            display_name: Some("Anonymous".to_owned()),
            uri: identity::user_at(identity::ANONYMOUS, "anonymous.invalid")?,
        }
    } else {
        NameAddr {
            display_name: caller.display_name.clone(),
            uri: identity::user_at(&caller.number, &host)?,
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
        max_forwards,
        headers: Vec::new(),
        offer: bytes::Bytes::new(),
        credentials: None,
    })
}
