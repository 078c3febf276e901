//! Calls to more than one phone: ringback, groups, forwards. Phones that speak real SIP, and audio
//! that is compared.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Call, EndCause, Phone};
use trunkline_testkit::rtp::{MediaHub, ReceivedPacket, RtpEndpoint};
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{Answered, LIMIT};

/// The number of the group.
const GROUP: &str = "+15550109000";

fn daemons(members: u16, tenant_more: &str, more: &str) -> Daemons {
    let members = (0..members).map(Member::numbered).collect();
    let site = Site {
        tenant_more: tenant_more.to_owned(),
        more: more.to_owned(),
        ..Site::with_members(members)
    };
    Daemons::start(site).unwrap()
}

fn group(members: &[&str], more: &str) -> String {
    let members: Vec<String> = members.iter().map(|m| format!("\"{m}\"")).collect();
    format!(
        "\n[[group]]\nname = \"sales\"\ntenant = \"test\"\nextension = \"600\"\n\
         dids = [\"{GROUP}\"]\nmembers = [{}]\n{more}\n",
        members.join(", ")
    )
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let give_up_at = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < give_up_at, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `caller` dials `number`; its media is on `rtp`.
fn dial(caller: &Phone, number: &str, rtp: &RtpEndpoint) -> Call {
    let offer = AudioDescription::pcmu(rtp.local_addr());
    caller.call(number, offer).unwrap()
}

/// `phone` takes the call that rings there.
fn answer(
    hub: &MediaHub,
    (outgoing, caller_rtp): (Call, RtpEndpoint),
    (phone, incoming): (&Phone, Call),
) -> Answered {
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let media = AudioDescription::pcmu(callee_rtp.local_addr());
    incoming.answer(&media).unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    incoming.wait_established(LIMIT).unwrap();
    Answered {
        outgoing,
        incoming,
        caller_rtp,
        callee_rtp,
    }
}

/// One source whose sequence has no gap and whose clock does not go back.
fn assert_seamless(packets: &[ReceivedPacket]) {
    for pair in packets.windows(2) {
        let [before, after] = [pair[0].header, pair[1].header];
        assert_eq!(before.ssrc, after.ssrc);
        let step = after.sequence.wrapping_sub(before.sequence);
        assert_eq!(step, 1, "{before:?} then {after:?}");
        let ahead = after.timestamp.wrapping_sub(before.timestamp) as i32;
        assert!(ahead > 0, "{before:?} then {after:?}");
    }
}

#[test]
fn caller_hears_ringback_and_then_the_phone_as_one_stream_even_after_a_kill_of_the_edge() {
    let mut daemons = daemons(1, "early_media = \"ringback\"\n", "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let did = daemons.member(0).unwrap().did.clone();
    let outgoing = dial(&carrier, &did, &caller_rtp);
    let incoming = phone.wait_call(LIMIT).unwrap();
    incoming.ring().unwrap();
    outgoing.wait_provisional(183, LIMIT).unwrap();
    let told = outgoing.remote_media().unwrap();
    wait_until("ringback", || caller_rtp.received().len() > 10);

    daemons.kill_edge().unwrap();
    caller_rtp.clear();
    daemons.start_edge().unwrap();
    wait_until("ringback again", || caller_rtp.received().len() > 10);
    caller_rtp.clear();
    wait_until("more of it", || caller_rtp.received().len() > 10);

    let call = answer(&hub, (outgoing, caller_rtp), (&phone, incoming));
    assert_eq!(call.outgoing.remote_media().unwrap(), told);
    call.incoming.remote_media().unwrap();
    let heard = call.callee_rtp_speaks(50);
    assert!(heard > 40, "{heard} packets of speech");
    assert_seamless(&call.caller_rtp.received());
    call.hang_up().unwrap();
}

/// What the tests above and below ask of an answered call beside talking.
trait Speaks {
    /// The callee alone speaks; how many packets the caller heard since then.
    fn callee_rtp_speaks(&self, frames: usize) -> usize;
}

impl Speaks for Answered {
    fn callee_rtp_speaks(&self, frames: usize) -> usize {
        let before = self.caller_rtp.received().len();
        let remote = self.incoming.remote_media().unwrap().rtp;
        let speech = trunkline_testkit::speech::callee();
        self.callee_rtp.speak(remote, 0, speech, frames);
        assert!(self.callee_rtp.wait_spoken(Duration::from_secs(20)));
        wait_until("speech", || {
            self.caller_rtp.received().len() >= before + frames - 5
        });
        self.caller_rtp.received().len() - before
    }
}

#[test]
fn callees_own_early_media_takes_over_from_ringback() {
    let daemons = daemons(1, "early_media = \"ringback\"\n", "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, &daemons.member(0).unwrap().did, &caller_rtp);
    let incoming = phone.wait_call(LIMIT).unwrap();
    incoming.ring().unwrap();
    outgoing.wait_provisional(183, LIMIT).unwrap();
    let told = outgoing.remote_media().unwrap();
    wait_until("ringback", || caller_rtp.received().len() > 10);

    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let media = AudioDescription::pcmu(callee_rtp.local_addr());
    incoming.progress(&media).unwrap();
    let remote = incoming.remote_media().unwrap().rtp;
    let speech = trunkline_testkit::speech::callee();
    callee_rtp.speak(remote, 0, speech, 100);
    assert!(callee_rtp.wait_spoken(Duration::from_secs(20)));
    let spoken: Vec<Vec<u8>> = callee_rtp.sent().into_iter().map(|p| p.payload).collect();
    wait_until("the callee's early media", || {
        let heard = caller_rtp.received();
        heard
            .last()
            .is_some_and(|packet| spoken.last() == Some(&packet.payload))
    });
    assert_seamless(&caller_rtp.received());

    incoming.answer(&media).unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    assert_eq!(outgoing.remote_media().unwrap(), told);
    outgoing.hang_up(LIMIT).unwrap();
}

#[test]
fn group_rings_every_phone_of_its_members_and_the_first_answer_silences_the_others() {
    let daemons = daemons(3, "", &group(&["1000", "1001", "1002"], ""));
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    // Member 1 has two phones, member 2 none.
    let phones = [0, 1, 1].map(|member| daemons.member_phone(member).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, GROUP, &caller_rtp);
    let [first, second, third] = phones.each_ref().map(|phone| {
        let call = phone.wait_call(LIMIT).unwrap();
        call.ring().unwrap();
        call
    });
    let call = answer(&hub, (outgoing, caller_rtp), (&phones[1], second));
    for silenced in [first, third] {
        let cause = silenced.wait_ended(LIMIT).unwrap();
        assert_eq!(cause, EndCause::RemoteCancel);
    }
    let heard = call.talk(50).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");

    // Who is in a call is left out; the others ring.
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, GROUP, &caller_rtp);
    let incoming = phones[0].wait_call(LIMIT).unwrap();
    let again = answer(&hub, (outgoing, caller_rtp), (&phones[0], incoming));
    assert_eq!(phones[2].waiting_call_count(), 0);
    again.hang_up().unwrap();
    call.hang_up().unwrap();
    let cdrs = daemons.wait_cdrs(2, LIMIT).unwrap();
    let mut callees: Vec<_> = cdrs.iter().map(|cdr| cdr["callee"].as_str()).collect();
    callees.sort_unstable();
    assert_eq!(callees, [Some("1000"), Some("1001")]);
}

#[test]
fn sequential_group_goes_on_after_each_members_time_and_refusal() {
    let more = "strategy = \"sequential\"\nring_secs = 1";
    let daemons = daemons(3, "", &group(&["1000", "1001", "1002"], more));
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let phones = [0, 1, 2].map(|member| daemons.member_phone(member).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, GROUP, &caller_rtp);
    let first = phones[0].wait_call(LIMIT).unwrap();
    first.ring().unwrap();
    assert_eq!(phones[1].waiting_call_count(), 0);
    assert_eq!(first.wait_ended(LIMIT).unwrap(), EndCause::RemoteCancel);
    let second = phones[1].wait_call(LIMIT).unwrap();
    second.reject(486).unwrap();
    let third = phones[2].wait_call(LIMIT).unwrap();
    let call = answer(&hub, (outgoing, caller_rtp), (&phones[2], third));
    let heard = call.talk(50).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn busy_member_forwards_as_it_chose_and_the_phone_that_rings_learns_from_whom() {
    let daemons = daemons(2, "", "");
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let phones = [0, 1].map(|member| daemons.member_phone(member).unwrap());
    let set = ["member", "set", "1000", "--forward-busy", "1001"];
    let said = daemons.control_command(&set.map(OsStr::new)).unwrap();
    assert!(said.contains("forwards 1001 when busy"), "{said}");

    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, &daemons.member(0).unwrap().did, &caller_rtp);
    phones[0].wait_call(LIMIT).unwrap().reject(486).unwrap();
    let forwarded = phones[1].wait_call(LIMIT).unwrap();
    let diversion = forwarded.header("Diversion").unwrap();
    assert!(
        diversion.contains("sip:1000@") && diversion.contains("reason=user-busy"),
        "{diversion}"
    );
    let history = forwarded.header("History-Info").unwrap();
    assert!(history.contains("cause%3D486>;index=1"), "{history}");
    let call = answer(&hub, (outgoing, caller_rtp), (&phones[1], forwarded));
    let heard = call.talk(50).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();

    // The choice outlives an apply, and can be taken back.
    daemons
        .apply(&daemons.path().join("site/site.toml"))
        .unwrap();
    let set = ["member", "set", "1000", "--forward-busy", "off"];
    daemons.control_command(&set.map(OsStr::new)).unwrap();
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let outgoing = dial(&carrier, &daemons.member(0).unwrap().did, &caller_rtp);
    phones[0].wait_call(LIMIT).unwrap().reject(486).unwrap();
    let cause = outgoing.wait_ended(LIMIT).unwrap();
    assert_eq!(cause, EndCause::Rejected(486));
}
