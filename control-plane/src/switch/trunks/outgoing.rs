//! Calls to trunks: a member's call from its permit through one destination after the other.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use sipx_sip::{Header, HeaderName, Request, Response};
use trunkline_edge_api::{MonoTime, SourceNetwork, SourceNetworks};
use trunkline_sip::agent::{InviteRequest, NameAddr, SipLegId};
use trunkline_sip::identity;

use super::TrunkState;
use super::asking::number_in;
use super::host::uri_of;
use crate::call::{Callee, CalleeMedia, Cause, ForkId, Input, Round};
use crate::site::{E164, Extension, Name};
use crate::store::{MemberRoute, OutboundUsage, TrunkRoute};
use crate::switch::Switch;
use crate::switch::calls::{CallKey, Seat};
use crate::switch::locating::{FarSide, transcoding_policy};
use crate::trunk::destination;
use crate::trunk::failover::{self, Consequence};
use crate::trunk::identity::Shown;
use crate::trunk::pacing::Turn;
use crate::trunk::policy::{self, Dialled, Refusal, Usage};

/// Milliseconds of a day.
const DAY_MILLIS: i64 = 86_400_000;

/// A call on its way out.
#[derive(Debug)]
pub(in crate::switch) struct OutboundHunt {
    key: CallKey,
    dialled: Dialled,
    shown: Shown,
    attempts: VecDeque<Attempt>,
    /// Whose answer is awaited.
    current: Option<Attempt>,
    /// What the last refusal means.
    consequence: Option<Consequence>,
}

impl OutboundHunt {
    /// What was dialled, for the record.
    pub(in crate::switch) fn dialled(&self) -> &str {
        self.dialled.as_str()
    }
}

/// One destination to try.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    trunk: Name,
    host: usize,
}

/// What live calls hold, and what was used today.
#[derive(Debug, Default)]
pub(in crate::switch) struct OutboundCalls {
    live: HashMap<CallKey, Held>,
    /// INVITEs that wait for their turn.
    turns: Vec<(MonoTime, CallKey, ForkId, InviteRequest)>,
    ends: BTreeSet<(MonoTime, CallKey)>,
    usage: DailyUsage,
    tenants: HashMap<Name, u32>,
    numbers: HashMap<E164, u32>,
    refusals: [u64; Refusal::ALL.len()],
}

/// What one live call holds.
#[derive(Debug, Default)]
struct Held {
    trunk: Option<Name>,
    tenant: Option<Name>,
    number: Option<E164>,
    /// Who pays; `None` for calls that came in, and for help.
    payer: Option<(Name, Extension)>,
    duration_max_secs: Option<u32>,
    answered_at: Option<MonoTime>,
}

/// What was used since midnight (UTC).
#[derive(Debug, Default)]
struct DailyUsage {
    day: i64,
    tenants: HashMap<Name, Usage>,
    members: HashMap<(Name, Extension), Usage>,
}

impl DailyUsage {
    fn turn_over(&mut self, unix_ms: i64) {
        let day = unix_ms.div_euclid(DAY_MILLIS);
        if day != self.day {
            *self = Self {
                day,
                ..Self::default()
            };
        }
    }

    fn of(&mut self, payer: &(Name, Extension)) -> [&mut Usage; 2] {
        let tenant = self.tenants.entry(payer.0.clone()).or_default();
        let member = self.members.entry(payer.clone()).or_default();
        [tenant, member]
    }
}

