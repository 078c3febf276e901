use super::*;

fn problems(text: &str) -> String {
    parse_document::<ControlConfig>(text, "trunkline.toml")
        .expect_err("the document is wrong")
        .to_string()
}

#[test]
fn values_that_cannot_work_are_refused_with_line_key_and_form() {
    let table = [
        ("[sip]\nlisten = []\n", "listen = []"),
        (
            "[sip]\nlisten = [\"udp:0.0.0.0:5060\"]\n",
            "listen = [\"udp:0.0.0.0:5060\"]",
        ),
        ("[sip]\nlisten = [\"tls:192.0.2.1:5061\"]\n", "listen"),
        ("[sip]\nlisten = [\"udp:sip.example.org:5060\"]\n", "listen"),
        (
            "[sip]\nlisten = [\"udp:192.0.2.1:5060\", \"udp:192.0.2.1:5060\"]\n",
            "listen",
        ),
        ("[sip]\nrealm = \"a\\\"b\"\n", "realm"),
        ("[sip]\nring_timeout_secs = 0\n", "ring_timeout_secs = 0"),
        ("[sip]\ncalls_max = 1.5\n", "calls_max = 1.5"),
        (
            "[http]\nlisten = \"0.0.0.0:8080\"\n",
            "listen = \"0.0.0.0:8080\"",
        ),
        (
            "[store]\npath = \"trunkline.db\"\n",
            "path = \"trunkline.db\"",
        ),
    ];
    for (text, key) in table {
        let shown = problems(text);
        assert!(
            shown.starts_with("trunkline.toml:2: ["),
            "{text:?}: {shown}"
        );
        assert!(
            shown.contains(key) && shown.contains(": expected "),
            "{text:?}: {shown}"
        );
        assert_eq!(shown.lines().count(), 1, "{text:?}: {shown}");
    }
}

#[test]
fn misspelt_key_is_answered_with_the_allowed_ones() {
    assert_eq!(
        problems("\n[http]\nlissten = \"127.0.0.1:80\"\n"),
        "trunkline.toml:3: unknown key \"lissten\" in [http]; allowed: listen"
    );
}

#[test]
fn store_stands_in_the_state_dir_unless_told_otherwise() {
    let config: ControlConfig =
        parse_document("[node]\nstate_dir = \"/srv/t\"\n", "t").expect("valid");
    assert_eq!(config.store_path(), Path::new("/srv/t/trunkline.db"));
    let config: ControlConfig =
        parse_document("[store]\npath = \"/srv/x.db\"\n", "t").expect("valid");
    assert_eq!(config.store_path(), Path::new("/srv/x.db"));
}

#[test]
fn reference_with_its_comment_marks_removed_is_a_file_of_defaults() {
    let live: String = ControlConfig::reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .filter(|line| !line.starts_with("workers"))
        .collect();
    let config: ControlConfig = parse_document(&live, "reference").expect("valid");
    assert_eq!(config, ControlConfig::default());
    assert!(live.contains("ring_timeout_secs = 30"));
}

#[test]
fn listen_prints_as_it_is_written() {
    let config = ControlConfig::default();
    let shown: Vec<_> = config.sip.listen.iter().map(SipListen::to_string).collect();
    assert_eq!(shown, ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]);
}
