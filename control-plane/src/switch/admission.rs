//! The door: who may call and register, and how everybody else is told.
//!
//! | request | from | answer |
//! |---|---|---|
//! | INVITE | a trunk: its networks, what its names stand for, where we registered | routed |
//! | INVITE, REGISTER | elsewhere, no credentials | 401 with a challenge |
//! | INVITE, REGISTER | elsewhere, wrong user or password | 403, the same for both |
//! | INVITE | a member by digest | routed inside its tenant, or out where its policy allows |
//! | OPTIONS | anybody | 200 |
//!
//! Unknown users and wrong passwords look alike on purpose: nobody learns here who exists.

use std::sync::Arc;

use sipx_sip::{Header, HeaderName, Method, Request, gruu};
use trunkline_edge_api::{LegIndex, MonoTime, RecordingTracks};
use trunkline_sip::agent::{ServerRequestId, SipLegId};
use trunkline_sip::digest::DigestError;
use trunkline_sip::flow::Flow;
use trunkline_sip::identity::{self, Caller};
use trunkline_sip::offer_answer::{KeySource, MediaNegotiation, OfferAnswerError};

use super::Switch;
use super::actions::{default_ringback, file_below, piece};
use super::calls::{CallKey, Entry, Seat, retry_after};
use super::locating::{FarSide, transcoding_policy};
use super::trunks::outgoing::OutboundHunt;
use crate::call::{Call, CallSetup, Machine};
use crate::cdr::{CallDirection, CallRecord, CallResult, EndedBySide, LegMedia};
use crate::edge::{Piece, PromptFile, RecordingOf};
use crate::logging::call_span;
use crate::party::{EarlyMedia, RecordCalls};
use crate::routing::{self, Origin, Plan, Refused, Route};
use crate::site::Name;
use crate::store::{MemberRoute, TenantSounds};
use crate::trunk::policy::{Dialled, Refusal};

/// Methods we understand (RFC 3261 §20.5).
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, UPDATE, INFO";

/// How a request outside a dialog is refused.
pub(super) struct Denial {
    status: u16,
    /// What the reason phrase says; the status's own where it is `None`.
    phrase: Option<&'static str>,
    headers: Vec<Header>,
}

impl Denial {
    pub(super) fn plain(status: u16) -> Self {
        Self {
            status,
            phrase: None,
            headers: Vec::new(),
        }
    }

    fn overloaded() -> Self {
        Self {
            headers: retry_after(),
            ..Self::plain(503)
        }
    }

    /// An outbound call that is not let out.
    fn because(refusal: Refusal) -> Self {
        let headers = match refusal.status() {
            503 => retry_after(),
            _ => Vec::new(),
        };
        Self {
            status: refusal.status(),
            phrase: Some(refusal.phrase()),
            headers,
        }
    }
}

impl Switch {
    /// A new INVITE: admits and routes it, and starts its call or refuses it.
    pub(super) fn admit_call(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        leg: SipLegId,
        request: &Request,
        flow: Flow,
    ) {
        let denial = if self.is_draining || self.calls.len() >= self.config.calls_max {
            Denial::overloaded()
        } else {
            match self.authenticate_caller(now, request, &flow) {
                Ok(origin) => {
                    let key = CallKey(self.call_serial_next);
                    self.route_call(now, unix_ms, leg, request, flow, &origin);
                    if !self.calls.contains_key(&key) {
                        self.release_channels(now, key);
                    }
                    return;
                }
                Err(denial) => denial,
            }
        };
        tracing::info!(source = %flow.remote, status = denial.status, "INVITE not admitted");
        self.deny(now, leg, denial);
    }

    /// REGISTER and OPTIONS.
    pub(super) fn serve_request(
        &mut self,
        now: MonoTime,
        id: ServerRequestId,
        request: &Request,
        flow: &Flow,
    ) {
        let (status, headers) = match request.method {
            Method::Register => match self.register(now, request, flow) {
                Ok(headers) => (200, headers),
                Err(denial) => (denial.status, denial.headers),
            },
            Method::Options => (200, capabilities()),
            _ => (405, header(HeaderName::Allow, ALLOW)),
        };
        // Fails only for a request that its sender has cancelled or waited too long for.
        if let Err(error) = self
            .agent
            .respond(now, id, status, headers, bytes::Bytes::new())
        {
            tracing::debug!(source = %flow.remote, %error, "response not wanted any more");
        }
    }

