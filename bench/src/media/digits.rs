//! How soon a digit is told: from the packet with its end, as its sender sends it, to the event in
//! control's ring.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use trunkline_edge_api::{
    AudioCodec, ClockRateHz, Command, Digit, DigitSource, Event, LegFunctions, LegIndex,
    PayloadType, SessionId, TelephoneEventFormat, Tone, ToneSegment,
};
use trunkline_media::SampleRate;
use trunkline_media::codec::g711::Law;
use trunkline_media::dtmf::{EventReport, frequencies_hz};
use trunkline_media::tone::ToneGenerator;
use trunkline_testkit::daemons::Binaries;

use crate::quantiles::Quantiles;
use crate::report::{Report, Table};
use crate::rig::edge::{EdgeUnderTest, LegSetup};
use crate::rig::peer::{CallMedia, Relay as _};
use crate::rig::window::Rig;
use crate::rig::wire::GENERATOR_IP;

/// As `--only` knows it.
pub(super) const NAME: &str = "digits";

/// Legs on which keys are pressed.
const LEGS: usize = 40;
/// Calls that are relayed meanwhile in the second run: a third of what a core carries.
const CALLS_BESIDE: u32 = 500;
/// How long keys are pressed.
const LENGTH: Duration = Duration::from_secs(6);
const PACKET: Duration = Duration::from_millis(20);
const PACKET_SAMPLES: u16 = 160;
/// A key is pressed every so many packets, and held for so many.
const PERIOD_PACKETS: u32 = 20;
const HELD_PACKETS: u32 = 5;
/// So often is said that an event has ended (RFC 4733 §2.5.1.4).
const ENDS: usize = 3;
/// Longest wait for the last digits.
const GRACE: Duration = Duration::from_millis(200);
/// What passes between two looks at the ring while calls are relayed: all of that may be late.
const SLICE: Duration = Duration::from_micros(200);
/// Longest time from a digit's end to its event.
const WANTED_MS: f64 = 50.0;
const EVENT_PAYLOAD_TYPE: PayloadType = PayloadType::new(101).expect("below 128");
const KEYS: [char; 12] = ['1', '2', '3', '4', '5', '6', '7', '8', '9', '0', '*', '#'];

/// Presses keys as events and as tones, alone and beside calls.
pub(super) fn measure(rig: &mut Rig, binaries: &Binaries, report: &mut Report) {
    let mut table = Table::new(
        "From the end of a digit to its event",
        &[
            "digits",
            "beside",
            "pressed",
            "told",
            "told wrongly",
            "p50 ms",
            "p99 ms",
            "max ms",
            "wanted",
        ],
    );
    for (source, name) in [
        (DigitSource::Event, "telephone events"),
        (DigitSource::InBand, "tones in PCMU"),
    ] {
        for calls in [0, CALLS_BESIDE] {
            eprintln!("digits as {name} beside {calls} calls");
            let (pressed, keypads, latency) = match press(rig, binaries, source, calls) {
                Ok(pressed) => pressed,
                // The others still tell something.
                Err(error) => {
                    let title = format!("digits as {name} beside {calls} calls: {error:#}");
                    eprintln!("  {title}");
                    report.findings.push(title);
                    continue;
                }
            };
            table.rows.push(vec![
                json!(name),
                json!(format!("{calls} relayed calls")),
                json!(pressed),
                json!(keypads.latencies_ms.len()),
                json!(keypads.told_wrongly),
                json!(latency.p50),
                json!(latency.p99),
                json!(latency.max),
                json!(format!("<= {WANTED_MS}")),
            ]);
            let ratio = format!("digits as {name} beside {calls} calls: p99 over the 50 ms wanted");
            report.ratios.insert(ratio, latency.p99 / WANTED_MS);
        }
    }
    report.further.push(table);
    report.method.push(format!(
        "Digits: {LEGS} legs of PCMU, on each of which a key is held for {} ms every {} ms, silence in between; from the call that sends the first packet that says the end, or the last packet with the tone in it, to the moment the event is read from the ring by a generator that looks for it at least every {} µs. Told wrongly: before its end, twice or as another, as happens to a tone when the generator is kept from its core in the middle of it.",
        HELD_PACKETS * 20,
        PERIOD_PACKETS * 20,
        SLICE.as_micros()
    ));
}

