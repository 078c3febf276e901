//! Whole calls through the switch: SIP text in and out, a worker that answers every command.

use bytes::Bytes;
use sipx_sip::{Limits, parse_datagram};
use trunkline_edge_api::{
    CloseCause, Command, Epoch, Event, LegReport, MonoTime, PortRange, SessionReport, WorkerIndex,
};
use trunkline_sip::entropy::SeededEntropy;
use trunkline_sip::flow::{LocalEnd, LocalEnds, TransportKind};
use trunkline_sip::offer_answer::SrtpPolicy;

use super::*;
use crate::cdr::{CallResult, EndedBySide};
use crate::credential::Credential;
use crate::party::PartyAudio;
use crate::site::Availability;
use crate::store::{MemberRoute, TrunkRoute};
use crate::trunk::{MemberOutbound, TrunkSettings};

const UNIX_MS: i64 = 1_700_000_000_000;
const WORKER: WorkerIndex = WorkerIndex(0);
const REALM: &str = "trunkline";
const CARRIER: &str = "192.0.2.2:5060";
const PHONE: &str = "192.0.2.50:5062";
const STRANGER: &str = "192.0.2.99:5060";

struct Bench {
    switch: Switch,
    now: MonoTime,
    /// Commands in the order the worker took them.
    commands: Vec<Command>,
    /// What was sent, with its destination.
    sent: Vec<(String, String)>,
    cseq: u32,
}

fn tenant() -> crate::site::Name {
    "demo".parse().expect("a name")
}

fn members() -> Vec<MemberRoute> {
    let member = |extension: &str, sip_user: &str, availability| MemberRoute {
        tenant: tenant(),
        extension: extension.parse().expect("an extension"),
        name: "Ada".to_owned(),
        sip_user: sip_user.parse().expect("a SIP user"),
        credential: Credential::new(sip_user, REALM, "secret"),
        forward_number: None,
        forwards: Default::default(),
        availability,
        srtp: SrtpPolicy::Off,
        media: None,
        audio: PartyAudio::default(),
        outbound: MemberOutbound::default(),
        numbers: Vec::new(),
    };
    vec![
        member("100", "ada", Availability::Online),
        member("102", "off", Availability::Offline),
    ]
}

fn dids() -> Vec<(crate::site::E164, crate::site::Name, crate::site::Extension)> {
    let did = |number: &str, extension: &str| {
        let number = number.parse().expect("E.164");
        (number, tenant(), extension.parse().expect("an extension"))
    };
    vec![did("+12025550100", "100"), did("+12025550102", "102")]
}

fn site() -> RoutingSnapshot {
    let trunk = TrunkRoute {
        name: "carrier".parse().expect("a name"),
        tenant: tenant(),
        sources: vec!["192.0.2.2/32".parse().expect("a network")],
        srtp: SrtpPolicy::Off,
        media_from: Vec::new(),
        media: None,
        audio: PartyAudio::default(),
        settings: TrunkSettings::default(),
    };
    RoutingSnapshot::new(vec![trunk], members(), dids())
}

/// The socket that the bench plays.
fn local_ends() -> Arc<LocalEnds> {
    Arc::new(LocalEnds::new(vec![LocalEnd {
        kind: TransportKind::Udp,
        address: "192.0.2.1:5060".parse().expect("an address"),
        advertised: None,
    }]))
}