    /// The leg is new, so only a caller that has hung up in the meantime does not get this.
    fn deny(&mut self, now: MonoTime, leg: SipLegId, denial: Denial) {
        if let Err(error) =
            self.agent
                .reject(now, leg, denial.status, denial.phrase, denial.headers)
        {
            tracing::debug!(%leg, %error, "refusal not wanted any more");
        }
    }

    fn register(
        &mut self,
        now: MonoTime,
        request: &Request,
        flow: &Flow,
    ) -> Result<Vec<Header>, Denial> {
        let member = self.authenticate_member(now, request, flow)?;
        // Nobody registers a phone for somebody else (RFC 3261 §10.3 step 4).
        if identity::address_of_record(request).as_deref() != Some(member.sip_user.as_str()) {
            return Err(Denial::plain(403));
        }
        self.registrar
            .handle_register(now, member.sip_user.as_str(), request, flow)
            .map_err(|error| {
                tracing::info!(source = %flow.remote, %error, "REGISTER refused");
                Denial {
                    headers: error.headers(),
                    ..Denial::plain(error.status())
                }
            })
    }

    fn authenticate_caller(
        &mut self,
        now: MonoTime,
        request: &Request,
        flow: &Flow,
    ) -> Result<Origin, Denial> {
        let trunk = self.snapshot.trunk_for(flow.remote.ip());
        match trunk.or_else(|| self.trunks.trunk_of(flow)) {
            Some(trunk) => Ok(Origin::Trunk(Arc::clone(trunk))),
            None => self
                .authenticate_member(now, request, flow)
                .map(Origin::Member),
        }
    }

    fn authenticate_member(
        &mut self,
        now: MonoTime,
        request: &Request,
        flow: &Flow,
    ) -> Result<Arc<MemberRoute>, Denial> {
        let source = flow.remote.ip();
        let snapshot = Arc::clone(&self.snapshot);
        let verified = self.digest.verify(now, source, request, |user| {
            snapshot
                .member_by_sip_user(user)
                .map(|member| member.credential.ha1().clone())
        });
        let error = match verified {
            Ok(user) => match snapshot.member_by_sip_user(&user) {
                Some(member) => return Ok(Arc::clone(member)),
                None => DigestError::UnknownUser,
            },
            Err(error) => error,
        };
        if error.is_guess() {
            tracing::warn!(%source, "wrong user name or password");
            return Err(Denial::plain(403));
        }
        let headers = match error.status() {
            401 => self.digest.challenge(now, source, error.is_stale()),
            _ => Vec::new(),
        };
        Err(Denial {
            headers,
            ..Denial::plain(error.status())
        })
    }

