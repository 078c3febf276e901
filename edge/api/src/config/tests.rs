use super::*;

fn problems(text: &str) -> String {
    parse_document::<EdgeDocument>(text, "trunkline.toml")
        .expect_err("the document is wrong")
        .to_string()
}

#[test]
fn problems_name_file_line_key_and_what_is_allowed() {
    let table = [
        (
            "[edge]\nprots = 1\n",
            "trunkline.toml:2: unknown key \"prots\" in [edge]; allowed: workers, media_addresses, \
             ports, sessions_max, orphan_timeout_secs, io, dscp, prompts_max, \
             prompt_memory_mb, prompt_file_mb, prompt_secs_max, recordings_max, recorder_memory_mb",
        ),
        (
            "\n[edge]\nports = \"1-\"\n",
            "trunkline.toml:3: [edge] ports = \"1-\": expected \"FIRST-LAST\" with 1024 <= FIRST < \
             LAST <= 65535, e.g. \"30000-39999\"",
        ),
        (
            "[edge]\nworkers = 0\n",
            "trunkline.toml:2: [edge] workers = 0: expected a number from 1 to 256",
        ),
        (
            "[edge]\nworkers = 99999999999999999999\n",
            "trunkline.toml:2: [edge] workers = 99999999999999999999: expected a number from 1 to 256",
        ),
        (
            "[edgy]\n",
            "trunkline.toml:1: unknown section \"edgy\"; allowed sections: node, edge, sip, registrar, media, http, store, trace",
        ),
        (
            "workers = 1\n",
            "trunkline.toml:1: unknown key \"workers\"; allowed sections: node, edge, sip, registrar, media, http, store, trace",
        ),
        (
            "edge = 1\n",
            "trunkline.toml:1: edge must be a section, written [edge]",
        ),
        (
            "[[edge]]\nworkers = 1\n",
            "trunkline.toml:1: edge must be a section, written [edge]",
        ),
        (
            "[node]\nrun_dir = \"run\"\n",
            "trunkline.toml:2: [node] run_dir = \"run\": expected an absolute path",
        ),
        (
            "[node]\nlog = \"chatty\"\n",
            "trunkline.toml:2: [node] log = \"chatty\": expected a level (error, warn, info, debug, \
             trace, off) or a list such as \"info,trunkline_sip=debug\"",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(problems(text), expected, "for {text:?}");
    }
}

#[test]
fn media_addresses_that_cannot_receive_media_are_refused_with_the_reason() {
    let table = [
        ("[]", "expected a list of 1 to 16"),
        ("\"192.0.2.1\"", "expected a list of 1 to 16"),
        ("[1]", "1: expected an IP address or a table"),
        (
            "[\"0.0.0.0\"]",
            "\"0.0.0.0\": address 0.0.0.0 cannot be used",
        ),
        ("[\"::\"]", "address :: cannot be used"),
        ("[\"224.0.0.1\"]", "address 224.0.0.1 cannot be used"),
        ("[\"255.255.255.255\"]", "cannot be used"),
        ("[\"::ffff:192.0.2.1\"]", "cannot be used"),
        ("[\"example.org\"]", "address must be an IP address"),
        (
            "[{ advertise = \"192.0.2.1\" }]",
            "the key address is missing",
        ),
        ("[{ address = 5 }]", "address must be a string"),
        (
            "[{ address = \"10.0.0.5\", advertize = \"192.0.2.1\" }]",
            "unknown key \"advertize\"; allowed: address, advertise, name",
        ),
        (
            "[{ address = \"10.0.0.5\", advertise = \"2001:db8::5\" }]",
            "advertise 2001:db8::5 is not of the family of address 10.0.0.5",
        ),
        (
            "[{ address = \"10.0.0.5\", advertise = \"0.0.0.0\" }]",
            "advertise 0.0.0.0 cannot be used",
        ),
        (
            "[{ address = \"10.0.0.5\", advertise = \"127.0.0.1\" }]",
            "cannot be reached by any peer",
        ),
        (
            "[{ address = \"10.0.0.5\", name = \"out side\" }]",
            "name must be 1 to 63 letters",
        ),
        (
            "[\"10.0.0.5\", \"10.0.0.5\"]",
            "the name \"10.0.0.5\" is taken by an earlier entry",
        ),
        (
            "[{ address = \"10.0.0.5\", name = \"a\" }, { address = \"10.0.0.6\", name = \"a\" }]",
            "the name \"a\" is taken by an earlier entry",
        ),
        (
            "[\"203.0.113.5\", { address = \"10.0.0.5\", advertise = \"203.0.113.5\" }]",
            "peers could not tell it from the entry \"203.0.113.5\"",
        ),
    ];
    for (list, expected) in table {
        let text = format!("[edge]\nmedia_addresses = {list}\n");
        let shown = problems(&text);
        assert!(
            shown.starts_with("trunkline.toml:2: [edge] media_addresses"),
            "{shown}"
        );
        assert!(shown.contains(expected), "{list}: {shown}");
    }
    let seventeen: Vec<_> = (1..=17).map(|i| format!("\"10.0.0.{i}\"")).collect();
    let text = format!("[edge]\nmedia_addresses = [{}]\n", seventeen.join(","));
    assert!(problems(&text).contains("expected a list of 1 to 16"));
}

#[test]
fn each_media_address_is_refused_on_its_own_line() {
    let text = "[edge]\nmedia_addresses = [\n  \"192.0.2.1\",\n  \"::\",\n  \"192.0.2.1\",\n]\n";
    let shown = problems(text);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(lines[0].starts_with("trunkline.toml:4: [edge] media_addresses: \"::\": "));
    assert!(lines[1].starts_with("trunkline.toml:5: "), "{shown}");
}

#[test]
fn media_addresses_may_have_names_and_stand_behind_nat() {
    let text = "[edge]\nmedia_addresses = [\n\
                { name = \"outside\", address = \"10.0.0.5\", advertise = \"203.0.113.5\" },\n\
                { name = \"inside\", address = \"10.0.0.5\" },\n\"2001:db8::1\"]\n";
    let edge = parse_document::<EdgeDocument>(text, "trunkline.toml")
        .expect("valid")
        .edge;
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let rows: Vec<_> = edge
        .media_addresses
        .iter()
        .map(|entry| (entry.name.as_str(), entry.address, entry.advertise))
        .collect();
    assert_eq!(
        rows,
        [
            ("outside", ip("10.0.0.5"), ip("203.0.113.5")),
            ("inside", ip("10.0.0.5"), ip("10.0.0.5")),
            ("2001:db8::1", ip("2001:db8::1"), ip("2001:db8::1")),
        ]
    );
    assert_eq!(edge.bound_addresses(), [ip("10.0.0.5"), ip("2001:db8::1")]);
    let translated: Vec<_> = edge
        .media_addresses
        .iter()
        .map(MediaAddress::is_translated)
        .collect();
    assert_eq!(translated, [true, false, false]);
}

#[test]
fn all_problems_of_a_file_are_shown_in_the_order_of_its_lines() {
    let shown = problems("[node]\nname = \"\"\ncolor = 1\n[edge]\nports = 5\nsessions_max = -1\n");
    let lines: Vec<_> = shown
        .lines()
        .map(|line| line.split(": ").next().unwrap_or(""))
        .collect();
    assert_eq!(
        lines,
        [
            "trunkline.toml:2",
            "trunkline.toml:3",
            "trunkline.toml:5",
            "trunkline.toml:6"
        ]
    );
}

#[test]
fn syntax_errors_name_their_line() {
    let shown = problems("[edge]\nports = \n");
    assert!(shown.starts_with("trunkline.toml:2: "), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(problems("[edge]\nworkers = 1\nworkers = 2\n").contains("trunkline.toml:3"));
}

#[test]
fn long_values_are_shortened_to_one_line() {
    let text = format!("[edge]\nports = \"\"\"{}\"\"\"\n", "1\n".repeat(10_000));
    let shown = problems(&text);
    assert_eq!(shown.lines().count(), 1);
    assert!(shown.len() < 300, "{shown}");
}

#[test]
fn empty_file_gives_the_documented_defaults() {
    let document: EdgeDocument = parse_document("", "trunkline.toml").expect("defaults");
    assert_eq!(document.edge.workers, 0);
    assert_eq!(
        document.edge.ports,
        PortRange::new(30_000, 39_999).expect("valid")
    );
    assert_eq!(document.edge.sessions_max, 5_000);
    assert_eq!(document.edge.orphan_timeout_secs, 60);
    assert_eq!(document.edge.media_addresses.len(), 2);
    assert_eq!(
        document.node.edge_socket(),
        Path::new("/run/trunkline/edge.sock")
    );
    assert_eq!(document.node.log_format, LogFormat::Text);
}

#[test]
fn edge_skips_the_sections_of_control_unread() {
    let text = "[sip]\nanything = \"goes\"\n[edge]\nworkers = 3\n[store]\n[http]\n";
    let document: EdgeDocument = parse_document(text, "trunkline.toml").expect("valid");
    assert_eq!(document.edge.workers, 3);
}

#[test]
fn reference_with_its_comment_marks_removed_is_a_file_of_defaults() {
    let live: String = reference(EdgeDocument::SECTIONS)
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .filter(|line| !line.starts_with("workers"))
        .map(|line| format!("{line}\n"))
        .collect();
    let document: EdgeDocument = parse_document(&live, "reference").expect("valid");
    assert_eq!(document, EdgeDocument::default());
}

#[test]
fn unreadable_files_are_named() {
    let missing = load_document::<EdgeDocument>(Path::new("/nonexistent/trunkline.toml"));
    let shown = missing.expect_err("there is no such file").to_string();
    assert!(
        shown.starts_with("/nonexistent/trunkline.toml: cannot be read: "),
        "{shown}"
    );
    let endless = read_text(Path::new("/dev/zero"), 4096)
        .expect_err("too large")
        .to_string();
    assert_eq!(
        endless,
        "/dev/zero: is larger than 4096 bytes; is this the right file?"
    );
}

#[test]
fn deeply_nested_input_is_a_problem_and_not_a_crash() {
    let text = format!(
        "[edge]\nports = {}{}\n",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    assert!(parse_document::<EdgeDocument>(&text, "trunkline.toml").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[?[a-z]{1,5}\\]\\]?\n|[a-z_]{1,8} = |[\"0-9\\[\\]{},.'-]{0,8}|\n|\\PC{0,4}){0,40}") {
        let _ = parse_document::<EdgeDocument>(&text, "trunkline.toml");
        let _ = parse_document::<EdgeDocument>(&format!("[edge]\n{text}"), "trunkline.toml");
    }
}