impl Bench {
    fn new() -> Self {
        let address: std::net::IpAddr = "198.51.100.1".parse().expect("an address");
        let config = SwitchConfig {
            realm: REALM.to_owned(),
            digest_algorithms: vec![Algorithm::Md5, Algorithm::Sha256],
            local_ends: local_ends(),
            ring_timeout_secs: 30,
            media_timeouts: MediaTimeouts::OFF,
            calls_max: 10,
            transactions_max: 100,
            session_expires_secs: 1_800,
            session_expires_min_secs: 90,
            registrar: RegistrarConfig {
                bindings_max: 10,
                ..RegistrarConfig::default()
            },
            trace_bytes_max: 1 << 20,
            is_trace_exported: false,
            media_addresses: MediaAddresses::new(&[address.into()]).expect("one address"),
            media: MediaPolicy {
                prompts_dir: "/prompts".into(),
                recordings_dir: "/recordings".into(),
                codecs: vec![trunkline_edge_api::AudioCodec::Pcmu],
                hold_music: None,
                shows_digits: true,
            },
            epoch: Epoch(9),
        };
        let entropy = |seed| Box::new(SeededEntropy::new(seed));
        let mut switch = Switch::new(config, entropy(1), entropy(2)).expect("a plain realm");
        switch.set_snapshot(Arc::new(site()));
        let mut bench = Self {
            switch,
            now: MonoTime(1_000_000_000),
            commands: Vec::new(),
            sent: Vec::new(),
            cseq: 0,
        };
        let ports = PortRange::new(30_000, 30_099).expect("valid");
        let workers = [WorkerInfo {
            worker: WORKER,
            ports,
            generation: 1,
        }];
        bench
            .switch
            .handle_edge_connected(bench.now, UNIX_MS, &workers);
        bench.settle();
        bench
    }

    /// Lets the worker answer and the messages go out.
    fn settle(&mut self) {
        while let Some(command) = self.switch.peek_command(WORKER).cloned() {
            self.switch.proxy_mut().command_sent(WORKER);
            if let Command::CloseSession { session } = command.command {
                let legs = [LegReport {
                    rx_packets: 7,
                    ..LegReport::default()
                }; 2];
                let report = SessionReport { session, legs };
                let closed = Event::SessionClosed {
                    cause: CloseCause::Commanded,
                    report,
                };
                self.switch.handle_worker_event(self.now, UNIX_MS, closed);
            }
            let correlation = command.correlation;
            let done = Event::CommandDone {
                correlation,
                result: Ok(()),
            };
            self.switch.handle_worker_event(self.now, UNIX_MS, done);
            self.commands.push(command.command);
        }
        while let Some(transmit) = self.switch.poll_transmit() {
            let text = String::from_utf8_lossy(&transmit.bytes).into_owned();
            self.sent.push((transmit.flow.remote.to_string(), text));
        }
    }

    fn receive(&mut self, from: &str, text: &str) {
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        let message = parse_datagram(bytes, &Limits::datagram()).expect("a message");
        let local = "198.51.100.1:5060".parse().expect("an address");
        let flow = Flow::udp(local, from.parse().expect("an address"));
        self.switch.handle_message(self.now, UNIX_MS, flow, message);
        self.settle();
    }

    /// Takes the first message to `to` that begins with `start`.
    fn take(&mut self, to: &str, start: &str) -> String {
        let at = self
            .sent
            .iter()
            .position(|(remote, text)| remote == to && text.starts_with(start))
            .unwrap_or_else(|| panic!("no {start:?} to {to} in {:#?}", self.sent));
        self.sent.remove(at).1
    }

    fn request(&mut self, method: &str, from: &str, uri: &str, extra: &str, body: &str) {
        self.cseq += 1;
        let (cseq, len) = (self.cseq, body.replace('\n', "\r\n").len());
        let user = if from == PHONE { "ada" } else { "+12025550199" };
        self.receive(
            from,
            &format!(
                "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{cseq}\n\
                 Max-Forwards: 70\nFrom: <sip:{user}@example.net>;tag=f{user}\n\
                 To: <{to}>\nCall-ID: call-{user}\nCSeq: {cseq} {method}\n\
                 Contact: <sip:{user}@{from}>\n{extra}Content-Length: {len}\n\n{body}",
                to = if method == "REGISTER" {
                    "sip:ada@example.net"
                } else {
                    uri
                },
            ),
        );
    }

    fn register_phone(&mut self) {
        self.register_phone_with("");
    }

