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
            "listen: \"udp:0.0.0.0:5060\"",
        ),
        (
            "[sip]\nlisten = [\"sctp:192.0.2.1:5061\"]\n",
            "listen: \"sctp",
        ),
        (
            "[sip]\nlisten = [{ on = \"udp:10.0.0.1:5060\", advertise = \"a b\" }]\n",
            "listen: { on",
        ),
        (
            "[sip]\nlisten = [\"tcp:192.0.2.1:443\", \"wss:192.0.2.1:443\"]\n[sip.tls]\ncertificate_file = \"/c\"\nkey_file = \"/k\"\n",
            "listen: \"wss",
        ),
        ("[sip.limits]\nconnections_max = 0\n", "connections_max = 0"),
        (
            "[sip.tls]\ncertificate_file = \"c.pem\"\n",
            "certificate_file",
        ),
        ("[sip.tls]\nkey_file = \"/k.pem\"\n", "key_file"),
        (
            "[sip.tls]\nclient_ca_file = \"\"\nverify_clients = \"required\"\n",
            "client_ca_file",
        ),
        ("[sip.websocket]\norigins = [\"example.com\"]\n", "origins"),
        (
            "[sip.websocket]\nping_interval_secs = 3\n",
            "ping_interval_secs = 3",
        ),
        ("[sip.dns]\nservers = [\"127.0.0.1\"]\n", "servers"),
        ("[sip]\nlisten = [\"udp:sip.example.org:5060\"]\n", "listen"),
        (
            "[sip]\nlisten = [\"udp:192.0.2.1:5060\", \"udp:192.0.2.1:5060\"]\n",
            "listen",
        ),
        ("[sip]\nrealm = \"a\\\"b\"\n", "realm"),
        ("[sip]\nring_timeout_secs = 0\n", "ring_timeout_secs = 0"),
        ("[sip]\ncalls_max = 1.5\n", "calls_max = 1.5"),
        (
            "[sip]\nsession_expires_secs = 60\n",
            "session_expires_secs = 60",
        ),
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
fn secure_socket_needs_a_certificate_and_sections_of_sip_are_told_from_its_keys() {
    let shown = problems("[sip]\nlisten = [\"tls:192.0.2.1:5061\"]\n");
    assert!(
        shown.contains("[sip.tls] certificate_file: expected a file"),
        "{shown}"
    );
    let shown = problems("[sip]\ntsl = { certificate_file = \"/c\" }\n");
    assert!(shown.contains("unknown key \"tsl\" in [sip]"), "{shown}");
    let shown = problems("[sip.tls]\ncertificate = \"/c\"\n");
    assert!(
        shown.contains("unknown key \"certificate\" in [sip.tls]"),
        "{shown}"
    );

    let text = "[sip]\nlisten = [\"tls:192.0.2.1:5061\", { on = \"wss:[2001:db8::1]:443\", \
                advertise = \"sip.example.com\" }]\n[sip.tls]\ncertificate_file = \
                [\"/a.pem\", \"/b.pem\"]\nkey_file = [\"/a.key\", \"/b.key\"]\n";
    let config: ControlConfig = parse_document(text, "t").expect("valid");
    assert_eq!(config.sip.tls.pairs.len(), 2);
    assert_eq!(config.sip.tls.pairs[1].key_file, Path::new("/b.key"));
    let advertise = config.sip.listen[1].advertise.as_ref().expect("said");
    assert_eq!(
        (advertise.host.as_str(), advertise.port),
        ("sip.example.com", None)
    );
}

#[test]
fn limits_of_an_empty_file_are_those_of_the_transport() {
    let config = ControlConfig::default();
    assert_eq!(config.sip.limits, TransportLimits::default());
}

#[test]
fn listen_prints_as_it_is_written() {
    let config = ControlConfig::default();
    let shown: Vec<_> = config.sip.listen.iter().map(SipListen::to_string).collect();
    assert_eq!(shown, ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]);
}
