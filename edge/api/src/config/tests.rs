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
             ports, sessions_max, orphan_timeout_secs, io, dscp",
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
            "trunkline.toml:1: unknown section \"edgy\"; allowed sections: node, edge, sip, media, http, store",
        ),
        (
            "workers = 1\n",
            "trunkline.toml:1: unknown key \"workers\"; allowed sections: node, edge, sip, media, http, store",
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
fn media_addresses_that_cannot_receive_media_are_refused() {
    for list in [
        "[]",
        "[\"0.0.0.0\"]",
        "[\"::\"]",
        "[\"224.0.0.1\"]",
        "[\"::ffff:192.0.2.1\"]",
        "[\"192.0.2.1\", \"192.0.2.2\"]",
        "[\"example.org\"]",
        "\"192.0.2.1\"",
        "[1]",
    ] {
        let text = format!("[edge]\nmedia_addresses = {list}\n");
        assert!(
            problems(&text).contains("at most one IPv4 and one IPv6"),
            "{list}"
        );
    }
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