    fn route_call(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        leg: SipLegId,
        request: &Request,
        flow: Flow,
        origin: &Origin,
    ) {
        let key = CallKey(self.call_serial_next);
        self.call_serial_next += 1;
        let caller = match origin {
            Origin::Trunk(_) => identity::caller(request, true),
            // A member is who it proved to be, whatever its From says.
            Origin::Member(member) => Caller {
                number: member.extension.to_string(),
                display_name: Some(member.name.clone()),
                is_withheld: identity::caller(request, false).is_withheld,
                verstat: None,
            },
        };
        let mut record = self.new_record(key, unix_ms, origin, &caller);
        let _span = call_span(&record.call_id).entered();

        let instance = gruu::gr_value(&request.uri);
        let called = self.called(origin, request).map(|called| match instance {
            Some(_) => self.extension_of(origin, called),
            None => called,
        });
        let outside = match self.leaves_house(now, key, origin, request, called.as_deref()) {
            Ok(outside) => outside,
            Err(refusal) => {
                record.direction = CallDirection::Outbound;
                record.callee = called;
                return self.refuse(now, leg, record, Denial::because(refusal));
            }
        };
        if let Some(hunt) = outside {
            record.direction = CallDirection::Outbound;
            record.callee = Some(hunt.dialled().to_owned());
            let far_side = FarSide {
                plan: Plan::default(),
                outbound: Some(hunt),
                diversions: Vec::new(),
                caller,
                max_forwards: identity::max_forwards(request).saturating_sub(1),
                instance: None,
            };
            let caller = (leg, request, flow, origin);
            let treatment = (RecordCalls::Never, None);
            return self.begin_call(now, key, caller, (record, far_side, treatment));
        }
        if let Origin::Trunk(trunk) = origin {
            let number = called.as_deref().and_then(trunkline_sip::identity::e164);
            let number = number.and_then(|number| number.parse().ok());
            if let Err(status) = self.hold_inbound(key, trunk, number.as_ref()) {
                record.result = CallResult::Overloaded;
                let denial = match status {
                    503 => Denial::overloaded(),
                    status => Denial::plain(status),
                };
                return self.refuse(now, leg, record, denial);
            }
        }
        let conference = routing::conference(&self.snapshot, origin, called.as_deref());
        if let Some(conference) = conference {
            let (request, record) = ((request, &flow), (record, &*conference));
            return self.admit_to_conference(now, key, leg, request, origin, record);
        }
        let route = match routing::route(&self.snapshot, origin, called.as_deref()) {
            Ok(route) => route,
            Err(refused) => {
                describe_route(&mut record, refused.route.as_ref());
                record.result = refused.result;
                self.refuse(now, leg, record, Denial::plain(refused.status));
                return;
            }
        };
        describe_route(&mut record, Some(&route));
        let snapshot = Arc::clone(&self.snapshot);
        let far_side = FarSide {
            plan: Plan::new(&snapshot, &mut self.turns, route.destination.clone()),
            outbound: None,
            diversions: match origin {
                Origin::Trunk(_) => identity::diversions(request),
                Origin::Member(_) => Vec::new(),
            },
            caller,
            max_forwards: identity::max_forwards(request).saturating_sub(1),
            instance: instance.map(Box::from),
        };
        let caller = (leg, request, flow, origin);
        let treatment = (route.record, route.early_media);
        self.begin_call(now, key, caller, (record, far_side, treatment));
    }

    /// What the caller dialled. Trunks write numbers in ways of their own, and one that registered
    /// us may call a contact rather than a number.
    fn called(&self, origin: &Origin, request: &Request) -> Option<String> {
        let called = identity::called(request);
        let trunk = match origin {
            Origin::Trunk(trunk) => trunk,
            Origin::Member(member) => return called.map(|text| self.number_inside(member, text)),
        };
        let is_contact = called.as_deref() == self.trunks.registered_user(&trunk.name);
        let called = match called {
            Some(_) if is_contact => identity::address_of_record(request),
            called => called,
        };
        let settings = &trunk.settings;
        let read = |text: &str| settings.numbers_in.read(&settings.plan, text);
        called.map(|text| match read(&text) {
            Some(number) => number.as_str().to_owned(),
            None => text,
        })
    }

    /// A number of the house in E.164 form, when a member dialled it as the country does.
    fn number_inside(&self, member: &MemberRoute, text: String) -> String {
        let tenant = self.snapshot.tenant_outbound(&member.tenant);
        let number = tenant.and_then(|tenant| tenant.plan.read(&text));
        match number {
            Some(number)
                if self.snapshot.did(&number).is_some()
                    || self.snapshot.conference(&number).is_some() =>
            {
                number.as_str().to_owned()
            }
            _ => text,
        }
    }

