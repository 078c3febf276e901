//! `cargo xtask demo`: one real call with speech both ways.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use trunkline_testkit::conversation::{Conversation, Party, talk};
use trunkline_testkit::http;
use trunkline_testkit::phone::{Phone, PhoneConfig};
use trunkline_testkit::rtp::{Heard, MediaHub};
use trunkline_testkit::sdp::AudioDescription;

use crate::demo_site::{CARRIER, DEMO_PHONE, DemoDirectory, Running};
use crate::table::Table;

/// Longest wait for each step of the call.
const LIMIT: Duration = Duration::from_secs(5);
/// What the carrier shows as calling number.
const CALLING_NUMBER: &str = "+15559990000";

#[derive(Args)]
pub(crate) struct DemoArguments {
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Seconds of speech each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
}

/// All that the demo measured.
#[derive(Serialize)]
struct Report {
    did: String,
    /// INVITE leaves the carrier → INVITE at the member's phone.
    invite_through_ms: f64,
    /// INVITE leaves the carrier → ringing heard there.
    ringing_ms: f64,
    /// The phone answers → the carrier hears of it.
    answer_through_ms: f64,
    /// The carrier hangs up → the phone hears of it.
    hangup_through_ms: f64,
    #[serde(flatten)]
    heard: Conversation,
}

pub(crate) fn demo(arguments: &DemoArguments) -> Result<ExitCode> {
    let running = DemoDirectory::locate()?
        .read_running()
        .filter(|running| matches!(http::get(running.http, "/readyz"), Ok((200, _))));
    let Some(running) = running else {
        bail!("no Trunkline is running here; start it with `cargo xtask run` in another terminal");
    };
    let report = place_call(&running, arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&running, &report);
    }
    let deaf = report.heard.caller.received == 0 || report.heard.callee.received == 0;
    if deaf {
        eprintln!("error: a side heard nothing");
    }
    Ok(if deaf {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn place_call(running: &Running, arguments: &DemoArguments) -> Result<Report> {
    let member = running
        .members
        .iter()
        .find(|member| member.user == DEMO_PHONE)
        .context("the demo site has no demo phone; run `cargo xtask run` again")?;
    let password = std::fs::read_to_string(&member.password_file)
        .with_context(|| format!("cannot read {}", member.password_file.display()))?;

    let hub = MediaHub::start()?;
    let phone_rtp = hub.endpoint(running.sip.ip())?;
    let carrier_rtp = hub.endpoint(CARRIER)?;
    let phone =
        Phone::start(PhoneConfig::udp(DEMO_PHONE, running.sip).with_password(password.trim()))?;
    match phone.register(60, LIMIT)? {
        200 => {}
        status => bail!("the phone's REGISTER was answered {status}"),
    }
    let carrier =
        Phone::start(PhoneConfig::udp(CALLING_NUMBER, running.sip).from_address(CARRIER))?;

    let outgoing = carrier.call(
        &member.did,
        AudioDescription::pcmu(carrier_rtp.local_addr()),
    )?;
    let incoming = phone.wait_call(LIMIT)?;
    incoming.ring()?;
    outgoing.wait_provisional(180, LIMIT)?;
    let picked_up = Instant::now();
    incoming.answer(&AudioDescription::pcmu(phone_rtp.local_addr()))?;
    outgoing.wait_answered(LIMIT)?;
    incoming.wait_established(LIMIT)?;
    if !arguments.json {
        println!(
            "calling {} … answered; both sides speak for {} s",
            member.did, arguments.seconds
        );
    }
    let heard = talk(
        &Party {
            call: &outgoing,
            rtp: &carrier_rtp,
        },
        &Party {
            call: &incoming,
            rtp: &phone_rtp,
        },
        usize::from(arguments.seconds) * 50,
    )?;
    let hung_up = Instant::now();
    outgoing.hang_up(LIMIT)?;
    incoming.wait_ended(LIMIT)?;

    let (out, at_phone) = (outgoing.timings(), incoming.timings());
    let after = |start: Instant, end: Option<Instant>| {
        end.map_or(f64::NAN, |end| {
            end.saturating_duration_since(start).as_secs_f64() * 1e3
        })
    };
    // The demo leaves no binding behind: the registrar should not ring a phone that is gone.
    phone.register(0, LIMIT)?;
    Ok(Report {
        did: member.did.clone(),
        invite_through_ms: after(out.invite, Some(at_phone.invite)),
        ringing_ms: after(out.invite, out.ringing),
        answer_through_ms: after(picked_up, out.answered),
        hangup_through_ms: after(hung_up, at_phone.ended),
        heard,
    })
}

fn print(running: &Running, report: &Report) {
    println!(
        "\nA call from the carrier at {CARRIER} to {} through {}\n",
        report.did, running.sip
    );
    let mut times = Table::new(&["signalling", "ms"]);
    for (what, ms) in [
        ("INVITE in → INVITE at the phone", report.invite_through_ms),
        ("INVITE in → ringing at the caller", report.ringing_ms),
        ("pick-up → answer at the caller", report.answer_through_ms),
        ("hang-up → BYE at the phone", report.hangup_through_ms),
    ] {
        times.row(&[what.to_owned(), format!("{ms:.2}")]);
    }
    println!("{times}");
    let mut media = Table::new(&[
        "who heard whom",
        "sent",
        "received",
        "lost",
        "twice",
        "reordered",
        "jitter ms",
        "payload",
    ]);
    let mut row = |who: &str, heard: &Heard| {
        media.row(&[
            who.to_owned(),
            heard.sent.to_string(),
            heard.received.to_string(),
            heard.lost.to_string(),
            heard.duplicates.to_string(),
            heard.reordered.to_string(),
            format!("{:.3}", heard.jitter_ms),
            if heard.payload_identical {
                "identical".to_owned()
            } else {
                "DIFFERS".to_owned()
            },
        ]);
    };
    row("phone heard caller", &report.heard.callee);
    row("caller heard phone", &report.heard.caller);
    println!("{media}");
}
