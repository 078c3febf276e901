use super::*;
use crate::credential::Credential;
use crate::party::PartyAudio;
use crate::site::{Extension, Forwards, Group};
use trunkline_sip::offer_answer::SrtpPolicy;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn extension(text: &str) -> Extension {
    text.parse().expect("an extension")
}

/// A member who forwards so.
fn member(
    number: &str,
    availability: Availability,
    forwards: &[(ForwardEvent, &str)],
) -> MemberRoute {
    let mut theirs = Forwards::default();
    for (event, target) in forwards {
        theirs.set(*event, Some((*target).to_owned()));
    }
    MemberRoute {
        tenant: name("acme"),
        extension: extension(number),
        name: "Somebody".to_owned(),
        credential: Credential::new(number, "trunkline", "secret"),
        sip_user: format!("acme-{number}").parse().expect("a SIP user"),
        forward_number: None,
        forwards: theirs,
        availability,
        srtp: SrtpPolicy::Off,
        media: None,
        audio: PartyAudio::default(),
        outbound: Default::default(),
        numbers: Vec::new(),
    }
}

fn group(strategy: Strategy, members: &[&str]) -> Group {
    Group {
        tenant: name("acme"),
        name: name("sales"),
        extension: Some(extension("600")),
        dids: vec!["+12025550160".parse().expect("E.164")],
        members: members.iter().map(|member| extension(member)).collect(),
        strategy,
        ring_secs: 15,
        skip_busy: true,
    }
}

fn site(members: Vec<MemberRoute>, groups: Vec<Group>) -> RoutingSnapshot {
    RoutingSnapshot::new(Vec::new(), members, Vec::new()).with_groups(groups)
}

fn start(snapshot: &RoutingSnapshot, turns: &mut Turns, called: &str) -> Plan {
    let destination = find_destination(snapshot, &name("acme"), called);
    Plan::new(snapshot, turns, destination.expect("somebody"))
}

/// Who rings in a round, as text.
fn rung(round: Option<PlannedRound>) -> String {
    let Some(round) = round else {
        return "-".to_owned();
    };
    let targets = round.targets.iter().map(|target| match target {
        Target::Member(member) => member.extension.to_string(),
    });
    targets.collect::<Vec<_>>().join("+")
}

#[test]
fn call_follows_the_forward_of_what_happened() {
    use Availability::{Busy, Offline, Online};
    let all = [
        (ForwardEvent::Busy, "102"),
        (ForwardEvent::NoAnswer, "103"),
        (ForwardEvent::Offline, "104"),
    ];
    // The member's own word, how the round ended, who is rung after it.
    let rows = [
        (Online, Some(Cause::Busy), "102"),
        (Online, Some(Cause::NoAnswer), "103"),
        (Online, Some(Cause::Offline), "104"),
        (Online, Some(Cause::Failed), "104"),
        (Online, Some(Cause::Declined), "-"),
        (Online, Some(Cause::Media), "-"),
        (Busy, None, "102"),
        (Offline, None, "104"),
    ];
    for (availability, cause, expected) in rows {
        let mut members = vec![member("101", availability, &all)];
        let others = ["102", "103", "104"];
        members.extend(others.map(|other| member(other, Online, &[])));
        let snapshot = site(members, Vec::new());
        let mut turns = Turns::default();
        let mut plan = start(&snapshot, &mut turns, "101");
        if let Some(cause) = cause {
            assert_eq!(rung(plan.next(&snapshot, &mut turns, None)), "101");
            let next = plan.next(&snapshot, &mut turns, Some(cause));
            assert_eq!(rung(next), expected, "{cause:?}");
        } else {
            let first = plan.next(&snapshot, &mut turns, None);
            assert_eq!(rung(first), expected, "{availability}");
        }
        let diversions = plan.diversions().len();
        assert_eq!(diversions, usize::from(expected != "-"));
    }
}

