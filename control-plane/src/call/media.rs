//! What the edge is told of both sides: where they are, what they send, how their digits travel,
//! and what they hear while the other one is not there.

use trunkline_edge_api::{Digit, LegIndex};
use trunkline_sip::InfoDigit;
use trunkline_sip::offer_answer::MediaNegotiation;

use super::{Call, Output, Sound};
use crate::party::Dtmf;

impl Call {
    /// Sends what describes media, after the edge has taken it.
    pub(super) fn describe(&mut self, output: Output) {
        match &mut self.held {
            Some(held) => held.push(output),
            None => self.outputs.push_back(output),
        }
    }

    /// Tells the edge what was negotiated.
    pub(super) fn configure_media(&mut self, negotiation: &MediaNegotiation) {
        self.held.get_or_insert_default();
        for leg in LegIndex::ALL {
            let mut config = negotiation.leg_config(leg, self.nat[leg.as_usize()]);
            config.timeouts = self.media_timeouts;
            self.outputs.push_back(Output::ConfigureMedia(leg, config));
        }
        self.outputs.push_back(Output::SetAudio {
            audio: Box::new(LegIndex::ALL.map(|leg| negotiation.leg_audio(leg))),
            conversion: negotiation.conversion(),
        });
        for leg in LegIndex::ALL {
            let [own, far] = [leg, leg.far()].map(|leg| self.dtmf[leg.as_usize()]);
            let digits = own.functions(far);
            if self.digits[leg.as_usize()] != digits {
                self.digits[leg.as_usize()] = digits;
                self.outputs.push_back(Output::SetDigits(leg, digits));
            }
        }
        let codec = |leg| Some(negotiation.audio(leg)?.name().to_owned());
        self.record.caller_codec = codec(LegIndex::A);
        self.record.callee_codec = codec(LegIndex::B);
    }

    /// Whoever is held hears music; whoever is not, does not.
    pub(super) fn attend_to_hold(&mut self) {
        if !self.has_hold_music {
            return;
        }
        for leg in LegIndex::ALL {
            let negotiation = &self.negotiation;
            let is_held = negotiation.holds(leg.far()) && !negotiation.holds(leg);
            self.set_sound(leg, is_held.then_some(Sound::HoldMusic));
        }
    }

    /// Plays `sound` to a leg's peer and nothing else.
    pub(super) fn set_sound(&mut self, leg: LegIndex, sound: Option<Sound>) {
        let hears = &mut self.hears[leg.as_usize()];
        if *hears != sound {
            *hears = sound;
            self.outputs.push_back(match sound {
                Some(sound) => Output::StartSound(leg, sound),
                None => Output::StopSound(leg),
            });
        }
    }

    /// A digit of the media goes on in it by itself, except to a side that wants to be told in
    /// INFO requests.
    pub(super) fn pass_heard_digit(&mut self, leg: LegIndex, digit: Digit, duration_millis: u32) {
        if self.dtmf[leg.far().as_usize()] == Dtmf::Info {
            let millis = duration_millis.clamp(1, u32::from(InfoDigit::DURATION_MILLIS_MAX));
            let digit = InfoDigit {
                digit,
                duration_millis: millis as u16,
            };
            self.outputs.push_back(Output::SayDigit(leg.far(), digit));
        }
    }

    pub(super) fn pass_said_digit(&mut self, leg: LegIndex, digit: InfoDigit) {
        let far = leg.far();
        self.outputs.push_back(match self.dtmf[far.as_usize()] {
            Dtmf::Info => Output::SayDigit(far, digit),
            dtmf => Output::SendDigit(far, digit.digit, dtmf),
        });
    }
}