    /// Registers with further headers and gives the 200.
    fn register_phone_with(&mut self, extra: &str) -> String {
        self.authorized("REGISTER", "sip:198.51.100.1", extra, "");
        self.take(PHONE, "SIP/2.0 200")
    }

    /// Sends a request of the phone's, and again with what its challenge asks for.
    fn authorized(&mut self, method: &str, uri: &str, extra: &str, body: &str) {
        self.request(method, PHONE, uri, extra, body);
        let challenge = self.take(PHONE, "SIP/2.0 401");
        let line = challenge
            .lines()
            .find(|line| line.starts_with("WWW-Authenticate") && line.contains("SHA-256"))
            .expect("SHA-256 is offered");
        let (_, value) = line.split_once(": ").expect("a header");
        let challenge = sipx_sip::auth::Challenge::parse(value.as_bytes(), false);
        let credentials = sipx_sip::auth::Credentials::new("ada", "secret");
        let challenge = challenge.expect("a challenge");
        let answer = sipx_sip::auth::respond(&challenge, &credentials, method, uri, 1, "abc");
        let extra = format!("Authorization: {answer}\n{extra}");
        self.request(method, PHONE, uri, &extra, body);
    }

    fn invite(&mut self, from: &str, number: &str) {
        let uri = &format!("sip:{number}@198.51.100.1");
        let body = sdp(from, 4_000);
        self.request(
            "INVITE",
            from,
            uri,
            "Content-Type: application/sdp\n",
            &body,
        );
    }
}

fn sdp(at: &str, port: u16) -> String {
    let ip = at.split(':').next().expect("an address");
    format!("v=0\no=- 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=audio {port} RTP/AVP 0\n")
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let mut lines = message.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(found, _)| *found == name)
        .map_or("", |(_, value)| value)
}

/// A response of the phone to our INVITE, in dialog terms.
fn answer_to(invite: &str, status: &str, body: &str) -> String {
    let content = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/sdp\n"
    };
    format!(
        "SIP/2.0 {status}\nVia: {}\nFrom: {}\nTo: {};tag=phone\nCall-ID: {}\nCSeq: {}\n\
         Contact: <sip:ada@{PHONE}>\n{content}Content-Length: {}\n\n{body}",
        header(invite, "Via"),
        header(invite, "From"),
        header(invite, "To"),
        header(invite, "Call-ID"),
        header(invite, "CSeq"),
        body.replace('\n', "\r\n").len(),
    )
}

#[test]
fn did_reaches_the_members_phone_and_nothing_of_the_caller_shows() {
    let mut bench = Bench::new();
    bench.register_phone();
    bench.invite(CARRIER, "+12025550100");

    let invite = bench.take(PHONE, "INVITE sip:ada@192.0.2.50:5062 SIP/2.0");
    assert!(header(&invite, "From").contains("sip:+12025550199@198.51.100.1"));
    assert!(
        !invite.contains("192.0.2.2"),
        "the carrier's address shows:\n{invite}"
    );
    assert!(
        !invite.contains("call-+12025550199"),
        "the caller's Call-ID shows:\n{invite}"
    );
    assert_eq!(header(&invite, "Max-Forwards"), "69");
    assert!(invite.contains("c=IN IP4 198.51.100.1"));
    let is_open = |command: &Command| matches!(command, Command::OpenLeg { .. });
    assert_eq!(bench.commands.iter().filter(|c| is_open(c)).count(), 2);

    bench.receive(PHONE, &answer_to(&invite, "180 Ringing", ""));
    bench.take(CARRIER, "SIP/2.0 180");
    let answer = answer_to(&invite, "200 OK", &sdp(PHONE, 5_000));
    bench.receive(PHONE, &answer);
    bench.take(PHONE, "ACK sip:ada@192.0.2.50:5062 SIP/2.0");
    let ok = bench.take(CARRIER, "SIP/2.0 200");
    assert!(
        !ok.contains("192.0.2.50"),
        "the phone's address shows:\n{ok}"
    );
    assert_eq!(bench.switch.calls(bench.now, 10)[0].state, "up");

    // The caller acknowledges and hangs up, in the dialog that our 200 made.
    let to = header(&ok, "To").to_owned();
    for (cseq, method) in [(bench.cseq, "ACK"), (bench.cseq + 1, "BYE")] {
        bench.receive(
            CARRIER,
            &format!(
                "{method} sip:198.51.100.1:5060 SIP/2.0\n\
                 Via: SIP/2.0/UDP {CARRIER};branch=z9hG4bKx{method}\nMax-Forwards: 70\n\
                 From: <sip:+12025550199@example.net>;tag=f+12025550199\nTo: {to}\n\
                 Call-ID: call-+12025550199\nCSeq: {cseq} {method}\nContent-Length: 0\n\n"
            ),
        );
    }
    bench.take(CARRIER, "SIP/2.0 200");
    bench.take(PHONE, "BYE sip:ada@192.0.2.50:5062 SIP/2.0");
    let record = bench.switch.poll_record().expect("the call is over");
    assert_eq!(record.call_id, "9-0");
    assert_eq!(
        (record.result, record.ended_by),
        (CallResult::Answered, EndedBySide::Caller)
    );
    assert_eq!(record.caller_media.rx_packets, 7);
    assert_eq!(bench.switch.poll_record(), None);
    assert_eq!(
        (
            bench.switch.call_count(),
            bench.switch.proxy().session_count()
        ),
        (0, 0)
    );
    assert!(bench.switch.by_leg.is_empty() && bench.switch.by_session.is_empty());
    assert!(bench.switch.deadlines.is_empty());
}

