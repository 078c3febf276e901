use std::io;

use trunkline_edge_api::config::parse_document;

use super::*;

fn ports() -> PortRange {
    PortRange::new(30_000, 39_999).expect("a range")
}

fn fix(finding: &Finding) -> &str {
    finding.fix.as_deref().unwrap_or_default()
}

#[test]
fn every_refusal_of_io_uring_names_a_fix() {
    let rows = [
        (
            UringError::Disabled { value: 2 },
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (
            UringError::Forbidden(io::Error::from_raw_os_error(libc::EPERM)),
            "SystemCallFilter",
        ),
        (
            UringError::KernelTooOld {
                missing: "io_uring",
            },
            "Linux 6.1",
        ),
        (
            UringError::NoMemory(io::Error::from_raw_os_error(libc::ENOMEM)),
            "LimitMEMLOCK",
        ),
    ];
    for (refused, expected) in rows {
        let probed = Ok((IoTier::Epoll, Some(refused)));
        let finding = judge_tier(IoChoice::Auto, &probed, Some("6.6"));
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.text.starts_with("epoll, because on Linux 6.6"));
        assert!(fix(&finding).contains(expected), "{finding:?}");
    }
}

#[test]
fn io_uring_that_was_demanded_and_refused_is_broken() {
    let probed = Err(TierError::Uring(UringError::Disabled { value: 1 }));
    let finding = judge_tier(IoChoice::IoUring, &probed, None);
    assert_eq!(finding.state, State::Broken);
    assert!(fix(&finding).contains("io_uring_disabled=0"));
}

#[test]
fn edge_that_still_runs_on_epoll_should_be_restarted() {
    let epoll = [Some(IoTier::Epoll); 2];
    let finding = judge_running(Some(IoTier::IoUring), Some(&epoll));
    assert_eq!(finding.state, State::Degraded);
    assert!(fix(&finding).contains("restart"));
    let finding = judge_running(Some(IoTier::Epoll), Some(&epoll));
    assert_eq!(finding.state, State::Fine);
    assert_eq!(finding.text, "2 workers on epoll");
}

#[test]
fn scarce_descriptors_say_how_many_sessions_are_left() {
    let document: EdgeDocument =
        parse_document("[edge]\nworkers = 1\nsessions_max = 5000", "test").expect("sound");
    let settings = Settings::resolve(&document).expect("fits");
    let wanted = settings.files_wanted();
    assert_eq!(judge_files(wanted, &settings).state, State::Fine);
    let finding = judge_files(4_072, &settings);
    assert_eq!(finding.state, State::Degraded);
    assert!(finding.text.contains("1000 of 5000"), "{finding:?}");
    assert!(fix(&finding).contains(&format!("LimitNOFILE={wanted}")));
}

#[test]
fn small_receive_buffer_is_named_with_what_it_should_be() {
    assert_eq!(judge_receive_buffer(Some(212_992)).state, State::Fine);
    let finding = judge_receive_buffer(Some(4_096));
    assert_eq!(finding.state, State::Degraded);
    assert_eq!(fix(&finding), "sysctl -w net.core.rmem_max=16384");
}

#[test]
fn address_of_another_machine_is_broken() {
    let foreign = judge_address(IpAddr::from([192, 0, 2, 1]));
    assert_eq!(foreign.state, State::Broken);
    assert!(fix(&foreign).contains("ip address add 192.0.2.1"));
    assert_eq!(
        judge_address(IpAddr::from([127, 0, 0, 1])).state,
        State::Fine
    );
}

#[test]
fn port_that_another_program_holds_is_found() {
    let holder = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let port = holder.local_addr().expect("bound").port();
    let range = PortRange::new(port & !1, port | 1).expect("a pair");
    let taken = taken_ports(&[IpAddr::from([127, 0, 0, 1])], range);
    assert!(taken.contains(&port), "{taken:?}");
    assert_eq!(judge_ports(range, &taken, false).state, State::Degraded);
    assert_eq!(judge_ports(range, &taken, true).state, State::Fine);
}

#[test]
fn ports_that_the_kernel_gives_away_are_to_be_reserved_beside_what_is() {
    let finding = judge_port_reserve(ports(), "32768\t60999", "8080,9148-9149");
    assert_eq!(finding.state, State::Degraded);
    assert!(finding.text.contains("7232 of 30000-39999"), "{finding:?}");
    assert_eq!(
        fix(&finding),
        "sysctl -w net.ipv4.ip_local_reserved_ports=8080-8080,9148-9149,30000-39999"
    );
    for (local_range, reserved) in [
        ("32768 60999", "30000-39999"),
        ("40000 60999", ""),
        ("", ""),
    ] {
        let finding = judge_port_reserve(ports(), local_range, reserved);
        assert_eq!(finding.state, State::Fine, "{local_range:?} {reserved:?}");
    }
}
