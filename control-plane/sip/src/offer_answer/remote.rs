//! What a peer described: its one audio stream, read from an offer or an answer.

use std::net::{IpAddr, SocketAddr};

use sipx_sdp::{Address, Direction, MediaDescription, SessionDescription};

use super::OfferAnswerError;
use super::addresses::MediaAddresses;
use super::codec::{self, AudioCodec};
use super::sdes::{self, CryptoLine, SrtpPolicy};

/// Most `m=` lines that are read. A browser with every device it has offers five; each line costs
/// room in every later description of the leg.
const MEDIA_LINES_MAX: usize = 16;

/// Largest `ptime` and `maxptime` passed on, milliseconds: no codec here packs more than 120 ms,
/// and a nonsense value must not reach the far side.
const PTIME_MS_MAX: u16 = 240;

/// One audio stream as the peer described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAudio {
    /// Where the peer wants RTP; `None` while it holds with an unspecified address.
    pub rtp: Option<SocketAddr>,
    /// Where the peer wants RTCP when it does not share the RTP port: `a=rtcp` (RFC 3605), else
    /// the port above. `None` when the peer takes none.
    pub rtcp: Option<SocketAddr>,
    /// The peer offers, or agreed, to share the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// In the peer's words, with the old hold form already folded in: `c=0.0.0.0` means that
    /// the peer does not want to receive (RFC 3264 §8.4), whatever its direction attribute says.
    pub direction: Direction,
    /// The formats that can cross the relay, in the peer's order.
    pub codecs: Vec<AudioCodec>,
    /// `a=ptime`, milliseconds.
    pub ptime_ms: Option<u16>,
    /// `a=maxptime`, milliseconds.
    pub maxptime_ms: Option<u16>,
    /// How the peer would protect the stream, in its order; empty over plain RTP/AVP.
    pub crypto: Vec<CryptoLine>,
    /// All `m=` lines; an answer has to repeat their order.
    pub(super) lines: MediaLines,
}

/// The `m=` lines of a leg. Both sides keep their number and order for the life of the session
/// (RFC 3264 §8), so what was refused once stays listed with port 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaLines {
    /// Every line, the audio stream in use included.
    pub(super) lines: Vec<MediaLine>,
    /// Index of the audio stream in use.
    pub(super) audio: usize,
}

impl MediaLines {
    /// The lines of a session that we offer: one audio stream.
    pub(super) fn audio_only(is_secure: bool) -> Self {
        Self {
            lines: vec![MediaLine {
                media: "audio".to_owned(),
                protocol: if is_secure { "RTP/SAVP" } else { "RTP/AVP" }.to_owned(),
                format: "0".to_owned(),
            }],
            audio: 0,
        }
    }
}

/// As much of an `m=` line as its refusal must repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaLine {
    pub(super) media: String,
    pub(super) protocol: String,
    /// One of its formats: the grammar wants at least one even on a refused line.
    pub(super) format: String,
}

impl RemoteAudio {
    /// Reads a description of the peer of the leg that `ours` are for. The audio stream is the first `m=audio` line that is not refused,
    /// runs over a profile that `policy` allows and has a format of ours; where the policy prefers
    /// SRTP, the first such line over it.
    ///
    /// # Errors
    /// Every [`OfferAnswerError`] that concerns one description: not SDP, no usable audio, or an
    /// address that media must not be sent to.
    pub fn parse(
        sdp: &[u8],
        ours: &MediaAddresses,
        policy: SrtpPolicy,
    ) -> Result<Self, OfferAnswerError> {
        // Names in s= and i= may be in any charset; what is read here is ASCII.
        let text = String::from_utf8_lossy(sdp);
        let session = sipx_sdp::parse(text.trim_end_matches(['\0', ' ', '\t', '\r', '\n']))
            .map_err(|error| OfferAnswerError::Malformed(error.to_string()))?;
        if session.media.len() > MEDIA_LINES_MAX {
            return Err(OfferAnswerError::TooManyMediaLines);
        }
        let chosen = match policy {
            SrtpPolicy::Off => choose_audio(&session, Profile::Plain),
            SrtpPolicy::Required => choose_audio(&session, Profile::Secure),
            SrtpPolicy::Preferred => choose_audio(&session, Profile::Secure).or_else(|secure| {
                choose_audio(&session, Profile::Plain).map_err(|plain| match secure {
                    OfferAnswerError::SrtpRequired | OfferAnswerError::NoAudio => plain,
                    secure => secure,
                })
            }),
        };
        let Chosen {
            index,
            codecs,
            crypto,
        } = chosen?;
        let media = &session.media[index];

        let held = is_unspecified(&session, media);
        let rtp = if held {
            None
        } else {
            let ip = session.address_for(media).ok_or_else(|| {
                OfferAnswerError::AddressNotNumeric(connection_text(&session, media))
            })?;
            Some(ours.reachable(SocketAddr::new(ip, media.port))?)
        };
        let rtcp = match rtp {
            None => None,
            Some(rtp) => rtcp_of(media, rtp)
                .map(|rtcp| ours.reachable(rtcp))
                .transpose()?,
        };
        Ok(Self {
            rtp,
            rtcp,
            rtcp_mux: media.rtcp_mux(),
            direction: effective_direction(&session, media, held),
            codecs,
            ptime_ms: milliseconds(media, "ptime"),
            maxptime_ms: milliseconds(media, "maxptime"),
            crypto,
            lines: MediaLines {
                lines: session.media.iter().map(MediaLine::of).collect(),
                audio: index,
            },
        })
    }
}

