//! Copies of a leg's audio for a second listener.

use trunkline_testkit::site::Member;

use crate::support::{control, daemons, line, refusal, wait_until};

#[test]
fn copy_of_what_the_caller_says_arrives_elsewhere_and_the_call_is_as_it_was() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let listener = line.hub.endpoint("127.0.0.1".parse().unwrap()).unwrap();
    let to = listener.local_addr();
    control(&daemons, &format!("call {id} fork {to} --leg a"));
    let talked = call.talk(50).unwrap();
    assert!(talked.is_perfect(), "{talked:?}");
    wait_until("the copy", || listener.received_count() == 50);
    let (said, copied) = (call.caller_rtp.sent(), listener.received());
    for (said, copied) in said.iter().zip(&copied) {
        assert_eq!(said.payload, copied.payload);
    }
    let ssrc = copied[0].header.ssrc;
    assert!(copied.iter().all(|packet| packet.header.ssrc == ssrc));
    assert_ne!(ssrc, said[0].header.ssrc, "a stream of its own");
    let at_phone = call.callee_rtp.received();
    assert!(at_phone.iter().all(|packet| packet.header.ssrc != ssrc));

    control(&daemons, &format!("call {id} fork none --leg a"));
    listener.clear();
    let talked = call.talk(25).unwrap();
    assert!(talked.is_perfect(), "{talked:?}");
    assert_eq!(listener.received_count(), 0);

    // Nobody has media sent back to our own sockets.
    let own = call.outgoing.remote_media().unwrap().rtp;
    let error = refusal(&daemons, &format!("call {id} fork {own}"));
    assert!(error.contains("no address"), "{error}");
    call.hang_up().unwrap();
}
