//! RTP and RTCP, each by itself.

use trunkline_edge_api::{ClockRateHz, MonoTime, PayloadType, Ssrc};
use trunkline_media::rewrite::{OutgoingStream, Position};
use trunkline_media::rtcp::{Translation, translate, validate};
use trunkline_media::rtp::{RtpEdit, RtpHeader};

/// Reads an RTP header; what was read fits the packet, and an edit changes the four fields that it
/// names and no other byte.
pub fn rtp(input: &[u8]) {
    let Ok(header) = RtpHeader::parse(input) else {
        return;
    };
    assert!(header.header_len + header.payload_len <= input.len());
    let edit = RtpEdit {
        payload_type: PayloadType::PCMA,
        sequence: 0x1234,
        timestamp: 0x5678_9abc,
        ssrc: Ssrc(0xdef0_1234),
    };
    let mut packet = input.to_vec();
    edit.apply(&mut packet);
    let edited = RtpHeader::parse(&packet).expect("an edit breaks no header");
    assert_eq!(packet[12..], input[12..]);
    assert_eq!(packet[0], input[0]);
    let expected = RtpHeader {
        payload_type: edit.payload_type,
        sequence: edit.sequence,
        timestamp: edit.timestamp,
        ssrc: edit.ssrc,
        ..header
    };
    assert_eq!(edited, expected);
}

/// Translates an RTCP compound between two streams; the result is sound, no longer, and says
/// nothing under an SSRC of the other side.
pub fn rtcp(input: &[u8]) {
    /// SSRCs that the far side must not see.
    const SOURCES: [Ssrc; 2] = [Ssrc(7), Ssrc(9)];
    let own = [Ssrc(0xaaaa_aaaa), Ssrc(0xbbbb_bbbb)];
    let mut streams = own.map(OutgoingStream::new);
    for (stream, source) in streams.iter_mut().zip(SOURCES) {
        for sequence in 0..3 {
            let incoming = Position {
                sequence,
                timestamp: 160 * u32::from(sequence),
            };
            let clock_rate = ClockRateHz::NARROWBAND;
            let _ = stream.place(MonoTime(0), source, incoming, clock_rate, 160);
        }
    }
    let [onward, reported] = &streams;
    let mut packet = input.to_vec();
    let translated = translate(&mut packet, Translation { onward, reported });
    assert_eq!(translated.is_ok(), validate(input).is_ok());
    match translated {
        Err(_) => assert_eq!(packet, input, "what is malformed stays as it is"),
        Ok(0) => {}
        Ok(len) => {
            assert!(len <= input.len());
            validate(&packet[..len]).expect("a translation is RTCP");
            assert_ne!(packet[4..8], SOURCES[0].0.to_be_bytes());
        }
    }
}
