//! Protected calls through both daemons: keys in SDP (RFC 4568), and phones that protect their
//! media with another implementation of SRTP than Trunkline's.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{EndCause, Phone};
use trunkline_testkit::rtp::{MediaHub, PTIME, RtpEndpoint, SentPacket};
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{Member, Site};
use trunkline_testkit::srtp::{CryptoLine, Protection};
use trunkline_tests::call::{Answered, LIMIT, place};
use trunkline_tests::sipp_case::wait_idle;

/// One second of speech.
const FRAMES: usize = 50;

const DROPPED: &str = "trunkline_rtp_dropped_packets_total";

const CM_80: &str = "AES_CM_128_HMAC_SHA1_80";

/// All that Trunkline offers; the short tags it takes besides are not among them.
const OFFERED: [&str; 4] = [
    "AEAD_AES_128_GCM",
    CM_80,
    "AEAD_AES_256_GCM",
    "AES_256_CM_HMAC_SHA1_80",
];

/// A trunk and one member with these values of `srtp`.
fn daemons(trunk: &'static str, member: &'static str) -> Daemons {
    let mut site = Site::with_members(vec![Member::numbered(0).with_srtp(member)]);
    site.trunk_srtp = trunk;
    Daemons::start(site).unwrap()
}

fn did(daemons: &Daemons) -> String {
    daemons.member(0).unwrap().did.clone()
}

/// The line of `suite` among those that Trunkline offered or answered.
fn line_of<'a>(media: &'a AudioDescription, suite: &str) -> &'a CryptoLine {
    let line = media.crypto.iter().find(|line| line.suite == suite);
    line.unwrap_or_else(|| panic!("no {suite} in {:?}", media.crypto))
}

/// A call whose caller offers `caller` (plain RTP when `None`) and whose callee takes the line of
/// suite `callee`. Both phones share their RTP port with RTCP.
fn place_protected(
    hub: &MediaHub,
    daemons: &Daemons,
    phones: (&Phone, &Phone),
    caller: Option<&CryptoLine>,
    callee: Option<&str>,
) -> Answered {
    let (carrier, phone) = phones;
    let describe = |rtp: &RtpEndpoint, line: Option<&CryptoLine>| {
        let mut media = AudioDescription::pcmu(rtp.local_addr());
        media.rtcp_mux = true;
        match line {
            Some(line) => media.with_crypto(std::slice::from_ref(line)),
            None => media,
        }
    };
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let outgoing = carrier
        .call(&did(daemons), describe(&caller_rtp, caller))
        .unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    let ours = callee.map(|suite| {
        let offer = incoming.remote_media().unwrap();
        let theirs = line_of(&offer, suite);
        let ours = CryptoLine::random(theirs.tag, suite).unwrap();
        callee_rtp.protect(Some(Protection::new(&ours, theirs).unwrap()));
        ours
    });
    incoming
        .answer(&describe(&callee_rtp, ours.as_ref()))
        .unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    incoming.wait_established(LIMIT).unwrap();
    if let Some(ours) = caller {
        let answer = outgoing.remote_media().unwrap();
        let theirs = line_of(&answer, &ours.suite);
        assert_eq!((answer.crypto.len(), theirs.tag), (1, ours.tag));
        caller_rtp.protect(Some(Protection::new(ours, theirs).unwrap()));
    } else {
        assert!(outgoing.remote_media().unwrap().crypto.is_empty());
    }
    Answered {
        outgoing,
        incoming,
        caller_rtp,
        callee_rtp,
    }
}

/// What the edge has dropped, for the message of a test that failed.
fn dropped(daemons: &Daemons) -> String {
    let metrics = daemons.metrics().unwrap();
    let drops = metrics
        .lines()
        .filter(|line| line.starts_with(DROPPED) && !line.ends_with(" 0"));
    drops.collect::<Vec<_>>().join("\n")
}