#[test]
fn phone_behind_a_proxy_is_called_along_its_path() {
    let mut bench = Bench::new();
    let path = "<sip:edge.example.net;lr>";
    bench.register_phone_with(&format!("Path: {path}\n"));
    bench.invite(CARRIER, "+12025550100");
    let invite = bench.take(PHONE, "INVITE sip:ada@192.0.2.50:5062 SIP/2.0");
    assert_eq!(header(&invite, "Route"), path);
}

#[test]
fn gruu_means_the_phone_that_got_it_and_no_other() {
    let rings = |dialled: &str| {
        let mut bench = Bench::new();
        let answer = bench.register_phone_with(
            "Supported: gruu\nContact: <sip:ada@192.0.2.50:5062>;+sip.instance=\"<urn:uuid:1>\"\n",
        );
        assert!(
            answer.contains("\"sip:ada@example.net;gr=urn:uuid:1\""),
            "{answer}"
        );
        let sdp = sdp(PHONE, 4_000);
        bench.authorized("INVITE", dialled, "Content-Type: application/sdp\n", &sdp);
        let mut sent = bench.sent.iter();
        sent.any(|(_, text)| text.starts_with("INVITE"))
    };
    assert!(rings("sip:ada@example.net;gr=urn:uuid:1"));
    assert!(!rings("sip:ada@example.net;gr=urn:uuid:2"));
    assert!(!rings("sip:ada@example.net"), "a SIP user is no number");
}

#[test]
fn strangers_and_wrong_passwords_learn_nothing() {
    let mut bench = Bench::new();
    bench.invite(STRANGER, "+12025550100");
    let challenge = bench.take(STRANGER, "SIP/2.0 401");
    assert!(challenge.contains("WWW-Authenticate: Digest"));
    assert_eq!(bench.switch.call_count(), 0);
    assert_eq!(
        bench.switch.poll_record(),
        None,
        "a stranger fills no records"
    );

    for user in ["ada", "nobody"] {
        bench.request("REGISTER", STRANGER, "sip:198.51.100.1", "", "");
        let challenge = bench.take(STRANGER, "SIP/2.0 401");
        let value = header(&challenge, "WWW-Authenticate").to_owned();
        let challenge = sipx_sip::auth::Challenge::parse(value.as_bytes(), false).expect("valid");
        let credentials = sipx_sip::auth::Credentials::new(user, "guess");
        let uri = "sip:198.51.100.1";
        let answer = sipx_sip::auth::respond(&challenge, &credentials, "REGISTER", uri, 1, "abc");
        let authorization = format!("Authorization: {answer}\n");
        bench.request("REGISTER", STRANGER, uri, &authorization, "");
        bench.take(STRANGER, "SIP/2.0 403");
    }
}