    /// Whether a member calls somebody outside, and the way there.
    fn leaves_house(
        &mut self,
        now: MonoTime,
        key: CallKey,
        origin: &Origin,
        request: &Request,
        called: Option<&str>,
    ) -> Result<Option<OutboundHunt>, Refusal> {
        let (Origin::Member(member), Some(called)) = (origin, called) else {
            return Ok(None);
        };
        let Some(tenant) = self.snapshot.tenant_outbound(&member.tenant) else {
            return Ok(None);
        };
        let Some(dialled) = Dialled::read(tenant, called) else {
            return Ok(None);
        };
        let is_inside = !dialled.is_emergency()
            && [called, dialled.as_str()].iter().any(|text| {
                let conference = routing::conference(&self.snapshot, origin, Some(text));
                let route = routing::route(&self.snapshot, origin, Some(text));
                conference.is_some() || !matches!(route, Err(Refused { status: 404, .. }))
            });
        if is_inside {
            return Ok(None);
        }
        let member = Arc::clone(member);
        self.call_out(now, key, &member, request, dialled).map(Some)
    }

    /// Starts the call of a caller who may call whom the plan or the trunks of `far_side` lead to.
    fn begin_call(
        &mut self,
        now: MonoTime,
        key: CallKey,
        (leg, request, flow, origin): (SipLegId, &Request, Flow, &Origin),
        (mut record, mut far_side, (records, early_media)): (
            CallRecord,
            FarSide,
            (RecordCalls, Option<EarlyMedia>),
        ),
    ) {
        let snapshot = Arc::clone(&self.snapshot);
        let first_round = match self.next_round(now, &mut far_side, None) {
            Ok(round) => round,
            Err(cause) => {
                let denial = match far_side.outbound {
                    Some(_) => Denial::because(Refusal::NoTrunk),
                    None => {
                        let (result, status) = cause.caller_sees();
                        record.result = result;
                        Denial::plain(status)
                    }
                };
                return self.refuse(now, leg, record, denial);
            }
        };
        let Some(first) = first_round.callees.first() else {
            return;
        };
        if let Some(trunk) = &first.trunk {
            record.trunk = Some(trunk.clone());
        }
        let (source_ip, callee_ip) = (flow.remote.ip(), first.request.flow.remote.ip());

        let mut negotiation = MediaNegotiation::new(
            self.config.media_addresses.clone(),
            [origin.srtp(), first.media.srtp],
            KeySource::draw(&mut *self.entropy),
        );
        if let Some(networks) = origin.media_from() {
            negotiation.accept_media_from(LegIndex::A, networks);
        }
        let audio = origin.audio();
        negotiation.allow_transcoding(
            LegIndex::A,
            transcoding_policy(&self.config.media.codecs, audio),
        );
        let named = [origin.media(), first.media.interface.as_ref()];
        for (side, name) in LegIndex::ALL.into_iter().zip(named) {
            let Some(name) = name else { continue };
            if let Err(error) = negotiation.use_interface(side, name.as_str()) {
                tracing::error!(%error, "call refused; apply the site file again");
                self.refuse(now, leg, record, Denial::plain(500));
                return;
            }
        }
        if let Err(error) = negotiation.offer_from_caller(request.body()) {
            record.result = match error {
                OfferAnswerError::NoCommonCodec => CallResult::NoCommonCodec,
                _ => CallResult::Failed,
            };
            tracing::info!(%error, "offer refused");
            self.refuse(now, leg, record, Denial::plain(error.status()));
            return;
        }
        tracing::info!(
            sip_call_id = identity::call_id(request),
            trunk = record.trunk,
            member = record.callee,
            "call begins"
        );
        let media_ips = negotiation
            .settle_addresses([source_ip, callee_ip])
            .map(|entry| entry.address);
        let hold_music = self.hold_music(origin.tenant());
        let sounds = snapshot.sounds(origin.tenant());
        let sounds = sounds.cloned().unwrap_or_default();
        let recording = match records {
            RecordCalls::Never => None,
            RecordCalls::Always => {
                let file = format!("{}.wav", record.call_id);
                let of = RecordingOf::Call {
                    call_id: record.call_id.clone(),
                    tenant: record.tenant.clone(),
                };
                self.recording_plan(&file, RecordingTracks::Stereo, of)
            }
        };
        let call = Call::new(CallSetup {
            record,
            started_at: now,
            first_round,
            early_media: early_media.unwrap_or(sounds.early_media),
            media_timeouts: self.config.media_timeouts,
            // A trunk says where its media is, and is believed; a phone behind NAT cannot know.
            nat: match origin {
                Origin::Trunk(_) => None,
                Origin::Member(_) => identity::is_behind_nat(request, &flow).then_some(source_ip),
            },
            dtmf: audio.dtmf,
            has_hold_music: hold_music.is_some(),
            sdp_session_ids: [self.entropy.next_u64(), self.entropy.next_u64()],
            negotiation,
        });
        self.calls.insert(
            key,
            Entry {
                call: Machine::Bridge(Box::new(call)),
                started_at: now,
                legs: [Some(leg), None],
                session: None,
                forks: Vec::new(),
                far_side: Some(far_side),
                seat: None,
                hold_music,
                ringback: self.ringback(&sounds),
                recording,
                switches: Default::default(),
                digit_counts: [0; 2],
                media_ips,
                deadline: None,
            },
        );
        self.seat_leg(leg, key, Seat::Leg(LegIndex::A));
        self.perform_outputs(now, key);
    }