#[test]
fn plain_carrier_talks_with_a_protected_phone_in_every_suite_that_is_offered() {
    let daemons = daemons("off", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    for suite in OFFERED {
        let call = place_protected(&hub, &daemons, (&carrier, &phone), None, Some(suite));
        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{suite}: {heard:?}");
        call.hang_up().unwrap();
    }
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn protected_carrier_talks_with_a_plain_phone_in_every_suite_there_is() {
    let daemons = daemons("required", "off");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let short = ["AES_CM_128_HMAC_SHA1_32", "AES_256_CM_HMAC_SHA1_32"];
    for (tag, suite) in (7..).zip(OFFERED.into_iter().chain(short)) {
        let ours = CryptoLine::random(tag, suite).unwrap();
        let call = place_protected(&hub, &daemons, (&carrier, &phone), Some(&ours), None);
        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{suite}: {heard:?}");
        call.hang_up().unwrap();
    }
}

#[test]
fn both_sides_protected_have_keys_of_their_own_and_keep_them_over_a_reinvite() {
    let daemons = daemons("preferred", "preferred");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    for callee in [CM_80, "AEAD_AES_128_GCM"] {
        let ours = CryptoLine::random(1, CM_80).unwrap();
        let phones = (&carrier, &phone);
        let call = place_protected(&hub, &daemons, phones, Some(&ours), Some(callee));
        let to_caller = call.outgoing.remote_media().unwrap().crypto;
        let to_callee = call.incoming.remote_media().unwrap().crypto;
        assert!(to_callee.iter().all(|line| {
            line.key_and_salt != to_caller[0].key_and_salt && line.key_and_salt != ours.key_and_salt
        }));
        let heard = call.talk(FRAMES).unwrap();
        assert!(
            heard.is_perfect(),
            "{callee}: {heard:?}\n{}",
            dropped(&daemons)
        );

        // The phones go on with the contexts they have: a new rollover counter or key on either
        // leg would leave them deaf.
        let mut media = AudioDescription::pcmu(call.caller_rtp.local_addr());
        media.rtcp_mux = true;
        let answer = call
            .outgoing
            .reinvite(media.with_crypto(std::slice::from_ref(&ours)), LIMIT)
            .unwrap();
        assert_eq!(answer.crypto, to_caller);
        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{callee} after re-INVITE: {heard:?}");
        call.hang_up().unwrap();
    }
}

#[test]
fn reports_are_opened_translated_and_protected_again() {
    let daemons = daemons("off", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place_protected(&hub, &daemons, (&carrier, &phone), None, Some(CM_80));
    let heard = call.talk(10).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    // An application packet (RFC 3550 §6.7) crosses as it is, but for its SSRC.
    let note = |ssrc: u32, text: &[u8; 4]| {
        [&[0x80, 204, 0, 3][..], &ssrc.to_be_bytes(), b"NOTE", text].concat()
    };
    let ssrcs = [&call.caller_rtp, &call.callee_rtp].map(|rtp| rtp.sent()[0].header.ssrc);
    let to_caller = call.outgoing.remote_media().unwrap().rtp;
    let to_callee = call.incoming.remote_media().unwrap().rtp;
    call.caller_rtp
        .send_rtcp(to_caller, &note(ssrcs[0], b"away"))
        .unwrap();
    call.callee_rtp
        .send_rtcp(to_callee, &note(ssrcs[1], b"back"))
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for (rtp, text) in [(&call.callee_rtp, b"away"), (&call.caller_rtp, b"back")] {
        let reports = rtp.received_rtcp();
        assert!(
            reports.iter().any(|report| report.ends_with(text)),
            "{reports:?}"
        );
        assert_eq!(rtp.unparsable_count(), 0);
    }
    call.hang_up().unwrap();
}

#[test]
fn plain_packets_and_those_of_another_key_are_dropped_counted_and_cost_the_call_nothing() {
    let daemons = daemons("off", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    for suite in OFFERED {
        let call = place_protected(&hub, &daemons, (&carrier, &phone), None, Some(suite));
        assert!(call.talk(10).unwrap().is_perfect(), "{suite}");

        // From the phone's own address, and under its own SSRC, far ahead of what it sends.
        let last = call.callee_rtp.sent().last().unwrap().header;
        let target = call.incoming.remote_media().unwrap().rtp;
        let stranger = CryptoLine::random(1, suite).unwrap();
        let mut stranger = Protection::new(&stranger, &stranger).unwrap();
        call.caller_rtp.clear();
        let sends = 20;
        for n in 0..sends {
            let mut packet = vec![0x80, last.payload_type];
            packet.extend_from_slice(&last.sequence.wrapping_add(20_000 + n).to_be_bytes());
            packet.extend_from_slice(&last.timestamp.to_be_bytes());
            packet.extend_from_slice(&last.ssrc.to_be_bytes());
            packet.extend_from_slice(&[0xff; 160]);
            call.callee_rtp.send_raw(target, &packet).unwrap();
            let forged = stranger.protect(&packet).unwrap();
            call.callee_rtp.send_raw(target, &forged).unwrap();
            std::thread::sleep(PTIME / 4);
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(call.caller_rtp.received_count(), 0, "{suite}");

        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{suite}: {heard:?}");
        call.hang_up().unwrap();
    }
    let forged = (2 * 20 * OFFERED.len()) as f64;
    daemons
        .wait_metric(DROPPED, &[("reason", "srtp_auth_failed")], forged)
        .unwrap();
}

#[test]
fn recorded_packets_played_again_are_dropped_and_counted() {
    let daemons = daemons("off", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place_protected(&hub, &daemons, (&carrier, &phone), None, Some(CM_80));
    assert!(call.talk(FRAMES).unwrap().is_perfect());
    let recorded = call.callee_rtp.sent();
    let target = call.incoming.remote_media().unwrap().rtp;
    call.caller_rtp.clear();
    for packet in &recorded {
        call.callee_rtp.send_raw(target, &packet.datagram).unwrap();
        // A socket holds only so much for a worker that is late.
        std::thread::sleep(PTIME / 4);
    }
    daemons
        .wait_metric(DROPPED, &[("reason", "srtp_replayed")], FRAMES as f64)
        .unwrap();
    assert_eq!(call.caller_rtp.received_count(), 0);
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

/// Packets that each attacking socket sends at each leg while that leg's peer sends one.
const ATTACK_FACTOR: u64 = 10;
/// Bounds an attack whose call hangs: a minute's worth.
const ATTACK_TICKS_MAX: u64 = 3_000;

/// Somebody who hears the call and can write the phones' addresses on packets, but has no key.
struct Forger {
    suite: &'static str,
    /// An address that nobody named.
    stranger: UdpSocket,
    is_over: AtomicBool,
    sent: AtomicU64,
}

impl Forger {
    fn new(suite: &'static str) -> Self {
        let stranger = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 66), 0)).unwrap();
        stranger.set_nonblocking(true).unwrap();
        Self {
            suite,
            stranger,
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        }
    }

    /// Sprays until told to stop: at each leg, from its phone's own socket and from the stranger's.
    fn run(&self, legs: [(&RtpEndpoint, SocketAddr); 2]) {
        let line = CryptoLine::random(1, self.suite).unwrap();
        let mut other_key = Protection::new(&line, &line).unwrap();
        for tick in 0..ATTACK_TICKS_MAX {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            for (phone, leg) in legs {
                let Some(heard) = phone.sent().pop() else {
                    continue;
                };
                for number in 0..ATTACK_FACTOR {
                    let number = tick * ATTACK_FACTOR + number;
                    let packet = forged(number, &heard, &mut other_key);
                    let sends = [
                        phone.send_raw(leg, &packet),
                        self.stranger.send_to(&packet, leg).map(|_| ()),
                    ];
                    let sent = sends.into_iter().filter(Result::is_ok).count();
                    self.sent.fetch_add(sent as u64, Ordering::Relaxed);
                }
            }
            std::thread::sleep(PTIME);
        }
    }

    /// Datagrams that the stranger was sent.
    fn leaked(&self) -> usize {
        let mut buffer = [0; 2048];
        // A connected socket answers the stranger with ICMP, which shows as errors in between.
        let is_empty = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        std::iter::repeat_with(|| self.stranger.recv(&mut buffer))
            .take_while(|heard| !heard.as_ref().is_err_and(is_empty))
            .filter(Result::is_ok)
            .count()
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that can be made of what the phone sent last without its key.
fn forged(number: u64, heard: &SentPacket, other_key: &mut Protection) -> Vec<u8> {
    let ssrc = heard.header.ssrc.to_be_bytes();
    let ahead = heard.header.sequence.wrapping_add(1 + number as u16 % 50);
    let mut plain = vec![0x80, heard.header.payload_type];
    plain.extend_from_slice(&ahead.to_be_bytes());
    plain.extend_from_slice(&heard.header.timestamp.to_be_bytes());
    plain.extend_from_slice(&ssrc);
    plain.extend_from_slice(&[0xff; 160]);
    let goodbye = [&[0x80, 201, 0, 1][..], &ssrc, &[0x81, 203, 0, 1], &ssrc].concat();
    let mut replayed = heard.datagram.clone();
    let end = replayed.len();
    match number % 8 {
        0 => plain,
        1 => other_key.protect(&plain).unwrap(),
        2 => replayed,
        3 => {
            replayed.truncate(end - 1);
            replayed
        }
        4 => {
            replayed.truncate(12);
            replayed
        }
        5 => {
            replayed[2..4].copy_from_slice(&ahead.to_be_bytes());
            replayed
        }
        6 => goodbye,
        _ => other_key.protect_rtcp(&goodbye).unwrap(),
    }
}

#[test]
fn protected_calls_that_are_sprayed_with_forgeries_hear_none_and_lose_nothing() {
    let daemons = daemons("required", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let mut sent = 0;
    for suite in OFFERED {
        let ours = CryptoLine::random(1, suite).unwrap();
        let phones = (&carrier, &phone);
        let call = place_protected(&hub, &daemons, phones, Some(&ours), Some(suite));
        let forger = Forger::new(suite);
        let legs = [
            (&call.caller_rtp, call.outgoing.remote_media().unwrap().rtp),
            (&call.callee_rtp, call.incoming.remote_media().unwrap().rtp),
        ];
        std::thread::scope(|scope| {
            scope.spawn(|| forger.run(legs));
            // Also when an assertion fails, or the scope would wait for the attack's own end.
            let _over = SetWhenDropped(&forger.is_over);
            let heard = call.talk(2 * FRAMES).unwrap();
            assert!(
                heard.is_perfect(),
                "{suite}: {heard:?}\n{}",
                dropped(&daemons)
            );
        });
        for (rtp, _) in legs {
            assert_eq!(rtp.unparsable_count(), 0, "{suite}");
            let reports = rtp.received_rtcp();
            let ends = |report: &Vec<u8>| report.windows(2).any(|w| w == [0x81, 203]);
            assert!(!reports.iter().any(ends), "{suite}: a forged goodbye");
        }
        assert_eq!(forger.leaked(), 0, "{suite}: bled");
        let heard = call.talk(10).unwrap();
        assert!(heard.is_perfect(), "{suite}, afterwards: {heard:?}");
        call.hang_up().unwrap();
        sent += forger.sent.load(Ordering::Relaxed);
    }
    // Two seconds of each call, two legs, two attacking sockets.
    let least = OFFERED.len() as u64 * 80 * 2 * 2 * ATTACK_FACTOR;
    assert!(sent > least, "only {sent} packets were sprayed");
    for reason in ["srtp_auth_failed", "srtp_replayed"] {
        let count = daemons.metric(DROPPED, &[("reason", reason)]).unwrap();
        assert!(count > 1_000.0, "{reason}: {count}");
    }
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn secure_trunk_refuses_plain_rtp_and_a_plain_one_refuses_srtp() {
    let hub = MediaHub::start().unwrap();
    for (trunk, crypto) in [
        ("required", vec![]),
        ("off", vec![CryptoLine::random(1, CM_80).unwrap()]),
    ] {
        let daemons = daemons(trunk, "off");
        let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
        let rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
        let media = AudioDescription::pcmu(rtp.local_addr()).with_crypto(&crypto);
        let call = carrier.call(&did(&daemons), media).unwrap();
        assert_eq!(
            call.wait_ended(LIMIT).unwrap(),
            EndCause::Rejected(488),
            "{trunk}"
        );
        assert_eq!(phone.waiting_call_count(), 0, "{trunk}: nobody was rung");
    }
}

#[test]
fn phone_that_refuses_srtp_is_rung_again_with_plain_rtp_where_srtp_is_only_preferred() {
    let daemons = daemons("off", "preferred");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let media = AudioDescription::pcmu(caller_rtp.local_addr());
    let outgoing = carrier.call(&did(&daemons), media).unwrap();
    let refused = phone.wait_call(LIMIT).unwrap();
    assert_eq!(refused.remote_media().unwrap().crypto.len(), OFFERED.len());
    refused.reject(488).unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    assert!(incoming.remote_media().unwrap().crypto.is_empty());
    incoming
        .answer(&AudioDescription::pcmu(callee_rtp.local_addr()))
        .unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    incoming.wait_established(LIMIT).unwrap();
    let call = Answered {
        outgoing,
        incoming,
        caller_rtp,
        callee_rtp,
    };
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn phone_that_must_protect_and_answers_plainly_gets_no_call() {
    let daemons = daemons("off", "required");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let error = place(&hub, &carrier, &did(&daemons), &phone);
    assert!(error.is_err(), "answered without keys");
    wait_idle(&daemons, LIMIT).unwrap();
}
