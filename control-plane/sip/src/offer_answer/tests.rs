mod addresses;
mod answer;
mod bodies;
mod offer;
mod properties;
mod reoffer;
mod sdes;
mod transcoding;

use std::net::{IpAddr, SocketAddr};

use sipx_sdp::Direction;
use trunkline_edge_api::{
    LegConfig, LegIndex, MediaDirection, PortRange, RtcpMode, SourceNetwork, SourceNetworks,
    SourcePolicy,
};

use super::*;
use crate::entropy::SeededEntropy;
use bodies::*;

const OURS: &str = "192.0.2.1";

fn addresses() -> MediaAddresses {
    MediaAddresses::new(&[ip(OURS).into(), ip("2001:db8::1").into()]).expect("two")
}

fn negotiation(policies: [SrtpPolicy; 2]) -> MediaNegotiation {
    MediaNegotiation::new(
        addresses(),
        policies,
        KeySource::draw(&mut SeededEntropy::new(7)),
    )
}

fn plain_negotiation() -> MediaNegotiation {
    negotiation([SrtpPolicy::Off; 2])
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address with port")
}

fn local(port: u16) -> LocalDescription {
    LocalDescription {
        rtp: SocketAddr::new(ip(OURS), port),
        rtcp: RtcpMode::Separate,
        session_id: u64::from(port) << 20,
    }
}

const LOCAL_A: u16 = 30_000;
const LOCAL_B: u16 = 30_002;

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).expect("what we write is ASCII")
}

/// One audio line at `addr` with `formats` and the attribute lines given.
fn sdp(addr: &str, formats: &str, attributes: &[&str]) -> String {
    let addr: SocketAddr = addr.parse().expect("an address with port");
    let family = if addr.is_ipv4() { "IP4" } else { "IP6" };
    let mut body = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\n",
        ip = addr.ip(),
        port = addr.port()
    );
    for attribute in attributes {
        body.push_str(&format!("a={attribute}\r\n"));
    }
    body
}

/// Where the caller's media is, when it does not matter where.
const CALLER: &str = "198.51.100.7:4000";

/// Where the callee's media is, when it does not matter where.
const CALLEE: &str = "198.51.100.8:4000";

/// The plainest description there is.
fn pcmu(addr: &str) -> String {
    sdp(addr, "0", &[])
}

/// A call up to the caller's answer.
fn answered(offer: &str, answer: &str) -> (MediaNegotiation, Bytes, Bytes) {
    let mut media = plain_negotiation();
    media.offer_from_caller(offer.as_bytes()).expect("an offer");
    let to_callee = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    let to_caller = media.answer_for_caller(local(LOCAL_A)).expect("in order");
    (media, to_callee, to_caller)
}

fn audio_of(body: &Bytes) -> RemoteAudio {
    RemoteAudio::parse(body, &addresses(), SrtpPolicy::Off).expect("what we write can be read")
}

/// `payload type=encoding` in order, for short tables.
fn formats(audio: &RemoteAudio) -> Vec<String> {
    let format =
        |codec: &AudioCodec| format!("{}={}", codec.payload_type.get(), codec.encoding.rtpmap());
    audio.codecs.iter().map(format).collect()
}

fn route_numbers(config: &LegConfig) -> Vec<(u8, u8)> {
    let routes = config.routes.as_slice().iter();
    routes
        .map(|route| (route.from.get(), route.to.get()))
        .collect()
}

fn version(body: &Bytes) -> u64 {
    let session = sipx_sdp::parse(text(body)).expect("what we write can be read");
    session.origin.session_version
}

#[test]
fn steps_out_of_order_are_refused_and_harmless() {
    let body = pcmu(CALLEE);
    let mut media = plain_negotiation();
    let out_of_order = Err(OfferAnswerError::OutOfOrder);
    assert_eq!(media.offer_for_callee(local(LOCAL_B)), out_of_order);
    assert_eq!(
        media.answer_from_callee(body.as_bytes()),
        Err(OfferAnswerError::OutOfOrder)
    );
    assert_eq!(media.answer_for_caller(local(LOCAL_A)), out_of_order);
    assert_eq!(media.reoffer(LegIndex::A, body.as_bytes()), out_of_order);
    assert_eq!(media.reanswer(LegIndex::B, body.as_bytes()), out_of_order);
    media.abandon_reoffer();
    assert_eq!(media.offer_from_caller(body.as_bytes()), Ok(()));
}