    /// A GRUU is made of the address of record, whose user is a SIP user and no extension.
    fn extension_of(&self, origin: &Origin, sip_user: String) -> String {
        match self.snapshot.member_by_sip_user(&sip_user) {
            Some(member) if member.tenant == *origin.tenant() => member.extension.to_string(),
            _ => sip_user,
        }
    }

    /// What a tenant's people hear while they are held.
    fn hold_music(&self, tenant: &Name) -> Option<PromptFile> {
        let sounds = self.snapshot.sounds(tenant);
        let file = sounds.and_then(|sounds| sounds.hold_music.as_deref());
        let file = file.or(self.config.media.hold_music.as_deref())?;
        match file_below(&self.config.media.prompts_dir, file) {
            Ok(path) => Some(PromptFile::new(path)),
            Err(error) => {
                tracing::error!(%error, "no hold music");
                None
            }
        }
    }

    /// What a tenant's callers hear while a phone rings and the edge plays it.
    fn ringback(&self, sounds: &TenantSounds) -> Piece {
        let Some(source) = &sounds.ringback else {
            return default_ringback();
        };
        piece(&self.config.media.prompts_dir, source).unwrap_or_else(|error| {
            tracing::error!(%error, "no such ringback; the usual one is played");
            default_ringback()
        })
    }

    /// Refuses an admitted caller, and writes that down.
    pub(super) fn refuse(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        mut record: CallRecord,
        denial: Denial,
    ) {
        record.sip_status = Some(denial.status);
        self.trace_leg(leg, &record.call_id);
        self.deny(now, leg, denial);
        self.write_record(record);
    }

    fn new_record(
        &self,
        key: CallKey,
        unix_ms: i64,
        origin: &Origin,
        caller: &Caller,
    ) -> CallRecord {
        CallRecord {
            call_id: format!("{:x}-{:x}", self.config.epoch.0, key.0),
            start_unix_ms: unix_ms,
            answer_unix_ms: None,
            end_unix_ms: unix_ms,
            direction: origin.direction(),
            trunk: origin.trunk_name().map(ToString::to_string),
            tenant: Some(origin.tenant().to_string()),
            did: None,
            caller: caller.number.clone(),
            callee: None,
            result: CallResult::Failed,
            sip_status: None,
            ended_by: EndedBySide::Node,
            end_cause: None,
            setup_ms: None,
            duration_ms: 0,
            caller_codec: None,
            callee_codec: None,
            caller_media: LegMedia::default(),
            callee_media: LegMedia::default(),
        }
    }
}

fn describe_route(record: &mut CallRecord, route: Option<&Route>) {
    record.did = route
        .and_then(|route| route.did.as_ref())
        .map(|did| did.as_str().to_owned());
    record.callee = route.map(|route| route.destination.name().to_owned());
}

/// Headers of a 200 to OPTIONS (RFC 3261 §11.2).
fn capabilities() -> Vec<Header> {
    let mut headers = header(HeaderName::Allow, ALLOW);
    headers.extend(header(HeaderName::Accept, "application/sdp"));
    headers
}

fn header(name: HeaderName, value: &'static str) -> Vec<Header> {
    Header::build(name, value).into_iter().collect()
}
