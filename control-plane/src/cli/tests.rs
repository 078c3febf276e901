use std::path::Path;

use super::*;
use crate::site::tests::{SMALL_SITE, with_media};

/// A directory with `trunkline.toml`, `site.toml` and its password files.
struct Fixture(tempfile::TempDir);

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let fixture = Self(dir);
        let path = fixture.path().display().to_string();
        fixture.write(
            "trunkline.toml",
            &format!("[node]\nrun_dir = \"{path}\"\nstate_dir = \"{path}\"\n"),
        );
        fixture.write("site.toml", SMALL_SITE);
        fixture.write("ada", "secret\n");
        fixture.write("grace", "secret\n");
        fixture
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("written");
    }

    fn run(&self, arguments: &str) -> Outcome {
        let config = self.path().join("trunkline.toml");
        let site = self.path().join("site.toml").display().to_string();
        let arguments = ["trunkline-control".into(), "--config".into(), config.into()]
            .into_iter()
            .chain(arguments.split_whitespace().map(|word| match word {
                "SITE" => OsString::from(&site),
                word => OsString::from(word),
            }));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = execute(arguments, &mut out, &mut err, |config| {
            anyhow::bail!("ran as {}", config.node.name)
        });
        Outcome {
            code,
            out: String::from_utf8(out).expect("text"),
            err: String::from_utf8(err).expect("text"),
        }
    }
}

#[test]
fn no_command_runs_the_daemon() {
    let outcome = Fixture::new().run("");
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (1, "trunkline-control: ran as trunkline\n")
    );
}

#[test]
fn wrong_configuration_is_exit_code_2_for_every_command() {
    let fixture = Fixture::new();
    fixture.write("trunkline.toml", "[sip]\nrealms = \"x\"\n");
    for arguments in ["", "--check-config", "status", "apply SITE", "cdr"] {
        let outcome = fixture.run(arguments);
        assert_eq!(outcome.code, 2, "{arguments}");
        assert!(
            outcome
                .err
                .contains("trunkline.toml:2: unknown key \"realms\" in [sip]"),
            "{}",
            outcome.err
        );
    }
}

#[test]
fn check_config_runs_nothing() {
    let outcome = Fixture::new().run("--check-config");
    assert_eq!(outcome.code, 0);
    assert!(
        outcome.out.ends_with("trunkline.toml: ok\n"),
        "{}",
        outcome.out
    );
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_not_an_error() {
    let fixture = Fixture::new();
    for arguments in [
        "sing",
        "apply",
        "member set 1 --availability online",
        "cdr --since 5y",
        "member set 101 --availability asleep",
    ] {
        let outcome = fixture.run(arguments);
        assert_eq!(outcome.code, 2, "{arguments}: {}", outcome.out);
        assert!(!outcome.err.is_empty(), "{arguments}");
    }
    let help = fixture.run("--help");
    assert_eq!(help.code, 0);
    assert!(help.out.contains("apply"), "{}", help.out);
}

#[test]
fn apply_shows_its_diff_and_a_second_one_changes_nothing() {
    let fixture = Fixture::new();
    let dry = fixture.run("apply SITE --dry-run");
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(dry.out.contains("+ member acme/101 "), "{}", dry.out);
    assert!(
        dry.out.ends_with("dry run: nothing was changed\n"),
        "{}",
        dry.out
    );

    let first = fixture.run("apply SITE");
    assert!(
        first.out.contains("5 to create, 0 to change"),
        "{}",
        first.out
    );
    assert!(
        first
            .out
            .ends_with("no daemon is running; it follows when it starts\n"),
        "{}",
        first.out
    );
    let second = fixture.run("apply SITE");
    assert!(
        second
            .out
            .starts_with("0 to create, 0 to change, 0 to delete, 5 unchanged"),
        "{}",
        second.out
    );
}

#[test]
fn apply_as_json_names_each_change() {
    let outcome = Fixture::new().run("apply SITE --json");
    let applied: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!(applied["daemon"], "not_running");
    assert_eq!(applied["changes"][0]["action"], "create");
    assert_eq!(applied["changes"][0]["object"], "tenant");
    assert_eq!(applied["changes"][0]["key"], "acme");
    assert!(
        !outcome.out.contains(&"secret".repeat(2)),
        "{}",
        outcome.out
    );
}

#[test]
fn wrong_site_file_is_exit_code_2_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.run("apply SITE");
    fixture.write(
        "site.toml",
        &SMALL_SITE.replace("\"101\"\nname", "\"1\"\nname"),
    );
    let outcome = fixture.run("apply SITE");
    assert_eq!(outcome.code, 2);
    assert!(
        outcome
            .err
            .contains("site.toml:12: [[member]] extension = \"1\""),
        "{}",
        outcome.err
    );
    assert_eq!(
        fixture
            .run("members --json")
            .out
            .matches("\"extension\"")
            .count(),
        2
    );
}

