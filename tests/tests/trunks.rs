//! Trunks through both daemons: calls out, what stops them, and each preset's carrier as SIPp
//! plays it.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Phone, PhoneConfig};
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::sipp::{Running, Sipp};
use trunkline_testkit::site::{Member, Site, write_private};
use trunkline_tests::call::{LIMIT, place};
use trunkline_tests::sipp_case::{directory, wait_idle};

/// A number outside.
const OUTSIDE: &str = "+15551230000";

/// The DID of the member.
const OWN: &str = "+15550100000";

fn daemons() -> Daemons {
    let daemons = Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap();
    write_private(&daemons.path().join("site/carrier.secret"), "opensesame").unwrap();
    daemons
}

/// A carrier at 127.0.0.`host`.
fn carrier(daemons: &Daemons, host: u8) -> Phone {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, host));
    Phone::start(PhoneConfig::udp("carrier", daemons.sip()).from_address(address)).unwrap()
}

/// Applies the site with `tenant` in its `[[tenant]]` and `more` behind it.
fn state(daemons: &Daemons, tenant: &str, more: &str) {
    let site = Site {
        tenant_more: tenant.to_owned(),
        more: more.to_owned(),
        ..daemons.site().clone()
    };
    let file = site.write(&daemons.path().join("site")).unwrap();
    daemons.apply(&file).unwrap();
    // Destinations are looked up on a thread of their own, numeric ones as well.
    let has_address = |it: &serde_json::Value| it["address"].is_string();
    for name in more.lines().filter_map(|line| line.strip_prefix("name = ")) {
        wait_trunk(daemons, name.trim_matches('"'), |trunk| {
            let destinations = trunk["destinations"].as_array();
            destinations.is_some_and(|all| all.iter().all(has_address))
        });
    }
}

