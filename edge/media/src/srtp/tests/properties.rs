use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn suite() -> impl Strategy<Value = SrtpSuite> {
    proptest::sample::select(SrtpSuite::ALL.to_vec())
}

/// A whole packet: any CSRC list, any extension, any payload.
fn any_rtp() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[u8; 7]>(),
        proptest::collection::vec(any::<u32>(), 0..16),
        proptest::option::of(proptest::collection::vec(any::<u32>(), 0..20)),
        proptest::collection::vec(any::<u8>(), 0..1_300),
    )
        .prop_map(|(fields, csrcs, extension, payload)| {
            let x = if extension.is_some() { 0x10 } else { 0 };
            let mut packet = vec![0x80 | x | csrcs.len() as u8];
            packet.extend_from_slice(&fields);
            packet.extend_from_slice(&SSRC.0.to_be_bytes());
            for csrc in csrcs {
                packet.extend_from_slice(&csrc.to_be_bytes());
            }
            if let Some(words) = extension {
                packet.extend_from_slice(&[0xbe, 0xde, 0, words.len() as u8]);
                for word in words {
                    packet.extend_from_slice(&word.to_be_bytes());
                }
            }
            packet.extend_from_slice(&payload);
            packet
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_sealed_opens_as_it_was(suite in suite(), packet in any_rtp()) {
        let (mut seal, mut open) = pair(suite);
        let header = ClearHeader::parse(&packet).expect("valid");
        let sealed = seal.sealed_rtp(&packet).expect("sealed");
        prop_assert_eq!(&sealed[..header.len], &packet[..header.len]);
        prop_assert_eq!(open.opened_rtp(&sealed), Ok(packet));
        prop_assert_eq!(open.opened_rtp(&sealed), Err(SrtpError::Replayed));
    }

    #[test]
    fn flipped_bit_is_found(suite in suite(), packet in any_rtp(), at in any::<prop::sample::Index>()) {
        let (mut seal, mut open) = pair(suite);
        let mut sealed = seal.sealed_rtp(&packet).expect("sealed");
        let bit = at.index(8 * sealed.len());
        sealed[bit / 8] ^= 1 << (bit % 8);
        let result = open.opened_rtp(&sealed);
        prop_assert!(
            matches!(result, Err(SrtpError::NotAuthentic | SrtpError::Malformed)),
            "bit {}: {:?}", bit, result
        );
        prop_assert!(open.sources.get(SSRC).is_none());
    }

    #[test]
    fn flipped_bit_of_a_report_is_found(suite in suite(), at in any::<prop::sample::Index>()) {
        let (mut seal, mut open) = pair(suite);
        let mut sealed = seal.sealed_rtcp(&rtcp(SSRC)).expect("sealed");
        let bit = at.index(8 * sealed.len());
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open.opened_rtcp(&sealed), Err(SrtpError::NotAuthentic));
        prop_assert!(open.sources.get(SSRC).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(
        suite in suite(),
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..8),
    ) {
        let (mut seal, mut open) = pair(suite);
        for packet in &packets {
            prop_assert!(open.opened_rtp(packet).is_err());
            prop_assert!(open.opened_rtcp(packet).is_err());
            let _ = seal.sealed_rtp(packet);
            let _ = seal.sealed_rtcp(packet);
        }
        let mut seal = pair(suite).0;
        let sealed = seal.sealed_rtp(&rtp(SSRC, 3)).expect("sealed");
        prop_assert!(open.opened_rtp(&sealed).is_ok(), "garbage has taught nothing");
    }

    /// A network that loses, delays and repeats: each packet is heard at most once, and always
    /// when no more than the window has overtaken it.
    #[test]
    fn each_packet_is_heard_once(
        suite in suite(),
        first in any::<u16>(),
        mut delays in proptest::collection::vec((0u16..100, any::<bool>()), 1..300),
    ) {
        let (mut seal, mut open) = pair(suite);
        let mut arrivals = Vec::new();
        // Who hears nothing from before a wrap cannot know of it (RFC 3711 §3.3.1).
        let wraps = usize::from(first) + delays.len() > usize::from(u16::MAX);
        if wraps {
            delays[0].0 = 0;
        }
        for (n, (delay, repeats)) in delays.iter().enumerate() {
            let packet = rtp(SSRC, first.wrapping_add(n as u16));
            let sealed = seal.sealed_rtp(&packet).expect("sealed");
            arrivals.push((n + usize::from(*delay), n, sealed.clone()));
            if *repeats {
                arrivals.push((n + usize::from(*delay) + 20, n, sealed));
            }
        }
        arrivals.sort_by_key(|(at, n, _)| (*at, *n));
        // A packet from before the first that arrived has no index when that one wrapped.
        let first_heard = arrivals.first().map_or(0, |(_, n, _)| *n);
        let mut heard = BTreeSet::new();
        for (_, n, sealed) in arrivals.iter().filter(|(_, n, _)| *n >= first_heard) {
            let result = open.opened_rtp(sealed);
            prop_assert_eq!(result.is_ok(), heard.insert(*n), "packet {}: {:?}", n, result);
        }
    }
}
