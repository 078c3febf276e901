//! Calls to conferences: answered here, all members of one on one worker.

use trunkline_edge_api::{LegIndex, MonoTime, RecordingFormat, RecordingTracks};
use trunkline_sip::agent::SipLegId;
use trunkline_sip::flow::Flow;
use trunkline_sip::identity;
use trunkline_sip::offer_answer::{KeySource, MediaNegotiation, SrtpPolicy};

use sipx_sip::Request;

use super::Switch;
use super::actions::{default_ringback, file_below};
use super::admission::Denial;
use super::calls::{CallKey, ConferenceSeat, Entry, Seat};
use crate::call::{ConferenceCall, ConferenceSetup, Machine};
use crate::cdr::{CallRecord, CallResult};
use crate::edge::{RecordingOf, RecordingPlan};
use crate::party::RecordCalls;
use crate::routing::Origin;
use crate::store::ConferenceRoute;

impl Switch {
    /// Starts the call of a caller who dialled a conference, or refuses it.
    pub(super) fn admit_to_conference(
        &mut self,
        now: MonoTime,
        key: CallKey,
        leg: SipLegId,
        (request, flow): (&Request, &Flow),
        origin: &Origin,
        (mut record, conference): (CallRecord, &ConferenceRoute),
    ) {
        record.did = Some(conference.did.as_str().to_owned());
        record.callee = Some(conference.name.to_string());
        let mut negotiation = MediaNegotiation::new(
            self.config.media_addresses.clone(),
            [origin.srtp(), SrtpPolicy::Off],
            KeySource::draw(&mut *self.entropy),
        );
        if let Some(networks) = origin.media_from() {
            negotiation.accept_media_from(LegIndex::A, networks);
        }
        if let Some(name) = origin.media()
            && let Err(error) = negotiation.use_interface(LegIndex::A, name.as_str())
        {
            tracing::error!(%error, "call refused; apply the site file again");
            return self.refuse(now, leg, record, Denial::plain(500));
        }
        if let Err(error) = negotiation.offer_from_caller(request.body()) {
            tracing::info!(%error, "offer refused");
            return self.refuse(now, leg, record, Denial::plain(error.status()));
        }
        let source = flow.remote.ip();
        let media_ips = negotiation
            .settle_addresses([source; 2])
            .map(|entry| entry.address);
        let room = self.rooms.of(self.config.epoch, conference);
        if room.is_locked {
            tracing::info!(conference = %conference.name, "call refused: the conference is locked");
            record.result = CallResult::Declined;
            return self.refuse(now, leg, record, Denial::plain(403));
        }
        let id = room.id;
        let recording = match conference.record {
            RecordCalls::Never => None,
            RecordCalls::Always => {
                let file = format!("{}-{}.wav", conference.name, record.call_id);
                self.recording_plan(&file, RecordingTracks::Mixed, room_recording(conference))
            }
        };
        tracing::info!(
            sip_call_id = identity::call_id(request),
            trunk = record.trunk,
            conference = %conference.name,
            "call begins"
        );
        let seat = ConferenceSeat {
            id,
            announces: conference.announce,
            recording,
            joins_muted: conference.join_muted,
            joined_at: None,
        };
        let call = ConferenceCall::new(ConferenceSetup {
            record,
            started_at: now,
            media_timeouts: self.config.media_timeouts,
            // A trunk says where its media is, and is believed; a phone behind NAT cannot know.
            nat: match origin {
                Origin::Trunk(_) => None,
                Origin::Member(_) => identity::is_behind_nat(request, flow).then_some(source),
            },
            sdp_session_id: self.entropy.next_u64(),
            negotiation,
            dtmf: origin.audio().dtmf,
            pin: conference.pin.clone(),
        });
        let entry = Entry {
            call: Machine::Conference(Box::new(call)),
            started_at: now,
            legs: [Some(leg), None],
            session: None,
            forks: Vec::new(),
            far_side: None,
            seat: Some(seat),
            hold_music: None,
            ringback: default_ringback(),
            recording: None,
            switches: Default::default(),
            digit_counts: [0; 2],
            media_ips,
            deadline: None,
        };
        self.calls.insert(key, entry);
        self.seat_leg(leg, key, Seat::Leg(LegIndex::A));
        self.perform_outputs(now, key);
    }

    /// A file of that name under `[media] recordings_dir`; `None`, and a line in the log, when the
    /// directory's name leaves no room for it.
    pub(super) fn recording_plan(
        &self,
        file: &str,
        tracks: RecordingTracks,
        of: RecordingOf,
    ) -> Option<RecordingPlan> {
        match file_below(&self.config.media.recordings_dir, file) {
            Ok(path) => Some(RecordingPlan {
                of,
                path,
                format: RecordingFormat::Wav8k,
                tracks,
            }),
            Err(error) => {
                tracing::error!(%error, "not recorded");
                None
            }
        }
    }
}

fn room_recording(conference: &ConferenceRoute) -> RecordingOf {
    RecordingOf::Conference {
        tenant: conference.tenant.to_string(),
        name: conference.name.to_string(),
    }
}