impl OutboundCalls {
    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        let turns = self.turns.iter().map(|(at, ..)| *at);
        turns.chain(self.ends.first().map(|(at, _)| *at)).min()
    }

    /// INVITEs whose turn has come.
    pub(super) fn take_turns(&mut self, now: MonoTime) -> Vec<(CallKey, ForkId, InviteRequest)> {
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.turns.len() {
            if self.turns[index].0 <= now {
                let (_, key, fork, request) = self.turns.swap_remove(index);
                due.push((key, fork, request));
            } else {
                index += 1;
            }
        }
        due
    }

    /// Calls that have lasted as long as they may.
    pub(super) fn take_ends(&mut self, now: MonoTime) -> Vec<CallKey> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.ends.first() {
            if at > now {
                break;
            }
            self.ends.pop_first();
            due.push(key);
        }
        due
    }

    /// An INVITE that waits is not wanted any more. Whether there was one.
    pub(in crate::switch) fn forget_turn(&mut self, key: CallKey, fork: ForkId) -> bool {
        let before = self.turns.len();
        self.turns
            .retain(|(_, its_key, its_fork, _)| (*its_key, *its_fork) != (key, fork));
        self.turns.len() != before
    }

    /// Gives back what a call held; the trunk whose channel is free again.
    pub(super) fn release(&mut self, now: MonoTime, key: CallKey) -> Option<Name> {
        self.turns.retain(|(_, its_key, ..)| *its_key != key);
        self.ends.retain(|(_, its_key)| *its_key != key);
        let held = self.live.remove(&key)?;
        if let Some(tenant) = &held.tenant {
            free(&mut self.tenants, tenant);
        }
        if let Some(number) = &held.number {
            free(&mut self.numbers, number);
        }
        if let (Some(payer), Some(answered_at)) = (&held.payer, held.answered_at) {
            let secs = now.nanos_since(answered_at).div_ceil(1_000_000_000);
            for usage in self.usage.of(payer) {
                usage.secs += secs;
            }
        }
        held.trunk
    }

    /// What a tenant and a member used today, live calls included.
    fn used(&mut self, now: MonoTime, payer: &(Name, Extension)) -> [Usage; 2] {
        let mut used = self.usage.of(payer).map(|usage| *usage);
        for held in self.live.values() {
            let (Some(its_payer), Some(answered_at)) = (&held.payer, held.answered_at) else {
                continue;
            };
            let secs = now.nanos_since(answered_at) / 1_000_000_000;
            if its_payer.0 == payer.0 {
                used[0].secs += secs;
            }
            if its_payer == payer {
                used[1].secs += secs;
            }
        }
        used
    }

    /// A call has found a trunk: it counts among those of its day.
    fn count_call(&mut self, key: CallKey) {
        let payer = self.live.get(&key).and_then(|held| held.payer.as_ref());
        if let Some(payer) = payer {
            for usage in self.usage.of(payer) {
                usage.calls += 1;
            }
        }
    }

    /// Calls that were not let out, by reason.
    pub(in crate::switch) fn refusals(&self) -> &[u64; Refusal::ALL.len()] {
        &self.refusals
    }

    fn count_refusal(&mut self, refusal: Refusal) {
        let index = Refusal::ALL.iter().position(|it| *it == refusal);
        if let Some(count) = index.and_then(|index| self.refusals.get_mut(index)) {
            *count += 1;
        }
    }
}

