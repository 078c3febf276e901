//! The routes that carriers put into a dialog: a private `Contact` behind two `Record-Route` rows
//! of one proxy, which says `r2=on` and changes the transport between them.
//!
//! The bug this guards against drops calls after 32 s: an ACK or BYE that goes to the `Contact`
//! itself, to the last `Route` instead of the first, or to a rewritten address.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, ConnectionId, Flow, SipLegId, TransportKind};

use crate::support::*;

/// How a carrier's edge presents itself to us.
struct Carrier {
    name: &'static str,
    /// Where its messages come from.
    source: &'static str,
    /// Over what.
    kind: TransportKind,
    /// Its rows, top first, as in a request to us.
    routes: &'static [&'static str],
    /// Its private `Contact`.
    contact: &'static str,
    /// Compact header names.
    is_compact: bool,
}

const CARRIERS: [Carrier; 4] = [
    Carrier {
        name: "Twilio",
        source: "54.172.60.0:5060",
        kind: TransportKind::Udp,
        routes: &[
            "<sip:54.172.60.0;transport=udp;r2=on;lr>",
            "<sip:172.18.10.4:5060;transport=tcp;r2=on;lr>",
        ],
        contact: "sip:+15550100@172.18.37.53:5060;transport=udp",
        is_compact: false,
    },
    Carrier {
        name: "Telnyx",
        source: "192.76.120.10:5060",
        kind: TransportKind::Udp,
        routes: &[
            "<sip:192.76.120.10;r2=on;lr;ftag=a1>",
            "<sip:10.13.37.5;transport=tls;r2=on;lr;ftag=a1>",
        ],
        contact: "sip:+15550100@10.31.0.7:6070",
        is_compact: true,
    },
    Carrier {
        name: "SignalWire",
        source: "198.51.100.77:5061",
        kind: TransportKind::Tcp,
        routes: &[
            "<sip:198.51.100.77:5061;transport=tcp;r2=on;lr>",
            "<sip:100.64.9.1:5060;transport=udp;r2=on;lr>",
        ],
        contact: "sip:mod_sofia@100.64.20.2:5080",
        is_compact: false,
    },
    Carrier {
        name: "Bandwidth",
        source: "198.51.100.88:5060",
        kind: TransportKind::Udp,
        routes: &[
            "<sip:198.51.100.88:5060;transport=udp;r2=on;lr>",
            "<sip:192.168.37.68:5060;transport=tcp;r2=on;lr>",
        ],
        contact: "sip:+15550100@192.168.44.9:5060;transport=tcp",
        is_compact: false,
    },
];

impl Carrier {
    fn flow(&self) -> Flow {
        match self.kind {
            TransportKind::Udp => Flow::udp(address(US), address(self.source)),
            _ => Flow::tcp(address(US), address(self.source), Some(ConnectionId(7))),
        }
    }

    fn rows(&self, reversed: bool) -> String {
        let mut routes = self.routes.to_vec();
        if reversed {
            routes.reverse();
        }
        routes
            .iter()
            .map(|route| format!("Record-Route: {route}\r\n"))
            .collect()
    }

    /// A message as this carrier writes it.
    fn dressed(&self, text: &str, rows: &str, contact: &str) -> String {
        let text = text
            .replacen("From:", &format!("{rows}From:"), 1)
            .replace(contact, &format!("<{}>", self.contact));
        if !self.is_compact {
            return text;
        }
        text.replace("Via:", "v:")
            .replace("From:", "f:")
            .replace("\nTo:", "\nt:")
            .replace("Contact:", "m:")
            .replace("Call-ID:", "i:")
            .replace("Content-Type:", "c:")
            .replace("Content-Length:", "l:")
    }

    /// Every request inside the dialog goes to the `Contact` by way of the first route.
    fn assert_routed(&self, sent: &Sent) {
        let (name, label) = (self.name, sent.label());
        assert_eq!(sent.request_uri(), self.contact, "{name} {label}");
        assert_eq!(
            sent.headers(HeaderName::Route),
            self.routes,
            "{name} {label}"
        );
        assert_eq!(sent.transmit.flow, self.flow(), "{name} {label}");
    }

    /// Re-INVITE and BYE of ours on a confirmed leg.
    fn assert_dialog_stays(&self, bench: &mut Bench, leg: SipLegId, peer_tag: &str) {
        bench
            .agent
            .reinvite(bench.now, leg, body(ANSWER))
            .expect("stands");
        let reinvite = bench.sent_one();
        self.assert_routed(&reinvite);
        let ok = reply(&reinvite, 200, peer_tag, OFFER);
        let theirs = format!("<sip:bob@{PEER}>");
        let ok = self.dressed(&ok, "", &theirs);
        bench.receive(&ok);
        self.assert_routed(&bench.sent_one());
        bench.event();
        bench.agent.hangup(bench.now, leg, None).expect("stands");
        let bye = bench.sent_one();
        assert_eq!(bye.label(), "BYE");
        self.assert_routed(&bye);
        bench.event();
        bench.receive(&reply(&bye, 200, peer_tag, ""));
        bench.assert_nothing_is_left();
    }
}

#[test]
fn call_from_each_carrier_is_served_along_its_routes() {
    for carrier in &CARRIERS {
        let mut bench = Bench::new();
        bench.flow = carrier.flow();
        let text = invite("in-1", "z9hG4bKi", OFFER);
        let theirs = format!("<sip:alice@{PEER}>");
        bench.receive(&carrier.dressed(&text, &carrier.rows(false), &theirs));
        let AgentEvent::Invite { leg, .. } = bench.event() else {
            panic!("an INVITE of {}", carrier.name);
        };
        bench
            .agent
            .answer(bench.now, leg, body(ANSWER))
            .expect("answers");
        let ok = bench.sent_one();
        assert_eq!(
            ok.headers(HeaderName::RecordRoute),
            carrier.routes,
            "{}",
            carrier.name
        );
        let tag = ok.tag(HeaderName::To);
        bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
        assert!(matches!(bench.event(), AgentEvent::Confirmed { .. }));
        carrier.assert_dialog_stays(&mut bench, leg, "a1");
    }
}

#[test]
fn call_to_each_carrier_is_acknowledged_and_hung_up_along_its_reversed_routes() {
    for carrier in &CARRIERS {
        let mut bench = Bench::new();
        bench.flow = carrier.flow();
        let (leg, invite) = bench.outgoing();
        let theirs = format!("<sip:bob@{PEER}>");
        // Reliable ringing forms the dialog first.
        let ringing = reply(&invite, 183, "b1", OFFER);
        let ringing = ringing.replacen("From:", "Require: 100rel\r\nRSeq: 1\r\nFrom:", 1);
        bench.receive(&carrier.dressed(&ringing, &carrier.rows(true), &theirs));
        let prack = bench.sent_one();
        assert_eq!(prack.label(), "PRACK");
        carrier.assert_routed(&prack);
        let ok = reply(&invite, 200, "b1", OFFER);
        bench.receive(&carrier.dressed(&ok, &carrier.rows(true), &theirs));
        let ack = bench.sent_one();
        assert_eq!(ack.label(), "ACK");
        carrier.assert_routed(&ack);
        bench.events();
        carrier.assert_dialog_stays(&mut bench, leg, "b1");
    }
}
