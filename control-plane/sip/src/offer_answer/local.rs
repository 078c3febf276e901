//! What we describe to a leg's peer: the body, its `o=` line and its version.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sdp::{
    Attribute, Connection, Direction, MediaDescription, Origin, SessionDescription, Timing,
};
use trunkline_edge_api::RtcpMode;

use super::codec::AudioCodec;
use super::remote::MediaLines;
use super::sdes::CryptoLine;

/// Where a leg's media lives on our side, for the life of the leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDescription {
    /// The bound RTP address. Its port goes into `m=`; `c=` and `o=` have the address that
    /// [`MediaAddress`](trunkline_edge_api::config::MediaAddress) advertises for it.
    pub rtp: SocketAddr,
    /// What is bound for RTCP. With [`RtcpMode::Separate`] the port above RTP is announced as
    /// the fallback for a peer that does not multiplex.
    pub rtcp: RtcpMode,
    /// `o=` session id, chosen at random per leg. The top bit is ignored: some peers read a
    /// signed number.
    pub session_id: u64,
}

impl LocalDescription {
    /// Where a peer that does not multiplex sends its RTCP.
    fn rtcp_port(&self) -> u16 {
        match self.rtcp {
            RtcpMode::Muxed => self.rtp.port(),
            RtcpMode::Separate => self.rtp.port().saturating_add(1),
        }
    }
}

/// The stream as we describe it, before it becomes text.
pub(super) struct LocalAudio<'a> {
    pub(super) lines: &'a MediaLines,
    pub(super) codecs: &'a [AudioCodec],
    pub(super) direction: Direction,
    pub(super) rtcp: LocalRtcp,
    /// Our keys; none over plain RTP.
    pub(super) crypto: &'a [CryptoLine],
    pub(super) ptime_ms: Option<u16>,
    pub(super) maxptime_ms: Option<u16>,
}

/// What a description says of RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalRtcp {
    /// Answer to a peer that does not multiplex: its port alone.
    Separate,
    /// Offer: share the RTP port, else this port (RFC 5761 §5.1.3).
    Offered,
    /// Answer to a peer that offered to share: there is no other port.
    Muxed,
}

/// The description a leg's peer has of us, and what it was told last.
#[derive(Clone)]
pub(super) struct Describer {
    local: LocalDescription,
    /// What stands for the bound address in the body.
    advertised: IpAddr,
    last: Option<(SessionDescription, Bytes)>,
}

/// What was told may hold keys.
impl fmt::Debug for Describer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Describer")
            .field("local", &self.local)
            .field("advertised", &self.advertised)
            .finish_non_exhaustive()
    }
}

impl Describer {
    pub(super) fn new(local: LocalDescription, advertised: IpAddr) -> Self {
        Self {
            local,
            advertised,
            last: None,
        }
    }

    /// The leg's sockets, if they moved. The session keeps its id.
    pub(super) fn relocate(&mut self, local: LocalDescription, advertised: IpAddr) {
        self.advertised = advertised;
        self.local = LocalDescription {
            session_id: self.local.session_id,
            ..local
        };
    }

    /// Whether `address` is one of the leg's sockets, as they are bound or as peers know them.
    pub(super) fn occupies(&self, address: SocketAddr) -> bool {
        let ports = [self.local.rtp.port(), self.local.rtcp_port()];
        let ips = [self.local.rtp.ip(), self.advertised];
        ips.contains(&address.ip()) && ports.contains(&address.port())
    }

    /// The body for `audio`. When nothing changed since the last body it is that body again;
    /// otherwise the version is one higher (RFC 3264 §8), also when the last one was refused.
    pub(super) fn describe(&mut self, audio: &LocalAudio<'_>) -> Bytes {
        let mut description = self.describe_unversioned(audio);
        if let Some((last, body)) = &self.last {
            description.origin.session_version = last.origin.session_version;
            if *last == description {
                return body.clone();
            }
            description.origin.session_version += 1;
        }
        let body = Bytes::from(description.to_string_sdp());
        self.last = Some((description, body.clone()));
        body
    }

    fn describe_unversioned(&self, audio: &LocalAudio<'_>) -> SessionDescription {
        let ip = self.advertised;
        let lines = audio.lines.lines.iter().enumerate();
        let media = lines.map(|(index, line)| {
            if index == audio.lines.audio {
                self.audio_line(audio, line.protocol.clone())
            } else {
                MediaDescription {
                    media: line.media.clone(),
                    port: 0,
                    protocol: line.protocol.clone(),
                    ..MediaDescription::audio(0, vec![line.format.clone()])
                }
            }
        });
        SessionDescription {
            origin: Origin::new(ip, self.local.session_id & (u64::MAX >> 1), 1),
            session_name: "-".to_owned(),
            connection: Some(Connection::new(ip)),
            timing: vec![Timing::default()],
            attributes: Vec::new(),
            media: media.collect(),
            other: Vec::new(),
        }
    }

    fn audio_line(&self, audio: &LocalAudio<'_>, protocol: String) -> MediaDescription {
        let formats = audio
            .codecs
            .iter()
            .map(|codec| codec.payload_type.get().to_string());
        let mut line = MediaDescription {
            protocol,
            ..MediaDescription::audio(self.local.rtp.port(), formats.collect())
        };
        for crypto in audio.crypto {
            line.attributes
                .push(Attribute::valued("crypto", crypto.to_value()));
        }
        for codec in audio.codecs {
            let number = codec.payload_type.get();
            let rtpmap = format!("{number} {}", codec.encoding.rtpmap());
            line.attributes.push(Attribute::valued("rtpmap", rtpmap));
            if let Some(fmtp) = &codec.fmtp {
                line.attributes
                    .push(Attribute::valued("fmtp", format!("{number} {fmtp}")));
            }
        }
        let times = [("ptime", audio.ptime_ms), ("maxptime", audio.maxptime_ms)];
        for (name, milliseconds) in times {
            if let Some(milliseconds) = milliseconds {
                line.attributes
                    .push(Attribute::valued(name, milliseconds.to_string()));
            }
        }
        line.attributes
            .push(Attribute::flag(audio.direction.as_str()));
        if audio.rtcp != LocalRtcp::Muxed {
            let rtcp_port = self.local.rtcp_port().to_string();
            line.attributes.push(Attribute::valued("rtcp", rtcp_port));
        }
        if audio.rtcp != LocalRtcp::Separate {
            line.attributes.push(Attribute::flag("rtcp-mux"));
        }
        line
    }
}