fn free<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Switch {
    /// Takes over what was used today before the daemon began.
    pub fn take_usage(&mut self, unix_ms: i64, used: &[OutboundUsage]) {
        let usage = &mut self.trunks.calls.usage;
        usage.turn_over(unix_ms);
        for one in used {
            for it in usage.of(&(one.tenant.clone(), one.member.clone())) {
                it.calls = it.calls.saturating_add(one.calls);
                it.secs = it.secs.saturating_add(one.secs);
            }
        }
    }

    /// A member has dialled something that is nobody's inside: whether it may go out, and the way.
    /// `None`: it is no number for a trunk.
    ///
    /// # Errors
    /// Why it may not go out.
    pub(in crate::switch) fn call_out(
        &mut self,
        now: MonoTime,
        key: CallKey,
        member: &MemberRoute,
        request: &Request,
        dialled: Dialled,
    ) -> Result<OutboundHunt, Refusal> {
        let result = self.permit_and_route(now, key, member, request, dialled);
        if let Err(refusal) = &result {
            self.trunks.calls.count_refusal(*refusal);
            tracing::warn!(
                tenant = member.tenant.as_str(),
                member = member.extension.as_str(),
                reason = refusal.as_str(),
                "outbound call refused"
            );
        }
        result
    }

    fn permit_and_route(
        &mut self,
        now: MonoTime,
        key: CallKey,
        member: &MemberRoute,
        request: &Request,
        dialled: Dialled,
    ) -> Result<OutboundHunt, Refusal> {
        let payer = (member.tenant.clone(), member.extension.clone());
        let tenant = self.snapshot.tenant_outbound(&member.tenant);
        let tenant = std::sync::Arc::clone(tenant.ok_or(Refusal::Closed)?);
        self.trunks.calls.usage.turn_over(self.unix_ms);
        let caller = identity::caller(request, false);
        let asked = identity::preferred(request).unwrap_or_else(|| caller.number.clone());
        let asked = tenant.plan.read(&asked);
        let permit = policy::decide(policy::Request {
            tenant: &tenant,
            member: &member.outbound,
            used: self.trunks.calls.used(now, &payer),
            own: &member.numbers,
            asked: asked.as_ref(),
            dialled: &dialled,
        })?;
        let trunks = self.snapshot.trunks_for(&member.tenant, &dialled);
        if trunks.is_empty() {
            return Err(Refusal::NoRoute);
        }
        let attempts = self.attempts(&trunks);
        let is_emergency = dialled.is_emergency();
        let calls = &mut self.trunks.calls;
        let in_use = calls.tenants.get(&member.tenant).copied().unwrap_or(0);
        if !is_emergency && tenant.channels_max.is_some_and(|max| in_use >= max) {
            return Err(Refusal::Channels);
        }
        *calls.tenants.entry(member.tenant.clone()).or_default() += 1;
        let held = Held {
            tenant: Some(member.tenant.clone()),
            payer: (!is_emergency).then_some(payer),
            duration_max_secs: permit.duration_max_secs,
            ..Held::default()
        };
        calls.live.insert(key, held);
        Ok(OutboundHunt {
            key,
            shown: Shown {
                number: permit.caller_id,
                display_name: Some(member.name.clone()),
                // Who asks for help is to be found.
                is_withheld: caller.is_withheld && !is_emergency,
            },
            dialled,
            attempts,
            current: None,
            consequence: None,
        })
    }

    fn attempts(&mut self, trunks: &[std::sync::Arc<TrunkRoute>]) -> VecDeque<Attempt> {
        let mut attempts = VecDeque::new();
        for trunk in trunks {
            let destinations = &trunk.settings.destinations;
            let entropy = &mut self.entropy;
            for host in destination::order(destinations, || entropy.next_u64()) {
                let trunk = trunk.name.clone();
                attempts.push_back(Attempt { trunk, host });
            }
        }
        attempts
    }

    /// The next destination that takes the call. `last` is how the one before ended.
    pub(in crate::switch) fn next_trunk_round(
        &mut self,
        now: MonoTime,
        far_side: &mut FarSide,
        last: Option<Cause>,
    ) -> Option<Round> {
        let max_forwards = far_side.max_forwards;
        let hunt = far_side.outbound.as_mut()?;
        if last.is_some() {
            // Without a response of the trunk's the caller's time is over, or its media does not fit.
            let goes_on = hunt.consequence.take().is_some_and(|it| it.tries_next);
            if !goes_on {
                return None;
            }
            if let Some(state) = hunt
                .current
                .take()
                .and_then(|it| self.trunks.states.get_mut(&it.trunk))
            {
                state.counts.failovers += 1;
            }
        }
        self.free_trunk(hunt.key);
        while let Some(attempt) = hunt.attempts.pop_front() {
            if let Some(callee) = self.callee_at(now, hunt, &attempt, max_forwards) {
                self.hold_trunk(hunt.key, &attempt.trunk);
                if last.is_none() {
                    self.trunks.calls.count_call(hunt.key);
                }
                hunt.current = Some(attempt);
                return Some(Round {
                    callees: vec![callee],
                    ring_timeout_secs: self.config.ring_timeout_secs,
                });
            }
        }
        self.trunks.calls.count_refusal(Refusal::NoTrunk);
        None
    }

    fn callee_at(
        &mut self,
        now: MonoTime,
        hunt: &OutboundHunt,
        attempt: &Attempt,
        max_forwards: u8,
    ) -> Option<Callee> {
        let is_emergency = hunt.dialled.is_emergency();
        let state = self.trunks.states.get_mut(&attempt.trunk)?;
        if !is_emergency && !state.has_channel() {
            state.counts.channels_full += 1;
            return None;
        }
        let takes_calls = state.hosts.get(attempt.host)?.health.takes_calls(now);
        if !is_emergency && !takes_calls {
            return None;
        }
        let state = self.trunks.states.get(&attempt.trunk)?;
        let flow = self.trunks.flow_to(state, attempt.host)?;
        let trunk = &state.route;
        Some(Callee {
            name: hunt.dialled.as_str().to_owned(),
            trunk: Some(trunk.name.to_string()),
            request: invite_of(state, hunt, attempt.host, flow, max_forwards)?,
            media: CalleeMedia {
                srtp: trunk.srtp,
                transcoding: transcoding_policy(&self.config.media.codecs, trunk.audio),
                dtmf: trunk.audio.dtmf,
                nat: None,
                interface: trunk.media.clone(),
                media_from: media_from(trunk),
            },
        })
    }

    /// Sends an INVITE, or keeps it until its turn on its trunk has come.
    pub(in crate::switch) fn invite(
        &mut self,
        now: MonoTime,
        key: CallKey,
        fork: ForkId,
        request: InviteRequest,
    ) {
        let entry = self.calls.get(&key);
        let hunt = entry.and_then(|entry| entry.far_side.as_ref()?.outbound.as_ref());
        let Some((trunk, is_urgent)) = hunt.and_then(|hunt| {
            let trunk = hunt.current.as_ref()?.trunk.clone();
            Some((trunk, hunt.dialled.is_emergency()))
        }) else {
            return self.send_invite(now, key, fork, request);
        };
        let Some(state) = self.trunks.states.get_mut(&trunk) else {
            return self.send_invite(now, key, fork, request);
        };
        match state.pacer.take(now, is_urgent) {
            Turn::Now => {
                state.counts.attempts += 1;
                self.send_invite(now, key, fork, request);
            }
            Turn::At(at) => {
                state.counts.attempts += 1;
                self.trunks.calls.turns.push((at, key, fork, request));
            }
            Turn::Full => {
                state.counts.paced_out += 1;
                self.set_consequence(key, failover::after(503, None, true));
                let rejected = Input::CalleeRejected { fork, status: 503 };
                self.inputs.push_back((key, rejected));
            }
        }
    }

    fn set_consequence(&mut self, key: CallKey, consequence: Consequence) {
        let entry = self.calls.get_mut(&key);
        if let Some(hunt) = entry.and_then(|entry| entry.far_side.as_mut()?.outbound.as_mut()) {
            hunt.consequence = Some(consequence);
        }
    }

    fn current_of(&self, leg: SipLegId) -> Option<(CallKey, Attempt)> {
        let &(key, Seat::Fork(_)) = self.by_leg.get(&leg)? else {
            return None;
        };
        let hunt = self.calls.get(&key)?.far_side.as_ref()?.outbound.as_ref()?;
        Some((key, hunt.current.clone()?))
    }

    /// A trunk refused a call, or did not answer.
    pub(in crate::switch) fn note_refusal(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
        response: Option<&Response>,
    ) {
        let Some((key, attempt)) = self.current_of(leg) else {
            return;
        };
        let retry_after = response.and_then(|it| number_in(&it.headers, HeaderName::RetryAfter));
        let consequence = failover::after(status, retry_after, response.is_some());
        if let Some(state) = self.trunks.states.get_mut(&attempt.trunk) {
            state.counts.failed += 1;
            state.last_cause = Some(status);
            if let Some(host) = state.hosts.get_mut(attempt.host) {
                if consequence.is_lost {
                    host.health.handle_call_lost();
                    host.names.rotate();
                }
                if let Some(secs) = consequence.hold_secs {
                    host.health.hold(now, secs);
                }
            }
        }
        tracing::info!(
            trunk = attempt.trunk.as_str(),
            status,
            goes_on = consequence.tries_next,
            "a trunk refused a call"
        );
        self.set_consequence(key, consequence);
    }

    /// A trunk has answered a call.
    pub(in crate::switch) fn note_answer(&mut self, now: MonoTime, leg: SipLegId) {
        let Some((key, attempt)) = self.current_of(leg) else {
            return;
        };
        if let Some(state) = self.trunks.states.get_mut(&attempt.trunk) {
            state.counts.answered += 1;
            if let Some(host) = state.hosts.get_mut(attempt.host) {
                host.health.handle_call_answered();
            }
        }
        let calls = &mut self.trunks.calls;
        if let Some(held) = calls.live.get_mut(&key) {
            held.answered_at = Some(now);
            let secs = held.duration_max_secs;
            calls
                .ends
                .extend(secs.map(|secs| (now.plus_secs(u64::from(secs)), key)));
        }
    }

    /// A call that a trunk brought takes channels of the trunk, the tenant and the number.
    ///
    /// # Errors
    /// The status it is refused with where there is none left: 486 when the number is busy, else
    /// 503.
    pub(in crate::switch) fn hold_inbound(
        &mut self,
        key: CallKey,
        trunk: &TrunkRoute,
        number: Option<&E164>,
    ) -> Result<(), u16> {
        let tenant = self.snapshot.tenant_outbound(&trunk.tenant);
        let tenant_max = tenant.and_then(|tenant| tenant.channels_max);
        let did = number.and_then(|number| self.snapshot.did(number));
        let number_max = did.and_then(|did| did.channels_max);
        let calls = &mut self.trunks.calls;
        let of_number = number.and_then(|number| calls.numbers.get(number)).copied();
        if number_max.is_some_and(|max| of_number.unwrap_or(0) >= max) {
            return Err(486);
        }
        let of_tenant = calls.tenants.get(&trunk.tenant).copied().unwrap_or(0);
        let state = self.trunks.states.get_mut(&trunk.name);
        let is_trunk_full = state.as_ref().is_some_and(|state| !state.has_channel());
        if is_trunk_full || tenant_max.is_some_and(|max| of_tenant >= max) {
            if let Some(state) = state {
                state.counts.channels_full += 1;
            }
            return Err(503);
        }
        *calls.tenants.entry(trunk.tenant.clone()).or_default() += 1;
        if let Some(number) = number {
            *calls.numbers.entry(number.clone()).or_default() += 1;
        }
        let held = Held {
            tenant: Some(trunk.tenant.clone()),
            number: number.cloned(),
            ..Held::default()
        };
        calls.live.insert(key, held);
        self.hold_trunk(key, &trunk.name);
        Ok(())
    }

    fn hold_trunk(&mut self, key: CallKey, trunk: &Name) {
        if let (Some(held), Some(state)) = (
            self.trunks.calls.live.get_mut(&key),
            self.trunks.states.get_mut(trunk),
        ) {
            held.trunk = Some(trunk.clone());
            state.channels += 1;
        }
    }

    fn free_trunk(&mut self, key: CallKey) {
        let held = self.trunks.calls.live.get_mut(&key);
        if let Some(trunk) = held.and_then(|held| held.trunk.take())
            && let Some(state) = self.trunks.states.get_mut(&trunk)
        {
            state.channels = state.channels.saturating_sub(1);
        }
    }
}