/// How many keys were pressed, what became of them, and how long after their end they were told,
/// milliseconds.
fn press(
    rig: &mut Rig,
    binaries: &Binaries,
    source: DigitSource,
    calls: u32,
) -> Result<(u32, Keypads, Quantiles)> {
    let mut edge = EdgeUnderTest::start(binaries, &rig.wire, "io_uring")?;
    rig.generator.forget_legs();
    let legs = edge.open_calls(calls, rig.generator.address()?, &CallMedia::pcmu(None))?;
    rig.generator.add_legs(&legs, &[]);
    let mut keypads = Keypads::open(rig, &mut edge, source)?;
    let pressed = keypads.press(rig, &mut edge)?;
    edge.stop()?;
    let latencies = keypads.latencies_ms.clone();
    let latency = Quantiles::of(latencies).context("no digit was told")?;
    Ok((pressed, keypads, latency))
}

/// One leg and its peer.
struct Keypad {
    session: SessionId,
    to: SocketAddr,
    /// Packets that the peer has sent.
    sent: u32,
    sequence: u16,
    /// The key whose end was sent and that was not told yet.
    ended: Option<(Digit, Instant)>,
}

struct Keypads {
    source: DigitSource,
    socket: UdpSocket,
    /// The tone of each key in packets.
    tones: Vec<Vec<u8>>,
    pads: Vec<Keypad>,
    latencies_ms: Vec<f64>,
    /// Digits that were told before their end was sent, twice or as another.
    told_wrongly: u32,
}

impl Keypads {
    fn open(rig: &Rig, edge: &mut EdgeUnderTest, source: DigitSource) -> Result<Self> {
        let socket = rig.wire.generator_socket(GENERATOR_IP)?;
        let mut setup = LegSetup::heard(AudioCodec::Pcmu);
        if let (Some(audio), DigitSource::Event) = (&mut setup.audio, source) {
            audio.receive_events = Some(TelephoneEventFormat {
                payload_type: EVENT_PAYLOAD_TYPE,
                clock_rate: ClockRateHz::NARROWBAND,
            });
        }
        let mut pads = Vec::with_capacity(LEGS);
        for _ in 0..LEGS {
            let (session, legs) =
                edge.open_session(socket.local_addr()?, std::slice::from_ref(&setup))?;
            edge.command(Command::SetLegFunctions {
                session,
                leg: LegIndex::A,
                functions: LegFunctions {
                    detects_tones: source == DigitSource::InBand,
                    ..LegFunctions::default()
                },
            })?;
            pads.push(Keypad {
                session,
                to: legs.first().context("a leg was opened")?.relay,
                sent: 0,
                sequence: 0,
                ended: None,
            });
        }
        let tones = KEYS.into_iter().map(|key| tone_of(digit(key)));
        Ok(Self {
            source,
            socket,
            tones: tones.collect(),
            pads,
            latencies_ms: Vec::new(),
            told_wrongly: 0,
        })
    }

    /// Presses keys for a while. Returns how many.
    fn press(&mut self, rig: &mut Rig, edge: &mut EdgeUnderTest) -> Result<u32> {
        let rate = f64::from(CALLS_BESIDE) * 2.0 * super::FRAMES_PER_SECOND;
        let begin = Instant::now();
        let mut pressed = 0;
        while begin.elapsed() < LENGTH + GRACE {
            for index in 0..self.pads.len() {
                let offset = PACKET / LEGS as u32 * index as u32;
                let due_at = begin + offset + PACKET * self.pads[index].sent;
                let now = Instant::now();
                // Whoever is in the middle of a key goes on to its end.
                let is_over =
                    now >= begin + LENGTH && self.pads[index].sent.is_multiple_of(PERIOD_PACKETS);
                if now >= due_at && !is_over {
                    pressed += u32::from(self.send(index)?);
                }
            }
            if rig.generator.has_flows() {
                rig.generator.offer(rate, SLICE, rig.step, 0, usize::MAX)?;
            }
            self.listen(edge)?;
        }
        Ok(pressed)
    }

