//! What a peer described: its one audio stream, read from an offer or an answer.

use std::net::{IpAddr, SocketAddr};

use sipx_sdp::{Address, Direction, MediaDescription, SessionDescription};
use trunkline_edge_api::PortRange;

use super::OfferAnswerError;
use super::codec::{self, AudioCodec};
use super::sdes::{self, CryptoLine, SrtpPolicy};

/// Most `m=` lines that are read. A browser with every device it has offers five; each line costs
/// room in every later description of the leg.
const MEDIA_LINES_MAX: usize = 16;

/// Largest `ptime` and `maxptime` passed on, milliseconds: no codec here packs more than 120 ms,
/// and a nonsense value must not reach the far side.
const PTIME_MS_MAX: u16 = 240;

/// Our media addresses, at most one per family: they decide which peers can be reached at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaAddresses {
    preferred: IpAddr,
    other: Option<IpAddr>,
    /// Our media ports on them; `None` when they are not known.
    ports: Option<PortRange>,
}

impl MediaAddresses {
    /// From `[edge] media_addresses`; the first listed is preferred where both families would do.
    /// `None` when the list is empty or names a family twice.
    #[must_use]
    pub fn new(addresses: &[IpAddr]) -> Option<Self> {
        match *addresses {
            [preferred] => Some(Self {
                preferred,
                other: None,
                ports: None,
            }),
            [preferred, other] if preferred.is_ipv4() != other.is_ipv4() => Some(Self {
                preferred,
                other: Some(other),
                ports: None,
            }),
            _ => None,
        }
    }

    /// The same with `[edge] ports`: a peer that names one of our own media sockets is refused.
    /// Two calls whose legs are pointed at each other would pass packets round for ever.
    #[must_use]
    pub fn with_ports(mut self, ports: PortRange) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Whether `address` may be one of our media sockets.
    fn has_socket(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_media_port =
            |ports: PortRange| (ports.first()..=ports.last()).contains(&address.port());
        (ip == self.preferred || Some(ip) == self.other) && self.ports.is_some_and(is_media_port)
    }

    /// Ours of the same family as `peer`.
    #[must_use]
    pub fn towards(&self, peer: IpAddr) -> Option<IpAddr> {
        [Some(self.preferred), self.other]
            .into_iter()
            .flatten()
            .find(|ours| ours.is_ipv4() == peer.is_ipv4())
    }

    /// Ours for a peer that has named no address yet.
    #[must_use]
    pub fn preferred(&self) -> IpAddr {
        self.preferred
    }
}

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
    /// Reads a description. The audio stream is the first `m=audio` line that is not refused,
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
            Some(reachable(SocketAddr::new(ip, media.port), ours)?)
        };
        let rtcp = match rtp {
            None => None,
            Some(rtp) => rtcp_of(media, rtp)
                .map(|rtcp| reachable(rtcp, ours))
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

/// The address itself when media may be sent there.
fn reachable(address: SocketAddr, ours: &MediaAddresses) -> Result<SocketAddr, OfferAnswerError> {
    let ip = address.ip().to_canonical();
    let Some(local) = ours.towards(address.ip()) else {
        return Err(OfferAnswerError::AddressFamily(address.ip()));
    };
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    // A stranger that names loopback would have the edge talk to this machine's own services;
    // only a node that serves loopback itself has peers there.
    let is_foreign_loopback = ip.is_loopback() && !local.is_loopback();
    let must_not = ip.is_unspecified() || ip.is_multicast() || is_broadcast || is_foreign_loopback;
    if must_not || address.port() == 0 || ours.has_socket(address) {
        return Err(OfferAnswerError::AddressRefused(address));
    }
    Ok(address)
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