#[test]
fn media_address_that_nobody_has_is_exit_code_2_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.write("site.toml", &with_media("127.0.0.1", "::1", "outside"));
    let outcome = fixture.run("apply SITE");
    assert_eq!(outcome.code, 2);
    let expected = "[[member]] media = \"outside\": no entry of [edge] media_addresses is named so; \
                    there are 127.0.0.1, ::1\n";
    assert!(outcome.err.ends_with(expected), "{}", outcome.err);
    assert!(outcome.err.contains("site.toml:17: "), "{}", outcome.err);
    assert!(!fixture.run("members --json").out.contains("extension"));
}

#[test]
fn lists_show_what_was_applied() {
    let fixture = Fixture::new();
    fixture.run("apply SITE");
    let members = fixture.run("members").out;
    assert!(
        members.contains("acme    101        Ada Lovelace  ada       online (by site)   -"),
        "{members}"
    );
    assert!(
        fixture
            .run("dids")
            .out
            .contains("+442071838750  acme    101\n")
    );
    assert!(
        fixture
            .run("trunks")
            .out
            .contains("192.0.2.0/28 2001:db8::/64")
    );
    let set = fixture.run("member set 101 --availability busy");
    assert_eq!(set.out, "member acme/101 is busy\n");
    assert!(fixture.run("members").out.contains("busy (by member)"));
    let unknown = fixture.run("member set 999 --availability busy");
    assert_eq!(unknown.code, 1);
    assert!(
        unknown
            .err
            .contains("there is no member with extension 999"),
        "{}",
        unknown.err
    );
}

#[test]
fn daemon_that_does_not_run_is_exit_code_1() {
    let fixture = Fixture::new();
    for arguments in ["status", "calls"] {
        let outcome = fixture.run(arguments);
        assert_eq!(outcome.code, 1);
        let expected = "trunkline-control: no daemon is running: nobody answers at /";
        assert!(outcome.err.starts_with(expected), "{}", outcome.err);
    }
}

#[test]
fn call_records_are_listed_for_people_and_as_json_lines() {
    let fixture = Fixture::new();
    let config = ControlConfig::load(&fixture.path().join("trunkline.toml")).expect("sound");
    let options = crate::store::StoreOptions::new(config.store_path(), &config.sip.realm);
    let (store, _) = crate::store::open(options).expect("opened");
    let (writer, thread) = crate::cdr::spawn(&config.spool_path(), store).expect("spawned");
    writer.submit(crate::cdr::tests::record("c-1", 1_767_225_599_000));
    writer.submit(crate::cdr::tests::record("c-2", 1_767_225_600_000));
    drop(writer);
    thread.join();

    let table = fixture.run("cdr").out;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[1].starts_with("2026-01-01T00:00:00Z  inbound"),
        "{table}"
    );
    assert!(lines[2].contains("answered  1:00  c-1"), "{table}");
    let json = fixture.run("cdr --json --limit 1").out;
    let record: crate::cdr::CallRecord = serde_json::from_str(json.trim()).expect("one record");
    assert_eq!(record.call_id, "c-2");
    assert_eq!(fixture.run("cdr --since 1s --json").out, "");
}

#[test]
fn config_reference_needs_no_configuration() {
    let fixture = Fixture::new();
    fixture.write("trunkline.toml", "nonsense");
    let outcome = fixture.run("config-reference");
    assert_eq!(outcome.code, 0);
    assert!(
        outcome.out.contains("#ring_timeout_secs = 30"),
        "{}",
        outcome.out
    );
}

#[test]
fn reader_that_has_seen_enough_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let arguments = ["trunkline-control", "config-reference"].map(OsString::from);
    let mut err = Vec::new();
    assert_eq!(execute(arguments, &mut Closed, &mut err, |_| Ok(())), 0);
    assert!(err.is_empty());
}