/// Waits until the one call there is has its 200: a phone that hangs up before that ends it
/// unanswered for the caller.
fn wait_caller_answered(daemons: &Daemons) {
    let run = |words: &[&str]| {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        daemons.control_command(&words).unwrap()
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        let calls: serde_json::Value = serde_json::from_str(&run(&["calls", "--json"])).unwrap();
        let id = calls
            .pointer("/calls/0/call_id")
            .or(calls.pointer("/0/call_id"));
        let id = id.and_then(serde_json::Value::as_str).unwrap_or_default();
        if !id.is_empty() && run(&["trace", id]).contains("◀── 200 (INVITE)") {
            return;
        }
        assert!(Instant::now() < deadline, "{calls:#}\n{}", daemons.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A trunk to a carrier that a phone plays.
fn trunk_to(name: &str, carrier: &Phone, lines: &str) -> String {
    let address = carrier.local_addr();
    format!(
        "\n[[trunk]]\nname = \"{name}\"\ntenant = \"test\"\nsources = [\"{}\"]\n\
         destinations = [\"{address}\"]\noptions_secs = 1\n{lines}\n",
        address.ip()
    )
}

fn route(trunks: &str) -> String {
    format!("\n[[route]]\ntenant = \"test\"\ntrunks = [{trunks}]\n")
}

/// How the trunk stands, once `is_it` is content.
fn wait_trunk(
    daemons: &Daemons,
    name: &str,
    is_it: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = daemons
            .control_command(&["trunks", "--json"].map(OsStr::new))
            .unwrap();
        let trunks: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let trunk = trunks.into_iter().find(|trunk| trunk["name"] == name);
        match trunk {
            Some(trunk) if is_it(&trunk) => return trunk,
            trunk => assert!(Instant::now() < deadline, "{trunk:#?}\n{}", daemons.logs()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status_of(phone: &Phone, hub: &MediaHub, number: &str) -> String {
    let rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let call = phone
        .call(number, AudioDescription::pcmu(rtp.local_addr()))
        .unwrap();
    format!("{:?}", call.wait_ended(LIMIT).unwrap())
}

#[test]
fn a_members_call_goes_out_with_its_did_and_audio_both_ways() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (phone, carrier) = (daemons.member_phone(0).unwrap(), carrier(&daemons, 10));
    let more = trunk_to("out", &carrier, "") + &route("\"out\"");
    state(
        &daemons,
        "outbound_prefixes = [\"+1\"]\ncountry_code = \"1\"",
        &more,
    );
    let up = wait_trunk(&daemons, "out", |trunk| trunk["state"] == "up");
    assert!(up["destinations"][0]["rtt_micros"].as_u64().unwrap() < 1_000_000);

    // As the country dials it.
    let call = place(&hub, &phone, "5551230000", &carrier).unwrap();
    let header = |name| call.incoming.header(name).unwrap_or_default();
    assert!(
        header("P-Asserted-Identity").contains(OWN),
        "{}",
        header("P-Asserted-Identity")
    );
    assert!(header("From").contains(OWN), "{}", header("From"));
    assert!(header("To").contains(OUTSIDE), "{}", header("To"));
    let heard = call.talk(25).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    let busy = wait_trunk(&daemons, "out", |trunk| trunk["channels"] == 1);
    assert_eq!(busy["counts"]["answered"], 1);
    call.hang_up().unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
    wait_trunk(&daemons, "out", |trunk| trunk["channels"] == 0);
    let record = daemons.wait_cdrs(1, LIMIT).unwrap().remove(0);
    assert_eq!(record["direction"], "outbound");
    assert_eq!(record["trunk"], "out");
    assert_eq!(record["callee"], OUTSIDE);
}

#[test]
fn nobody_calls_out_unless_the_tenant_may_but_help_is_always_called() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (phone, carrier) = (daemons.member_phone(0).unwrap(), carrier(&daemons, 10));
    let more = trunk_to("out", &carrier, "channels_max = 1") + &route("\"out\"");
    state(&daemons, "", &more);
    let refused = status_of(&phone, &hub, OUTSIDE);
    assert!(refused.contains("403"), "{refused}");
    let closed = [("reason", "closed")];
    daemons
        .wait_metric("trunkline_outbound_refused_total", &closed, 1.0)
        .unwrap();
    let first = place(&hub, &phone, "999", &carrier).unwrap();
    assert!(first.incoming.header("To").unwrap().contains("sip:999@"));
    // A trunk that is full is full for everything else.
    let second = place(&hub, &phone, "112", &carrier).unwrap();
    second.hang_up().unwrap();
    first.hang_up().unwrap();
}

#[test]
fn limits_of_a_day_and_of_channels_stop_calls_with_their_reason() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (phone, carrier) = (daemons.member_phone(0).unwrap(), carrier(&daemons, 10));
    let more = trunk_to("out", &carrier, "channels_max = 1") + &route("\"out\"");
    let tenant = "outbound_prefixes = [\"+1\", \"!+1900\"]\noutbound_calls_per_day = 2";
    state(&daemons, tenant, &more);
    let refused = status_of(&phone, &hub, "+19005550000");
    assert!(refused.contains("403"), "{refused}");
    let call = place(&hub, &phone, OUTSIDE, &carrier).unwrap();
    let full = status_of(&phone, &hub, OUTSIDE);
    assert!(full.contains("503"), "{full}");
    call.hang_up().unwrap();
    wait_trunk(&daemons, "out", |trunk| trunk["channels"] == 0);
    let call = place(&hub, &phone, OUTSIDE, &carrier).unwrap();
    call.hang_up().unwrap();
    let used_up = status_of(&phone, &hub, OUTSIDE);
    assert!(used_up.contains("403"), "{used_up}");
    for reason in ["prefix", "no_trunk", "daily_calls"] {
        let labels = [("reason", reason)];
        daemons
            .wait_metric("trunkline_outbound_refused_total", &labels, 1.0)
            .unwrap();
    }
}

#[test]
fn a_trunks_own_trouble_goes_to_the_next_trunk_and_a_busy_callee_does_not() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let phone = daemons.member_phone(0).unwrap();
    let (first, second) = (carrier(&daemons, 10), carrier(&daemons, 11));
    let more = trunk_to("first", &first, "")
        + &trunk_to("second", &second, "")
        + &route("\"first\", \"second\"");
    state(&daemons, "outbound_prefixes = [\"+1\"]", &more);

    let rtp = [0, 1].map(|_| hub.endpoint(phone.local_addr().ip()).unwrap());
    let call = phone
        .call(OUTSIDE, AudioDescription::pcmu(rtp[0].local_addr()))
        .unwrap();
    first.wait_call(LIMIT).unwrap().reject(500).unwrap();
    let taken = second.wait_call(LIMIT).unwrap();
    taken
        .answer(&AudioDescription::pcmu(rtp[1].local_addr()))
        .unwrap();
    call.wait_answered(LIMIT).unwrap();
    call.hang_up(LIMIT).unwrap();
    let tried = wait_trunk(&daemons, "first", |trunk| trunk["counts"]["failovers"] == 1);
    assert_eq!(tried["last_cause"], 500);

    for status in [486, 603] {
        let call = phone
            .call(OUTSIDE, AudioDescription::pcmu(rtp[0].local_addr()))
            .unwrap();
        first.wait_call(LIMIT).unwrap().reject(status).unwrap();
        let end = format!("{:?}", call.wait_ended(LIMIT).unwrap());
        assert!(end.contains(&status.to_string()), "{end}");
        assert_eq!(second.waiting_call_count(), 0);
    }
}

/// SIPp plays a scenario of `tests/sipp/trunks`.
fn sipp(daemons: &Daemons, scenario: &str, local: SocketAddr, media_port: u16) -> Running {
    let work = daemons.path().join("sipp");
    std::fs::create_dir_all(&work).unwrap();
    let path = directory().join("trunks").join(format!("{scenario}.xml"));
    let mut sipp = Sipp::new(scenario, &path, local, media_port, daemons.sip());
    sipp.keys.push(("dial".to_owned(), OWN.to_owned()));
    let mut running = sipp.spawn(Path::new(&work)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while UdpSocket::bind(local).is_ok() && !running.has_ended().unwrap() {
        assert!(Instant::now() < deadline, "SIPp did not bind {local}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// A carrier that SIPp plays, and the house it belongs to.
struct Emulated {
    daemons: Daemons,
    hub: MediaHub,
    phone: Phone,
    local: SocketAddr,
    media_port: u16,
}

impl Emulated {
    /// `lines` of the trunk may speak of `{local}`, the carrier's address and port.
    fn new(lines: &str) -> Self {
        let mut daemons = daemons();
        let phone = daemons.member_phone(0).unwrap();
        let port = daemons.next_port().unwrap();
        let local = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 10), port));
        let media_port = daemons.next_port().unwrap();
        let lines = lines
            .replace("{local}", &local.to_string())
            .replace("{port}", &port.to_string());
        let trunk =
            format!("\n[[trunk]]\nname = \"out\"\ntenant = \"test\"\noptions_secs = 0\n{lines}\n");
        state(
            &daemons,
            "outbound_prefixes = [\"+1\"]",
            &(trunk + &route("\"out\"")),
        );
        Self {
            hub: MediaHub::start().unwrap(),
            daemons,
            phone,
            local,
            media_port,
        }
    }

    fn play(&self, scenario: &str) -> Running {
        sipp(&self.daemons, scenario, self.local, self.media_port)
    }

    /// The member calls out, is answered, and hangs up; SIPp is content.
    fn calls_out(&self, scenario: &str) {
        let carrier = self.play(scenario);
        let rtp = self.hub.endpoint(self.phone.local_addr().ip()).unwrap();
        let call = self
            .phone
            .call(OUTSIDE, AudioDescription::pcmu(rtp.local_addr()))
            .unwrap();
        if let Err(error) = call.wait_answered(LIMIT) {
            let sipp = carrier.grade();
            panic!("{error:#}\n{sipp:?}\n{}", self.daemons.logs());
        }
        call.hang_up(LIMIT).unwrap();
        carrier.grade().unwrap();
        wait_idle(&self.daemons, LIMIT).unwrap();
    }

    /// The carrier calls the member, who answers and hangs up; SIPp is content.
    fn is_called(&self, scenario: &str) {
        let carrier = self.play(scenario);
        let call = match self.phone.wait_call(LIMIT) {
            Ok(call) => call,
            Err(error) => {
                let sipp = carrier.grade();
                panic!("{error:#}\n{sipp:?}\n{}", self.daemons.logs());
            }
        };
        let rtp = self.hub.endpoint(self.phone.local_addr().ip()).unwrap();
        call.answer(&AudioDescription::pcmu(rtp.local_addr()))
            .unwrap();
        call.wait_established(LIMIT).unwrap();
        wait_caller_answered(&self.daemons);
        call.hang_up(LIMIT).unwrap();
        carrier.grade().unwrap();
        wait_idle(&self.daemons, LIMIT).unwrap();
    }
}

#[test]
fn twilio_takes_and_delivers_calls() {
    let twilio = Emulated::new(
        "preset = \"twilio\"\nsources = [\"127.0.0.10\"]\ndestinations = [\"{local}\"]",
    );
    twilio.calls_out("twilio-out");
    twilio.is_called("twilio-in");
    let trunk = wait_trunk(&twilio.daemons, "out", |_| true);
    assert_eq!(trunk["cps"], 1);
}

#[test]
fn telnyx_takes_and_delivers_calls() {
    let telnyx = Emulated::new(
        "preset = \"telnyx\"\nsources = [\"127.0.0.10\"]\ndestinations = [\"{local}\"]\n\
         numbers_out = \"e164\"\ntech_prefix = \"1234\"\n\
         header_files = [\"X-Telnyx-Token: carrier.secret\"]",
    );
    telnyx.calls_out("telnyx-out");
    telnyx.is_called("telnyx-in");
}

#[test]
fn signalwire_is_registered_at_and_takes_and_delivers_calls_on_that_flow() {
    let signalwire = Emulated::new(
        "preset = \"signalwire\"\nsources = [\"127.0.0.99\"]\ndestinations = [\"{local}\"]\n\
         transport = \"udp\"\nuser = \"acme\"\npassword_file = \"carrier.secret\"\n\
         register = true\nregister_secs = 60",
    );
    let registrar = signalwire.play("registrar");
    let trunk = wait_trunk(&signalwire.daemons, "out", |trunk| {
        trunk["registration"]["state"] == "registered"
    });
    assert!(trunk["registration"]["expires_secs"].as_u64().unwrap() > 1_700);
    registrar.grade().unwrap();
    signalwire.calls_out("signalwire-out");
    signalwire.is_called("signalwire-in");
}

#[test]
fn bandwidth_takes_calls_at_either_address_and_delivers_them() {
    let bandwidth = Emulated::new(
        "preset = \"bandwidth\"\ndestinations = [\"127.0.0.11:{port}\", \"{local};priority=2\"]",
    );
    let first = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), bandwidth.local.port()));
    let refusing = sipp(
        &bandwidth.daemons,
        "busy-for-now",
        first,
        bandwidth.media_port,
    );
    bandwidth.calls_out("bandwidth-out");
    refusing.grade().unwrap();
    // Its Retry-After holds the first one off: nobody is there any more to refuse.
    bandwidth.calls_out("bandwidth-out");
    bandwidth.is_called("bandwidth-in");
}
