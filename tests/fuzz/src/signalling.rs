//! SDP bodies and SIP datagrams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use sipx_sip::{Limits, parse_datagram};
use trunkline_edge_api::{LegIndex, MonoTime, RtcpMode};
use trunkline_sip::entropy::SeededEntropy;
use trunkline_sip::offer_answer::{
    KeySource, LocalDescription, MediaAddresses, MediaNegotiation, SrtpPolicy,
};
use trunkline_sip::{Agent, AgentConfig, AgentEvent, Flow, SipLegId};

/// Timers that may run out after the last datagram: more than an input can start.
const TIMERS_MAX: usize = 100_000;

/// Reads the input as the caller's offer, then the offer in our words is answered with what
/// follows a line `=====`; whatever comes out is a body that we read ourselves.
pub fn sdp(input: &[u8]) {
    let (offer, answer) = split(input, b"\n=====\n");
    let ours: [IpAddr; 2] = [
        Ipv4Addr::new(203, 0, 113, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let Some(addresses) = MediaAddresses::new(&ours.map(Into::into)) else {
        return;
    };
    let local = |port: u16, session_id| LocalDescription {
        rtp: SocketAddr::new(ours[0], port),
        rtcp: RtcpMode::Separate,
        session_id,
    };
    let negotiation = || {
        let keys = KeySource::draw(&mut SeededEntropy::new(42));
        MediaNegotiation::new(addresses.clone(), [SrtpPolicy::Preferred; 2], keys)
    };
    let mut echo = negotiation();
    let mut negotiation = negotiation();
    if let Err(error) = negotiation.offer_from_caller(offer) {
        assert!(matches!(error.status(), 400 | 488 | 491 | 500), "{error}");
        return;
    }
    let Ok(ours) = negotiation.offer_for_callee(local(30_002, 2)) else {
        return;
    };
    echo.offer_from_caller(&ours)
        .expect("what we write we can read");
    if negotiation.answer_from_callee(answer).is_err() {
        return;
    }
    let _ = negotiation.answer_for_caller(local(30_000, 1));
    for leg in LegIndex::ALL {
        let config = negotiation.leg_config(leg, None);
        for remote in [config.remote_rtp, config.remote_rtcp]
            .into_iter()
            .flatten()
        {
            let ip = remote.ip();
            assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast());
            assert_ne!(remote.port(), 0);
        }
    }
    for leg in LegIndex::ALL {
        if negotiation.reoffer(leg, answer).is_ok() {
            let _ = negotiation.reanswer(leg.far(), offer);
        }
    }
}

fn split<'a>(input: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    let found = input
        .windows(separator.len())
        .position(|window| window == separator);
    match found {
        Some(at) => (&input[..at], &input[at + separator.len()..]),
        None => (input, &[]),
    }
}

/// Hands the parts of the input, separated by NUL, to a SIP agent as datagrams, a second apart,
/// and answers what it asks. Once all is hung up and every timer has run out it keeps nothing.
pub fn sip_message(input: &[u8]) {
    let us = SocketAddr::from(([203, 0, 113, 1], 5060));
    let peer = SocketAddr::from(([198, 51, 100, 9], 5060));
    let flow = Flow::udp(us, peer);
    let mut user = User {
        agent: Agent::new(AgentConfig::default(), Box::new(SeededEntropy::new(42))),
        now: MonoTime(1_000_000_000),
        legs: Vec::new(),
    };
    for datagram in input.split(|byte| *byte == 0) {
        let bytes = Bytes::copy_from_slice(datagram);
        match parse_datagram(bytes.clone(), &Limits::datagram()) {
            Ok(message) => user.agent.handle_message(user.now, flow.clone(), message),
            Err(error) => user.agent.handle_malformed(&flow, &bytes, &error),
        }
        user.react(datagram);
        user.now = user.now.plus_secs(1);
        user.agent.handle_timeout(user.now);
        user.react(datagram);
    }
    for leg in std::mem::take(&mut user.legs) {
        // One that has ended by itself is not there any more.
        let _ = user.agent.hangup(user.now, leg, None);
    }
    for _ in 0..TIMERS_MAX {
        user.react(&[]);
        let Some(next) = user.agent.poll_timeout() else {
            break;
        };
        user.now = user.now.max(next);
        user.agent.handle_timeout(user.now);
    }
    assert_eq!(user.agent.legs_len(), 0, "no leg outlives its end");
    assert_eq!(
        user.agent.transactions_len(),
        0,
        "no transaction outlives its timers"
    );
}

/// What stands behind an agent.
struct User {
    agent: Agent,
    now: MonoTime,
    /// Every leg that ever was.
    legs: Vec<SipLegId>,
}

impl User {
    /// Does what the call machine would; the bytes of `datagram` choose.
    fn react(&mut self, datagram: &[u8]) {
        let choice = datagram.last().copied().unwrap_or_default();
        let sdp = Bytes::from_static(b"v=0\r\n");
        while let Some(event) = self.agent.poll_event() {
            // An order may cross the end of its leg.
            let _ = match event {
                AgentEvent::Invite { leg, .. } => {
                    self.legs.push(leg);
                    match choice % 3 {
                        0 => self.agent.answer(self.now, leg, sdp.clone()),
                        1 => self.agent.reject(self.now, leg, 486, None, Vec::new()),
                        _ => self.agent.provisional(self.now, leg, 180, None),
                    }
                }
                AgentEvent::Offer { leg, .. } if choice % 2 == 0 => {
                    self.agent.accept_offer(self.now, leg, sdp.clone())
                }
                AgentEvent::Offer { leg, .. } => self.agent.reject_offer(self.now, leg, 488),
                AgentEvent::Request { id, .. } => {
                    // Its sender may have gone.
                    let _ = self
                        .agent
                        .respond(self.now, id, 200, Vec::new(), Bytes::new());
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        while let Some(transmit) = self.agent.poll_transmit() {
            assert!(!transmit.bytes.is_empty());
        }
    }
}
