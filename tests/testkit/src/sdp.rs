//! The little SDP (RFC 8866) that a phone with one audio stream needs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::srtp::CryptoLine;

/// One format of the audio stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    /// 0 … 127.
    pub payload_type: u8,
    /// As in `a=rtpmap`: `PCMU/8000`.
    pub rtpmap: String,
    /// As in `a=fmtp`, without the number.
    pub fmtp: Option<String>,
}

impl Codec {
    /// A codec without format parameters.
    #[must_use]
    pub fn new(payload_type: u8, rtpmap: &str) -> Self {
        Self {
            payload_type,
            rtpmap: rtpmap.to_owned(),
            fmtp: None,
        }
    }

    /// G.711 µ-law.
    #[must_use]
    pub fn pcmu() -> Self {
        Self::new(0, "PCMU/8000")
    }

    /// DTMF events (RFC 4733) under `payload_type`.
    #[must_use]
    pub fn telephone_event(payload_type: u8) -> Self {
        Self {
            fmtp: Some("0-15".to_owned()),
            ..Self::new(payload_type, "telephone-event/8000")
        }
    }
}

/// Which way media flows, as the describer says it (RFC 8866 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// From the describer only.
    SendOnly,
    /// To the describer only.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// What an answerer says who goes along with this offer (RFC 3264 §6.1).
    #[must_use]
    pub const fn answered(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }
}

/// One audio stream: what a phone offers, answers or is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioDescription {
    /// Where the describer listens.
    pub rtp: SocketAddr,
    /// In order of preference.
    pub codecs: Vec<Codec>,
    /// Seen from the describer.
    pub direction: Direction,
    /// `sess-id` and `sess-version` of the `o=` line.
    pub origin: (u64, u64),
    /// The describer shares its RTP port with RTCP (RFC 5761).
    pub rtcp_mux: bool,
    /// Keys of what the describer sends, in order of preference; with any the stream is RTP/SAVP
    /// (RFC 4568).
    pub crypto: Vec<CryptoLine>,
}

impl AudioDescription {
    /// PCMU and telephone-event at `rtp`, both ways.
    #[must_use]
    pub fn pcmu(rtp: SocketAddr) -> Self {
        Self {
            rtp,
            codecs: vec![Codec::pcmu(), Codec::telephone_event(101)],
            direction: Direction::SendRecv,
            origin: (1, 1),
            rtcp_mux: false,
            crypto: Vec::new(),
        }
    }

    /// The same, protected with the key of one of these lines.
    #[must_use]
    pub fn with_crypto(mut self, crypto: &[CryptoLine]) -> Self {
        self.crypto = crypto.to_vec();
        self
    }

    /// The description as a message body.
    #[must_use]
    pub fn to_sdp(&self) -> String {
        let family = match self.rtp.ip() {
            IpAddr::V4(_) => "IP4",
            IpAddr::V6(_) => "IP6",
        };
        let ip = self.rtp.ip();
        let (id, version) = self.origin;
        let mut sdp = format!(
            "v=0\r\no=phone {id} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {} RTP/{}",
            self.rtp.port(),
            if self.crypto.is_empty() {
                "AVP"
            } else {
                "SAVP"
            }
        );
        for codec in &self.codecs {
            let _ = write!(sdp, " {}", codec.payload_type);
        }
        sdp.push_str("\r\n");
        for line in &self.crypto {
            let _ = write!(sdp, "a=crypto:{}\r\n", line.to_value());
        }
        for codec in &self.codecs {
            let _ = write!(sdp, "a=rtpmap:{} {}\r\n", codec.payload_type, codec.rtpmap);
            if let Some(fmtp) = &codec.fmtp {
                let _ = write!(sdp, "a=fmtp:{} {fmtp}\r\n", codec.payload_type);
            }
        }
        let _ = write!(sdp, "a=ptime:20\r\na={}\r\n", self.direction.as_str());
        if self.rtcp_mux {
            sdp.push_str("a=rtcp-mux\r\n");
        }
        sdp
    }