impl MediaLine {
    fn of(media: &MediaDescription) -> Self {
        let token = |text: &str| {
            text.chars()
                .filter(|c| c.is_ascii_graphic())
                .take(64)
                .collect()
        };
        Self {
            media: token(&media.media),
            protocol: token(&media.protocol),
            format: media
                .formats
                .first()
                .map_or_else(|| "0".to_owned(), |format| token(format)),
        }
    }
}

/// What a stream runs over. AVPF differs from AVP in RTCP feedback alone, and no feedback message
/// is in force that was not agreed on with a=rtcp-fb, which is never passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    /// RTP/AVP, RTP/AVPF.
    Plain,
    /// RTP/SAVP, RTP/SAVPF with keys in `a=crypto`.
    Secure,
}

impl Profile {
    /// `None` for everything else, DTLS-SRTP among it.
    fn of(media: &MediaDescription) -> Option<Self> {
        match media.protocol.as_str() {
            "RTP/AVP" | "RTP/AVPF" => Some(Self::Plain),
            "RTP/SAVP" | "RTP/SAVPF" => Some(Self::Secure),
            _ => None,
        }
    }
}

/// The audio stream to use.
struct Chosen {
    index: usize,
    codecs: Vec<AudioCodec>,
    crypto: Vec<CryptoLine>,
}

/// The audio stream over `profile`, or the most telling reason why there is none.
fn choose_audio(
    session: &SessionDescription,
    profile: Profile,
) -> Result<Chosen, OfferAnswerError> {
    let mut error = OfferAnswerError::NoAudio;
    for (index, media) in session.media.iter().enumerate() {
        if media.media != "audio" || media.is_rejected() {
            continue;
        }
        let offered = Profile::of(media);
        if offered != Some(profile) {
            error = match (offered, profile) {
                (Some(Profile::Plain), Profile::Secure) => OfferAnswerError::SrtpRequired,
                _ => OfferAnswerError::ProfileNotSupported(MediaLine::of(media).protocol),
            };
            continue;
        }
        let crypto = match profile {
            Profile::Plain => Vec::new(),
            Profile::Secure => sdes::lines_of(media),
        };
        if profile == Profile::Secure && crypto.is_empty() {
            error = OfferAnswerError::NoCommonSuite;
            continue;
        }
        let codecs = codec::codecs_of(media);
        if codec::has_audio(&codecs) {
            return Ok(Chosen {
                index,
                codecs,
                crypto,
            });
        }
        error = OfferAnswerError::NoCommonCodec;
    }
    Err(error)
}

/// Whether the stream's address says "send me nothing": `0.0.0.0` (RFC 2543, still understood:
/// RFC 3264 §8.4), `::`, or a name under `.invalid`, which is what RFC 6157 §5.1 puts there.
fn is_unspecified(session: &SessionDescription, media: &MediaDescription) -> bool {
    let connection = media.connection.as_ref().or(session.connection.as_ref());
    match connection.map(|connection| &connection.address) {
        Some(Address::Ip(ip)) => ip.is_unspecified(),
        Some(Address::Host(name)) => name.ends_with(".invalid"),
        None => false,
    }
}

fn connection_text(session: &SessionDescription, media: &MediaDescription) -> String {
    let connection = media.connection.as_ref().or(session.connection.as_ref());
    connection.map_or_else(|| "none".to_owned(), |c| c.address.to_string())
}

/// `a=rtcp:<port> [IN IP4|IP6 <address>]` (RFC 3605 §2.1), else the port above RTP. An
/// unspecified address or port 0 means no RTCP.
fn rtcp_of(media: &MediaDescription, rtp: SocketAddr) -> Option<SocketAddr> {
    let Some(attribute) = media.attribute("rtcp").and_then(|a| a.value.as_deref()) else {
        let port = rtp.port().checked_add(1)?;
        return Some(SocketAddr::new(rtp.ip(), port));
    };
    let mut parts = attribute.split_whitespace();
    let port: u16 = parts.next()?.parse().ok()?;
    let ip: IpAddr = match parts.nth(2) {
        Some(address) => address.parse().ok()?,
        None => rtp.ip(),
    };
    (port != 0 && !ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}

/// The stream's direction, else the session's (RFC 8866 §6.7), without the receiving half when
/// the address says that nothing is wanted.
fn effective_direction(
    session: &SessionDescription,
    media: &MediaDescription,
    held: bool,
) -> Direction {
    let stated = media
        .declared_direction()
        .unwrap_or_else(|| session.direction());
    match (stated, held) {
        (Direction::SendRecv, true) => Direction::SendOnly,
        (Direction::RecvOnly, true) => Direction::Inactive,
        (stated, _) => stated,
    }
}

fn milliseconds(media: &MediaDescription, name: &str) -> Option<u16> {
    let value: u16 = media
        .attribute(name)?
        .value
        .as_deref()?
        .trim()
        .parse()
        .ok()?;
    (1..=PTIME_MS_MAX).contains(&value).then_some(value)
}
