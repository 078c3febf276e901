//! Sides that share no codec.

use trunkline_testkit::rtp::{ReceivedPacket, SentPacket};
use trunkline_testkit::sdp::Codec;
use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;
use trunkline_tests::sipp_case::wait_idle;

use crate::audio::{FRAME, alaw, amplitude, purity_db, samples, tone_frames, ulaw};
use crate::codecs::{G722, OPUS};
use crate::support::{daemons, line_with, remote, send, speak, the_call};

#[test]
fn caller_with_ulaw_and_phone_with_alaw_hear_each_other() {
    let daemons = daemons(Member::numbered(0), "");
    let alaw = vec![Codec::new(8, "PCMA/8000"), Codec::telephone_event(101)];
    let line = line_with(&daemons, vec![Codec::pcmu()], alaw);
    let seen = the_call(&daemons);
    assert_eq!(
        (&seen["codec"], &seen["callee_codec"]),
        (&"PCMU".into(), &"PCMA".into())
    );
    let call = &line.call;
    speak(&call.outgoing, &call.caller_rtp, 0, 50);
    let (sent, heard) = (call.caller_rtp.sent(), call.callee_rtp.received());
    assert_is_alaw_of(&sent, &heard);
    // The way back, from a phone that speaks A-law: loud enough to be speech.
    speak(&call.incoming, &call.callee_rtp, 8, 50);
    let heard = call.caller_rtp.received();
    assert_eq!(heard.len(), 50);
    assert!(heard.iter().all(|packet| packet.header.payload_type == 0));
    call.hang_up().unwrap();
    let cdrs = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(cdrs[0]["caller_codec"], "PCMU");
    assert_eq!(cdrs[0]["callee_codec"], "PCMA");
    wait_idle(&daemons, LIMIT).unwrap();
}

fn assert_is_alaw_of(sent: &[SentPacket], heard: &[ReceivedPacket]) {
    assert_eq!(sent.len(), heard.len());
    let (mut signal, mut noise) = (0.0, 0.0);
    for (sent, heard) in sent.iter().zip(heard) {
        assert_eq!(heard.header.payload_type, 8);
        assert_eq!(heard.payload.len(), FRAME);
        for (&sent, &heard) in sent.payload.iter().zip(&heard.payload) {
            let (sent, heard) = (f64::from(ulaw(sent)), f64::from(alaw(heard)));
            signal += sent * sent;
            noise += (sent - heard) * (sent - heard);
        }
    }
    let ratio_db = 10.0 * (signal / f64::max(noise, 1.0)).log10();
    assert!(ratio_db > 30.0, "{ratio_db} dB");
}

#[test]
fn phones_with_g722_or_opus_alone_get_what_a_ulaw_caller_says() {
    for (codec, fits) in [(G722, FRAME..=FRAME), (OPUS, 3..=400)] {
        let daemons = daemons(Member::numbered(0), "");
        let rtpmap = codec.rtpmap;
        let theirs = vec![Codec::new(codec.payload_type, rtpmap)];
        let line = line_with(&daemons, vec![Codec::pcmu()], theirs);
        let call = &line.call;
        speak(&call.outgoing, &call.caller_rtp, 0, 50);
        let heard = call.callee_rtp.received();
        assert!(
            (48..=51).contains(&heard.len()),
            "{rtpmap}: {} packets",
            heard.len()
        );
        for pair in heard.windows(2) {
            let [one, next] = pair else { continue };
            assert_eq!(one.header.payload_type, codec.payload_type, "{rtpmap}");
            assert!(
                fits.contains(&one.payload.len()),
                "{rtpmap}: {}",
                one.payload.len()
            );
            assert_eq!(one.header.ssrc, next.header.ssrc);
            let step = next.header.timestamp.wrapping_sub(one.header.timestamp);
            assert_eq!(step, codec.timestamp_step, "{rtpmap}");
        }
        call.hang_up().unwrap();
        wait_idle(&daemons, LIMIT).unwrap();
    }
}

/// A tone of 1 kHz and amplitude 8000 goes each way; it arrives as loud, to 1.5 dB, and as pure as
/// the poorer of the two codecs leaves it.
#[test]
fn callers_with_g722_or_opus_alone_and_a_ulaw_phone_hear_each_other() {
    for (codec, purity_db_min) in [(G722, 25.0), (OPUS, 15.0)] {
        let daemons = daemons(Member::numbered(0), "");
        let rtpmap = codec.rtpmap;
        let theirs = vec![Codec::new(codec.payload_type, rtpmap)];
        let line = line_with(&daemons, theirs, vec![Codec::pcmu()]);
        let seen = the_call(&daemons);
        assert_eq!(seen["callee_codec"], "PCMU", "{seen}");
        let call = &line.call;

        let payloads = codec.tone(1_000.0, 8_000.0, 75);
        let paced = (&payloads[..], codec.timestamp_step);
        let to = remote(&call.outgoing);
        call.caller_rtp
            .send_payloads(to, codec.payload_type, paced, payloads.len());
        send(
            &call.incoming,
            &call.callee_rtp,
            &tone_frames(&[1_000.0], 8_000.0, 75),
        );
        let at_phone = samples(&call.callee_rtp.received());
        let at_caller = codec.decode(&call.caller_rtp.received());
        for (who, rate, heard) in [("phone", 8_000, at_phone), ("caller", 16_000, at_caller)] {
            let second = rate as usize;
            assert!(
                heard.len() > second,
                "{rtpmap}: {who} heard {}",
                heard.len()
            );
            // Codecs take a moment to settle.
            let heard = &heard[second / 4..][..second / 2];
            let level_db = 20.0 * (amplitude(rate, heard, 1_000.0) / 8_000.0).log10();
            assert!(level_db.abs() < 1.5, "{rtpmap}: {who} at {level_db} dB");
            let purity = purity_db(rate, heard, 1_000.0);
            assert!(purity > purity_db_min, "{rtpmap}: {who} {purity} dB pure");
        }
        call.hang_up().unwrap();
        wait_idle(&daemons, LIMIT).unwrap();
    }
}