    /// Reads the first audio stream; `None` when there is none or it cannot be read.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut session_ip = None;
        let mut media_ip = None;
        let mut origin = None;
        let mut media: Option<(u16, Vec<u8>)> = None;
        let mut direction = Direction::SendRecv;
        let mut rtcp_mux = false;
        let mut crypto = Vec::new();
        let mut rtpmaps: Vec<(u8, String)> = Vec::new();
        let mut fmtps: Vec<(u8, String)> = Vec::new();
        for line in text.lines() {
            let (kind, value) = line.split_once('=')?;
            match kind {
                "o" => {
                    let mut fields = value.split(' ').skip(1);
                    origin = Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?));
                }
                "c" => {
                    let ip = value.split(' ').nth(2)?.parse().ok()?;
                    if media.is_some() {
                        media_ip = Some(ip);
                    } else {
                        session_ip = Some(ip);
                    }
                }
                "m" if media.is_some() => break,
                "m" => {
                    let mut fields = value.split(' ');
                    if fields.next()? != "audio" {
                        return None;
                    }
                    let port = fields.next()?.parse().ok()?;
                    let formats = fields.skip(1).map(|format| format.parse().ok());
                    media = Some((port, formats.collect::<Option<_>>()?));
                }
                "a" => match value.split_once(':') {
                    Some(("rtpmap", map)) => rtpmaps.push(numbered(map)?),
                    Some(("crypto", line)) => crypto.push(CryptoLine::parse(line)?),
                    Some(("fmtp", parameters)) => fmtps.push(numbered(parameters)?),
                    None if value == "rtcp-mux" => rtcp_mux = true,
                    _ => direction = parse_direction(value).unwrap_or(direction),
                },
                _ => {}
            }
        }
        let (port, formats) = media?;
        let find = |list: &[(u8, String)], number: u8| {
            list.iter()
                .find(|(known, _)| *known == number)
                .map(|(_, text)| text.clone())
        };
        let codecs = formats
            .into_iter()
            .map(|payload_type| Codec {
                payload_type,
                rtpmap: find(&rtpmaps, payload_type)
                    .unwrap_or_else(|| static_rtpmap(payload_type).to_owned()),
                fmtp: find(&fmtps, payload_type),
            })
            .collect();
        Some(Self {
            rtp: SocketAddr::new(media_ip.or(session_ip)?, port),
            codecs,
            direction,
            origin: origin?,
            rtcp_mux,
            crypto,
        })
    }

    /// What this phone, as `self`, answers to `offer`: the offered formats it knows too, under
    /// the offer's numbers (RFC 3264 §6.1).
    #[must_use]
    pub fn answer_to(&self, offer: &AudioDescription) -> AudioDescription {
        let mine = |codec: &&Codec| {
            self.codecs
                .iter()
                .any(|own| own.rtpmap.eq_ignore_ascii_case(&codec.rtpmap))
        };
        AudioDescription {
            rtp: self.rtp,
            codecs: offer.codecs.iter().filter(mine).cloned().collect(),
            direction: offer.direction.answered(),
            origin: self.origin,
            rtcp_mux: self.rtcp_mux && offer.rtcp_mux,
            crypto: self.crypto.clone(),
        }
    }
}

fn numbered(value: &str) -> Option<(u8, String)> {
    let (number, rest) = value.split_once(' ')?;
    Some((number.parse().ok()?, rest.to_owned()))
}

fn parse_direction(value: &str) -> Option<Direction> {
    [
        Direction::SendRecv,
        Direction::SendOnly,
        Direction::RecvOnly,
        Direction::Inactive,
    ]
    .into_iter()
    .find(|direction| direction.as_str() == value)
}

/// RFC 3551 §6, the numbers that need no `a=rtpmap`.
fn static_rtpmap(payload_type: u8) -> &'static str {
    match payload_type {
        0 => "PCMU/8000",
        8 => "PCMA/8000",
        9 => "G722/8000",
        18 => "G729/8000",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_reads_back_as_written_in_both_families() {
        for rtp in ["127.0.0.1:4000", "[::1]:4000"] {
            let mut description = AudioDescription::pcmu(rtp.parse().unwrap());
            description.direction = Direction::SendOnly;
            description.origin = (9, 4);
            description.rtcp_mux = rtp.contains('[');
            if description.rtcp_mux {
                let line = CryptoLine::random(3, "AES_CM_128_HMAC_SHA1_80").unwrap();
                description = description.with_crypto(&[line]);
            }
            let parsed = AudioDescription::parse(description.to_sdp().as_bytes());
            assert_eq!(parsed, Some(description));
        }
    }

    #[test]
    fn connection_line_of_the_stream_wins_over_the_session() {
        let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n";
        let parsed = AudioDescription::parse(sdp.as_bytes()).unwrap();
        assert_eq!(parsed.rtp, "192.0.2.2:4000".parse().unwrap());
        assert_eq!(parsed.codecs, [Codec::pcmu()]);
    }

    #[test]
    fn answer_keeps_the_offers_numbers_and_turns_its_direction() {
        let mut offer = AudioDescription::pcmu("127.0.0.1:4000".parse().unwrap());
        offer.codecs = vec![
            Codec::new(8, "PCMA/8000"),
            Codec::pcmu(),
            Codec::telephone_event(97),
        ];
        offer.direction = Direction::SendOnly;
        let answer = AudioDescription::pcmu("127.0.0.1:5000".parse().unwrap()).answer_to(&offer);
        let numbers: Vec<u8> = answer
            .codecs
            .iter()
            .map(|codec| codec.payload_type)
            .collect();
        assert_eq!(numbers, [0, 97]);
        assert_eq!(answer.direction, Direction::RecvOnly);
    }
}