#[test]
fn always_goes_on_without_ringing_whatever_the_member_says() {
    let always = [(ForwardEvent::Always, "600")];
    let members = vec![
        member("101", Availability::Offline, &always),
        member("102", Availability::Online, &[]),
        member("103", Availability::Online, &[]),
    ];
    let snapshot = site(
        members,
        vec![group(Strategy::Simultaneous, &["102", "103"])],
    );
    let mut turns = Turns::default();
    let mut plan = start(&snapshot, &mut turns, "101");
    assert_eq!(rung(plan.next(&snapshot, &mut turns, None)), "102+103");
    let diversion = Diversion {
        from: "101".to_owned(),
        event: ForwardEvent::Always,
    };
    assert_eq!(plan.diversions(), [diversion]);
}

#[test]
fn forwards_in_a_circle_and_to_nowhere_end() {
    let circle = |to| [(ForwardEvent::Busy, to)];
    let members = vec![
        member("101", Availability::Busy, &circle("102")),
        member("102", Availability::Busy, &circle("103")),
        member("103", Availability::Busy, &circle("101")),
        member("104", Availability::Busy, &circle("199")),
    ];
    let snapshot = site(members, Vec::new());
    let mut turns = Turns::default();
    for (called, followed) in [("101", 2), ("104", 0)] {
        let mut plan = start(&snapshot, &mut turns, called);
        assert_eq!(rung(plan.next(&snapshot, &mut turns, None)), "-");
        assert_eq!(plan.cause(), Some(Cause::Busy));
        assert_eq!(plan.diversions().len(), followed, "{called}");
    }
}

#[test]
fn chains_of_forwards_are_bounded() {
    let members: Vec<MemberRoute> = (0..10)
        .map(|at| {
            let next = format!("{}", 101 + at);
            let forward = [(ForwardEvent::Always, next.as_str())];
            member(&format!("{}", 100 + at), Availability::Online, &forward)
        })
        .collect();
    let snapshot = site(members, Vec::new());
    let mut turns = Turns::default();
    let mut plan = start(&snapshot, &mut turns, "100");
    assert_eq!(plan.diversions().len(), FORWARDS_MAX);
    assert_eq!(rung(plan.next(&snapshot, &mut turns, None)), "105");
}

#[test]
fn groups_ring_by_their_strategy_and_leave_out_who_is_away() {
    let members = || {
        vec![
            member("101", Availability::Online, &[]),
            member("102", Availability::Offline, &[]),
            member("103", Availability::Online, &[]),
            member("104", Availability::Online, &[]),
        ]
    };
    let rows: [(Strategy, &[&[&str]]); 3] = [
        (
            Strategy::Simultaneous,
            &[&["101+103+104"], &["101+103+104"]],
        ),
        (
            Strategy::Sequential,
            &[&["101", "103", "104"], &["101", "103", "104"]],
        ),
        (
            Strategy::RoundRobin,
            &[
                &["101", "103", "104"],
                // The second call begins with 102, who is away.
                &["103", "104", "101"],
                &["103", "104", "101"],
                &["104", "101", "103"],
                &["101", "103", "104"],
            ],
        ),
    ];
    for (strategy, calls) in rows {
        let everybody = ["101", "102", "103", "104"];
        let snapshot = site(members(), vec![group(strategy, &everybody)]);
        let mut turns = Turns::default();
        for expected in calls {
            let mut plan = start(&snapshot, &mut turns, "+12025550160");
            let mut last = None;
            for round in *expected {
                let next = plan.next(&snapshot, &mut turns, last);
                assert_eq!(next.as_ref().and_then(|r| r.ring_timeout_secs), Some(15));
                assert_eq!(rung(next), *round, "{strategy}");
                last = Some(Cause::NoAnswer);
            }
            assert_eq!(rung(plan.next(&snapshot, &mut turns, last)), "-");
        }
    }
}