#[test]
fn every_action_on_a_call_has_its_words() {
    use crate::switch::{CallAction, Ear, RecordingForm, Side};
    let parse = |words: &str| {
        let all = ["trunkline-control", "call", "1-0"].into_iter();
        let parsed = Arguments::try_parse_from(all.chain(words.split(' ')));
        match parsed.map(|arguments| arguments.command) {
            Ok(Some(Command::Call {
                id,
                command: call::CallCommand::Act(act),
                ..
            })) if id == "1-0" => Some(act.action()),
            _ => None,
        }
    };
    let play = CallAction::Play {
        source: "hold.wav".to_owned(),
        leg: Side::B,
        loops: true,
        into: false,
        softer_db: 0,
    };
    let over = CallAction::Play {
        source: "hint.wav".to_owned(),
        leg: Side::A,
        loops: false,
        into: true,
        softer_db: 12,
    };
    let detect = |what, on| CallAction::Detect {
        what,
        on,
        leg: Side::B,
    };
    let record = |form| CallAction::RecordStart {
        path: "a.wav".to_owned(),
        form,
    };
    let rows = [
        ("play hold.wav --loop --leg b", Some(play)),
        ("play hint.wav --into --softer 12", Some(over)),
        ("play hint.wav --softer 12", None),
        ("stop", Some(CallAction::Stop { leg: Side::A })),
        ("record start a.wav", Some(record(RecordingForm::Stereo))),
        (
            "record start a.wav --stereo",
            Some(record(RecordingForm::Stereo)),
        ),
        (
            "record start a.wav --mixed",
            Some(record(RecordingForm::Mixed)),
        ),
        (
            "record start a.wav --pcap",
            Some(record(RecordingForm::Pcap)),
        ),
        ("record start a.wav --pcap --mixed", None),
        ("record stop", Some(CallAction::RecordStop)),
        ("record pause", Some(CallAction::RecordPause)),
        ("record resume", Some(CallAction::RecordResume)),
        (
            "digits 123# --leg b",
            Some(CallAction::Digits {
                digits: "123#".to_owned(),
                leg: Side::B,
                inband: false,
            }),
        ),
        ("mute", Some(CallAction::Mute { leg: Side::A })),
        ("unmute --leg b", Some(CallAction::Unmute { leg: Side::B })),
        (
            "fork 192.0.2.9:4000",
            Some(CallAction::Fork {
                to: Some("192.0.2.9:4000".parse().expect("an address")),
                leg: Side::A,
            }),
        ),
        (
            "fork none",
            Some(CallAction::Fork {
                to: None,
                leg: Side::A,
            }),
        ),
        ("deafen", Some(CallAction::Deafen { leg: Side::A })),
        (
            "undeafen --leg b",
            Some(CallAction::Undeafen { leg: Side::B }),
        ),
        ("detect beep on --leg b", Some(detect(Ear::Beep, true))),
        ("detect tones off --leg b", Some(detect(Ear::Tones, false))),
        (
            "detect activity on --leg b",
            Some(detect(Ear::Activity, true)),
        ),
        (
            "detect progress on --leg b",
            Some(detect(Ear::Progress, true)),
        ),
        ("detect smells on", None),
        (
            "hide-digits on",
            Some(CallAction::HideDigits {
                on: true,
                leg: Side::A,
            }),
        ),
        ("hide-digits maybe", None),
        ("fork somewhere", None),
        ("sing", None),
    ];
    for (words, expected) in rows {
        assert_eq!(parse(words), expected, "{words}");
    }
}

#[test]
fn every_action_on_a_conference_has_its_words() {
    use crate::switch::ConferenceAction as Action;
    let parse = |words: &str| {
        let all = [
            "trunkline-control",
            "conference",
            "standup",
            "--tenant",
            "acme",
        ]
        .into_iter();
        let parsed = Arguments::try_parse_from(all.chain(words.split(' ')));
        match parsed.map(|arguments| arguments.command) {
            Ok(Some(Command::Conference {
                name,
                tenant: Some(tenant),
                command,
                ..
            })) if (tenant.as_str(), name.as_str()) == ("acme", "standup") => {
                Some(command.action())
            }
            _ => None,
        }
    };
    let member = || "1-0".to_owned();
    let whisper = Action::Whisper {
        member: member(),
        to: "1-1".to_owned(),
    };
    let start = Action::RecordStart {
        path: "a.wav".to_owned(),
    };
    let rows = [
        ("mute 1-0", Some(Action::Mute { member: member() })),
        ("unmute 1-0", Some(Action::Unmute { member: member() })),
        ("deafen 1-0", Some(Action::Deafen { member: member() })),
        ("undeafen 1-0", Some(Action::Undeafen { member: member() })),
        ("whisper 1-0 --to 1-1", Some(whisper)),
        ("whisper 1-0", None),
        (
            "unwhisper 1-0",
            Some(Action::Unwhisper { member: member() }),
        ),
        ("kick 1-0", Some(Action::Kick { member: member() })),
        ("lock", Some(Action::Lock)),
        ("unlock", Some(Action::Unlock)),
        ("record start a.wav", Some(start)),
        ("record stop", Some(Action::RecordStop)),
        ("record pause", Some(Action::RecordPause)),
        ("record resume", Some(Action::RecordResume)),
        ("record", None),
    ];
    for (words, expected) in rows {
        assert_eq!(parse(words), expected, "{words}");
    }
}
