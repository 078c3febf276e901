//! Phones calling each other directly: what the tests of Trunkline stand on.

use std::net::UdpSocket;

use super::*;
use crate::conversation::{Party, talk};
use crate::rtp::MediaHub;
use crate::sdp::Direction;

const LIMIT: Duration = Duration::from_secs(5);

fn pair() -> (Phone, Phone) {
    let callee = Phone::start(PhoneConfig::udp("callee", "127.0.0.1:9".parse().unwrap())).unwrap();
    let caller = Phone::start(PhoneConfig::udp("caller", callee.local_addr())).unwrap();
    (caller, callee)
}

fn media(port: u16) -> AudioDescription {
    AudioDescription::pcmu(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn two_phones_talk_and_the_caller_hangs_up() {
    let (caller, callee) = pair();
    let hub = MediaHub::start().unwrap();
    let ip = "127.0.0.1".parse().unwrap();
    let (caller_rtp, callee_rtp) = (hub.endpoint(ip).unwrap(), hub.endpoint(ip).unwrap());

    let out = caller
        .call("callee", AudioDescription::pcmu(caller_rtp.local_addr()))
        .unwrap();
    let call = callee.wait_call(LIMIT).unwrap();
    call.ring().unwrap();
    out.wait_provisional(180, LIMIT).unwrap();
    call.answer(&AudioDescription::pcmu(callee_rtp.local_addr()))
        .unwrap();
    out.wait_answered(LIMIT).unwrap();
    call.wait_established(LIMIT).unwrap();

    let one = Party {
        call: &out,
        rtp: &caller_rtp,
    };
    let other = Party {
        call: &call,
        rtp: &callee_rtp,
    };
    let heard = talk(&one, &other, 25).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");

    out.hang_up(LIMIT).unwrap();
    assert_eq!(call.wait_ended(LIMIT).unwrap(), EndCause::RemoteBye);
    assert_eq!(out.phase(), Phase::Ended(EndCause::LocalBye));
}

#[test]
fn callee_hangs_up_and_caller_hears_of_it() {
    let (caller, callee) = pair();
    let out = caller.call("callee", media(4000)).unwrap();
    let call = callee.wait_call(LIMIT).unwrap();
    call.answer(&media(4002)).unwrap();
    out.wait_answered(LIMIT).unwrap();
    call.wait_established(LIMIT).unwrap();
    call.hang_up(LIMIT).unwrap();
    assert_eq!(out.wait_ended(LIMIT).unwrap(), EndCause::RemoteBye);
}

#[test]
fn refusal_reaches_the_caller_with_its_status() {
    let (caller, callee) = pair();
    let out = caller.call("callee", media(4000)).unwrap();
    callee.wait_call(LIMIT).unwrap().reject(486).unwrap();
    assert_eq!(out.wait_ended(LIMIT).unwrap(), EndCause::Rejected(486));
}

#[test]
fn cancel_before_the_answer_ends_both_sides() {
    let (caller, callee) = pair();
    let out = caller.call("callee", media(4000)).unwrap();
    let call = callee.wait_call(LIMIT).unwrap();
    call.ring().unwrap();
    out.wait_provisional(180, LIMIT).unwrap();
    out.cancel();
    assert_eq!(call.wait_ended(LIMIT).unwrap(), EndCause::RemoteCancel);
    assert_eq!(out.wait_ended(LIMIT).unwrap(), EndCause::Rejected(487));
}

#[test]
fn early_media_is_known_before_the_answer() {
    let (caller, callee) = pair();
    let out = caller.call("callee", media(4000)).unwrap();
    let call = callee.wait_call(LIMIT).unwrap();
    call.progress(&media(4002)).unwrap();
    out.wait_provisional(183, LIMIT).unwrap();
    assert_eq!(out.remote_media().unwrap().rtp.port(), 4002);
    assert_eq!(out.phase(), Phase::Setup);
}

#[test]
fn reinvite_to_hold_is_answered_and_the_call_goes_on() {
    let (caller, callee) = pair();
    let out = caller.call("callee", media(4000)).unwrap();
    let call = callee.wait_call(LIMIT).unwrap();
    call.answer(&media(4002)).unwrap();
    out.wait_answered(LIMIT).unwrap();
    call.wait_established(LIMIT).unwrap();

    let mut hold = media(4000);
    hold.direction = Direction::SendOnly;
    let answer = out.reinvite(hold, LIMIT).unwrap();
    assert_eq!(answer.direction, Direction::RecvOnly);
    assert_eq!(call.reoffers()[0].direction, Direction::SendOnly);
    out.hang_up(LIMIT).unwrap();
}

#[test]
fn invite_lost_on_the_way_is_sent_again() {
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    deaf.set_read_timeout(Some(LIMIT)).unwrap();
    let caller = Phone::start(PhoneConfig::udp("caller", deaf.local_addr().unwrap())).unwrap();
    let _out = caller.call("callee", media(4000)).unwrap();
    let mut first = [0u8; 2048];
    let first_len = deaf.recv(&mut first).unwrap();
    let mut second = [0u8; 2048];
    let second_len = deaf.recv(&mut second).unwrap();
    assert_eq!(first[..first_len], second[..second_len]);
}

#[test]
fn register_answers_the_challenge_it_was_told_to_and_no_weaker_one() {
    for (choice, algorithm) in [
        (DigestChoice::Strongest, "SHA-256"),
        (DigestChoice::Only(DigestAlgorithm::Md5), "MD5"),
    ] {
        let registrar = UdpSocket::bind("127.0.0.1:0").unwrap();
        registrar.set_read_timeout(Some(LIMIT)).unwrap();
        let server = registrar.local_addr().unwrap();
        let mut config = PhoneConfig::udp("anna", server).with_password("secret");
        config.digest = choice;
        let phone = Phone::start(config).unwrap();

        let serve = std::thread::spawn(move || {
            let mut last = String::new();
            for _ in 0..2 {
                let mut buffer = [0u8; 4096];
                let (len, from) = registrar.recv_from(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let kept: String = text
                    .lines()
                    .filter(|line| {
                        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                            .iter()
                            .any(|name| line.starts_with(name))
                    })
                    .map(|line| format!("{line}\r\n"))
                    .collect();
                let answer = if text.contains("Authorization:") {
                    format!("SIP/2.0 200 OK\r\n{kept}Content-Length: 0\r\n\r\n")
                } else {
                    format!(
                        "SIP/2.0 401 Unauthorized\r\n{kept}\
                         WWW-Authenticate: Digest realm=\"t\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n\
                         WWW-Authenticate: Digest realm=\"t\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"\r\n\
                         Content-Length: 0\r\n\r\n"
                    )
                };
                registrar.send_to(answer.as_bytes(), from).unwrap();
                last = text;
            }
            last
        });
        assert_eq!(phone.register(60, LIMIT).unwrap(), 200);
        let second = serve.join().unwrap();
        assert!(
            second.contains(&format!("algorithm={algorithm}")),
            "{second}"
        );
        assert!(second.contains("CSeq: 2 REGISTER"), "{second}");
    }
}