    /// Sends a peer's next packet. Returns whether a key was let go with it.
    fn send(&mut self, index: usize) -> Result<bool> {
        let pad = &mut self.pads[index];
        let (press, place) = (pad.sent / PERIOD_PACKETS, pad.sent % PERIOD_PACKETS);
        let key = (index + press as usize) % KEYS.len();
        let audio_at = pad.sent * u32::from(PACKET_SAMPLES);
        pad.sent += 1;
        let ends = place + 1 == HELD_PACKETS;
        if place >= HELD_PACKETS {
            let silence = [0xff; PACKET_SAMPLES as usize];
            send_rtp(
                &self.socket,
                pad,
                PayloadType::PCMU,
                false,
                audio_at,
                &silence,
            )?;
            return Ok(false);
        }
        if ends {
            pad.ended = Some((digit(KEYS[key]), Instant::now()));
        }
        match self.source {
            DigitSource::InBand => {
                let samples = usize::from(PACKET_SAMPLES);
                let from = place as usize * samples;
                let audio = &self.tones[key][from..from + samples];
                send_rtp(&self.socket, pad, PayloadType::PCMU, false, audio_at, audio)?;
            }
            DigitSource::Event => {
                let report = EventReport {
                    event: digit(KEYS[key]).event(),
                    is_end: ends,
                    volume: 10,
                    duration: PACKET_SAMPLES * (place as u16 + 1),
                };
                let began_at = audio_at - place * u32::from(PACKET_SAMPLES);
                for _ in 0..if ends { ENDS } else { 1 } {
                    let payload = report.to_bytes();
                    let is_first = place == 0;
                    send_rtp(
                        &self.socket,
                        pad,
                        EVENT_PAYLOAD_TYPE,
                        is_first,
                        began_at,
                        &payload,
                    )?;
                }
            }
        }
        Ok(ends)
    }

    fn listen(&mut self, edge: &mut EdgeUnderTest) -> Result<()> {
        while let Some(event) = edge.poll_event()? {
            let Event::DigitReceived {
                session,
                digit,
                source,
                ..
            } = event
            else {
                continue;
            };
            let pad = self.pads.iter_mut().find(|pad| pad.session == session);
            let pad = pad.context("a digit of a leg without keys")?;
            let pressed = pad.ended.take();
            let Some((_, ended_at)) =
                pressed.filter(|(pressed, _)| (digit, source) == (*pressed, self.source))
            else {
                self.told_wrongly += 1;
                continue;
            };
            let latency = ended_at.elapsed();
            self.latencies_ms.push(latency.as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

fn send_rtp(
    socket: &UdpSocket,
    pad: &mut Keypad,
    payload_type: PayloadType,
    is_marked: bool,
    timestamp: u32,
    payload: &[u8],
) -> Result<()> {
    let mut packet = Vec::with_capacity(12 + payload.len());
    packet.extend([0x80, payload_type.get() | u8::from(is_marked) << 7]);
    packet.extend(pad.sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(0x7a11_0000_u32.to_be_bytes());
    packet.extend(payload);
    pad.sequence = pad.sequence.wrapping_add(1);
    socket.send_to(&packet, pad.to)?;
    Ok(())
}

fn digit(key: char) -> Digit {
    Digit::from_char(key).expect("a key")
}

/// As long as the key is held, µ-law.
fn tone_of(digit: Digit) -> Vec<u8> {
    let segment = ToneSegment {
        on_millis: (HELD_PACKETS * 20) as u16,
        off_millis: 0,
        frequencies_hz: frequencies_hz(digit),
    };
    let tone = Tone::new(&[segment], Tone::LEVEL_DBM0).expect("a playable tone");
    let mut samples = vec![0; usize::from(PACKET_SAMPLES) * HELD_PACKETS as usize];
    ToneGenerator::new(&tone, SampleRate::Hz8000).fill(&mut samples);
    let mut audio = vec![0; samples.len()];
    Law::Mu.encode_slice(&samples, &mut audio);
    audio
}