/// The INVITE to a destination, in the trunk's words.
fn invite_of(
    state: &TrunkState,
    hunt: &OutboundHunt,
    host: usize,
    flow: trunkline_sip::flow::Flow,
    max_forwards: u8,
) -> Option<InviteRequest> {
    let settings = &state.route.settings;
    let destination = &state.hosts.get(host)?.destination;
    let user = match &hunt.dialled {
        // As it was dialled: no carrier takes help in another form.
        Dialled::Emergency(text) => text.clone(),
        Dialled::Number(number) => settings.numbers_out.write(&settings.plan, number),
    };
    // `#` may not stand in a user part (RFC 3261 §25.1).
    let target = uri_of(&user.replace('#', "%23"), destination, settings.transport)?;
    let domain = match (&settings.from_domain, &settings.login) {
        (Some(domain), _) => domain.clone(),
        (None, Some(_)) => destination.host.clone(),
        (None, None) => flow.local_host(),
    };
    let rows = crate::trunk::identity::rows(settings, &hunt.shown, &bracketed(&domain));
    let from = match rows.from_user {
        Some(user) => NameAddr {
            display_name: rows.from_name,
            uri: identity::user_at(&user, &domain)?,
        },
        None => NameAddr {
            display_name: Some("Anonymous".to_owned()),
            uri: identity::user_at(identity::ANONYMOUS, "anonymous.invalid")?,
        },
    };
    let to = NameAddr {
        display_name: None,
        uri: identity::user_at(&user, &destination.host)?,
    };
    let identities = rows
        .rows
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let custom = settings.headers.iter();
    let custom = custom.map(|header| (header.name.clone(), header.value.0.clone()));
    let headers = identities.chain(custom).filter_map(|(name, value)| {
        Header::build(HeaderName::parse(&Bytes::from(name)), value).ok()
    });
    Some(InviteRequest {
        target,
        flow,
        from,
        to,
        max_forwards,
        headers: headers.collect(),
        offer: Bytes::new(),
        credentials: state.credentials.clone(),
    })
}

fn bracketed(host: &str) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Networks that a trunk's media may come from; `None` when none are listed.
pub(in crate::switch) fn media_from(trunk: &TrunkRoute) -> Option<SourceNetworks> {
    let networks = trunk.media_from.iter();
    let networks: Vec<SourceNetwork> = networks
        .filter_map(|network| SourceNetwork::new(network.network(), network.prefix_len()))
        .collect();
    SourceNetworks::new(&networks)
}