#[test]
fn calls_that_cannot_be_put_through_are_refused_and_recorded() {
    for (number, status, result) in [
        ("+12025550100", "480", CallResult::Offline),
        ("+12025550102", "480", CallResult::Offline),
        ("+12025550999", "404", CallResult::UnknownNumber),
    ] {
        let mut bench = Bench::new();
        bench.invite(CARRIER, number);
        bench.take(CARRIER, &format!("SIP/2.0 {status}"));
        let record = bench.switch.poll_record().expect("a record");
        assert_eq!(
            (record.result, record.sip_status),
            (result, status.parse().ok()),
            "{number}"
        );
    }
}

#[test]
fn caller_without_an_edge_is_asked_to_come_back() {
    let mut bench = Bench::new();
    bench.register_phone();
    bench.switch.handle_edge_disconnected();
    bench.invite(CARRIER, "+12025550100");
    let refusal = bench.take(CARRIER, "SIP/2.0 503");
    assert_eq!(
        header(&refusal, "Retry-After"),
        RETRY_AFTER_SECS.to_string()
    );
    assert_eq!(bench.switch.call_count(), 0);
    assert!(bench.switch.poll_record().is_some());
}

#[test]
fn phone_that_rings_too_long_is_cancelled_by_the_switchs_own_clock() {
    let mut bench = Bench::new();
    bench.register_phone();
    bench.invite(CARRIER, "+12025550100");
    let invite = bench.take(PHONE, "INVITE");
    bench.receive(PHONE, &answer_to(&invite, "180 Ringing", ""));
    let give_up_at = bench.now.plus_secs(30);
    while let Some(at) = bench.switch.poll_timeout().filter(|&at| at <= give_up_at) {
        bench.now = at;
        bench.switch.handle_timeout(at, UNIX_MS);
        bench.settle();
    }
    bench.take(CARRIER, "SIP/2.0 480");
    bench.take(PHONE, "CANCEL");
    let record = bench.switch.poll_record().expect("the call is over");
    assert_eq!(record.result, CallResult::NoAnswer);
}

#[test]
fn caller_whose_media_address_the_configuration_has_lost_is_refused() {
    let mut bench = Bench::new();
    bench.register_phone();
    let mut site = site();
    let trunk = site.trunk_for("192.0.2.2".parse().expect("an address"));
    let lost = TrunkRoute {
        media: Some("outside".parse().expect("a name")),
        ..TrunkRoute::clone(trunk.expect("it is known"))
    };
    site = RoutingSnapshot::new(vec![lost], members(), dids());
    bench.switch.set_snapshot(Arc::new(site));
    bench.invite(CARRIER, "+12025550100");
    bench.take(CARRIER, "SIP/2.0 500");
    assert_eq!(bench.switch.call_count(), 0);
    let record = bench.switch.poll_record().expect("a record");
    assert_eq!(record.sip_status, Some(500));
}

#[test]
fn full_switch_answers_503_and_keeps_its_calls() {
    let mut bench = Bench::new();
    bench.register_phone();
    bench.switch.config.calls_max = 0;
    bench.invite(CARRIER, "+12025550100");
    bench.take(CARRIER, "SIP/2.0 503");
}

#[test]
fn shutdown_ends_every_call_with_a_record() {
    let mut bench = Bench::new();
    bench.register_phone();
    bench.invite(CARRIER, "+12025550100");
    bench.switch.hang_up_all(bench.now, UNIX_MS);
    bench.settle();
    bench.take(CARRIER, "SIP/2.0 503");
    assert!(bench.switch.poll_record().is_some());
    assert_eq!(bench.switch.call_count(), 0);
}
