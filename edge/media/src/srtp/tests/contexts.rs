use super::*;

#[test]
fn packet_grows_by_the_tag_of_its_suite() {
    let rows = [
        (SrtpSuite::AesCm128HmacSha1_80, 10, 14),
        (SrtpSuite::AesCm128HmacSha1_32, 4, 14),
        (SrtpSuite::AesCm256HmacSha1_80, 10, 14),
        (SrtpSuite::AesCm256HmacSha1_32, 4, 14),
        (SrtpSuite::AeadAes128Gcm, 16, 20),
        (SrtpSuite::AeadAes256Gcm, 16, 20),
    ];
    for (suite, rtp_growth, rtcp_growth) in rows {
        let (mut seal, _) = pair(suite);
        let media = rtp(SSRC, 1);
        let sealed = seal.sealed_rtp(&media).expect("sealed");
        assert_eq!(sealed.len(), media.len() + rtp_growth, "{suite:?}");
        assert_eq!(sealed[..12], media[..12], "{suite:?}: the header is clear");
        assert_ne!(
            sealed[12..172],
            media[12..],
            "{suite:?}: the payload is not"
        );
        let report = rtcp(SSRC);
        let sealed = seal.sealed_rtcp(&report).expect("sealed");
        assert_eq!(sealed.len(), report.len() + rtcp_growth, "{suite:?}");
    }
}

#[test]
fn rollover_counter_follows_three_wraps_with_loss_and_reordering() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        let mut late = None;
        for n in 0..3 * 65_536u32 + 1_000 {
            let around_wrap = (n + 200) % 65_536 < 400;
            let is_sent = n % 97 == 0 || around_wrap;
            if !is_sent {
                // Lost before it was sealed: the sender's index follows from the next one.
                continue;
            }
            let packet = rtp(SSRC, n as u16);
            let sealed = seal.sealed_rtp(&packet).expect("sealed");
            match n % 13 {
                // Lost on the way.
                0 => {}
                // Overtaken by the next.
                1 => late = Some((packet, sealed)),
                _ => {
                    assert_eq!(
                        open.opened_rtp(&sealed),
                        Ok(packet),
                        "{suite:?}, packet {n}"
                    );
                    if let Some((packet, sealed)) = late.take() {
                        assert_eq!(
                            open.opened_rtp(&sealed),
                            Ok(packet),
                            "{suite:?}, late at {n}"
                        );
                    }
                }
            }
        }
        let newest = open
            .sources
            .get(SSRC)
            .and_then(|source| source.rtp.newest());
        assert_eq!(newest.map(|index| index >> 16), Some(3), "{suite:?}");
    }
}

#[test]
fn packet_under_another_key_teaches_nothing() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        let mut stranger = SealContext::new(suite, &key(suite, 0x77), SSRC);
        // Far ahead: were it believed, the rollover counter would be one too high.
        let forged = stranger.sealed_rtp(&rtp(SSRC, 60_000)).expect("sealed");
        assert_eq!(
            open.opened_rtp(&forged),
            Err(SrtpError::NotAuthentic),
            "{suite:?}"
        );
        assert!(open.sources.get(SSRC).is_none(), "{suite:?}");
        for sequence in [65_534, 65_535, 0, 1] {
            let packet = rtp(SSRC, sequence);
            let sealed = seal.sealed_rtp(&packet).expect("sealed");
            assert_eq!(open.opened_rtp(&sealed), Ok(packet), "{suite:?}");
            // A stranger of its own for each, since no context seals a number twice.
            let mut stranger = SealContext::new(suite, &key(suite, 0x77), SSRC);
            let forged = stranger
                .sealed_rtp(&rtp(SSRC, sequence.wrapping_add(0x4000)))
                .expect("sealed");
            assert_eq!(
                open.opened_rtp(&forged),
                Err(SrtpError::NotAuthentic),
                "{suite:?}"
            );
        }
        let forged = stranger.sealed_rtcp(&rtcp(SSRC)).expect("sealed");
        assert_eq!(
            open.opened_rtcp(&forged),
            Err(SrtpError::NotAuthentic),
            "{suite:?}"
        );
    }
}

#[test]
fn plain_packet_is_not_authentic() {
    for suite in SrtpSuite::ALL {
        let (_, mut open) = pair(suite);
        assert_eq!(open.opened_rtp(&rtp(SSRC, 1)), Err(SrtpError::NotAuthentic));
        assert_eq!(open.opened_rtcp(&rtcp(SSRC)), Err(SrtpError::NotAuthentic));
        assert_eq!(
            open.opened_rtp(&rtp(SSRC, 1)[..12]),
            Err(SrtpError::NotAuthentic)
        );
        assert_eq!(
            open.opened_rtcp(&rtcp(SSRC)[..8]),
            Err(SrtpError::NotAuthentic)
        );
        assert_eq!(open.opened_rtp(&[]), Err(SrtpError::Malformed));
        assert_eq!(open.opened_rtcp(&[0x80, 200]), Err(SrtpError::Malformed));
    }
}

#[test]
fn replayed_report_is_refused_and_a_late_one_is_not() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        let sealed: Vec<_> = (0..3)
            .map(|_| seal.sealed_rtcp(&rtcp(SSRC)).expect("sealed"))
            .collect();
        for at in [0, 2, 1] {
            assert_eq!(open.opened_rtcp(&sealed[at]), Ok(rtcp(SSRC)), "{suite:?}");
            assert_eq!(
                open.opened_rtcp(&sealed[at]),
                Err(SrtpError::Replayed),
                "{suite:?}"
            );
        }
    }
}

#[test]
fn two_payloads_never_share_an_index() {
    for suite in SrtpSuite::ALL {
        let (mut seal, _) = pair(suite);
        seal.sealed_rtp(&rtp(SSRC, 500)).expect("sealed");
        let mut other = rtp(SSRC, 500);
        other[20] ^= 1;
        assert_eq!(
            seal.sealed_rtp(&other),
            Err(SrtpError::Replayed),
            "{suite:?}"
        );
        let far_back = rtp(SSRC, 500 - replay::WINDOW_LEN as u16);
        assert_eq!(
            seal.sealed_rtp(&far_back),
            Err(SrtpError::Replayed),
            "{suite:?}"
        );
        assert!(
            seal.sealed_rtp(&rtp(SSRC, 499)).is_ok(),
            "{suite:?}: overtaken, not repeated"
        );
    }
}

#[test]
fn key_that_is_used_up_seals_nothing_more() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        seal.rtp.mark(index::INDEX_MAX - 1);
        open.sources.entry(SSRC).rtp.mark(index::INDEX_MAX - 1);
        let last = seal.sealed_rtp(&rtp(SSRC, 65_535)).expect("the last one");
        assert_eq!(open.opened_rtp(&last), Ok(rtp(SSRC, 65_535)), "{suite:?}");
        assert_eq!(
            seal.sealed_rtp(&rtp(SSRC, 0)),
            Err(SrtpError::Exhausted),
            "{suite:?}"
        );
        assert_eq!(
            open.opened_rtp(&rtp(SSRC, 0)),
            Err(SrtpError::Exhausted),
            "{suite:?}"
        );

        seal.rtcp_next = SrtcpWord::INDEX_MAX;
        let last = seal.sealed_rtcp(&rtcp(SSRC)).expect("the last one");
        assert_eq!(open.opened_rtcp(&last), Ok(rtcp(SSRC)), "{suite:?}");
        assert_eq!(
            seal.sealed_rtcp(&rtcp(SSRC)),
            Err(SrtpError::Exhausted),
            "{suite:?}"
        );
    }
}

#[test]
fn without_room_for_the_tag_nothing_is_sealed_and_no_index_used() {
    for suite in SrtpSuite::ALL {
        let (mut seal, _) = pair(suite);
        let mut media = rtp(SSRC, 9);
        let no_room = seal.seal_rtp(&mut PacketBuf::from(&mut media));
        assert_eq!(no_room, Err(SrtpError::NoRoom), "{suite:?}");
        assert_eq!(media, rtp(SSRC, 9), "{suite:?}: unchanged");
        assert!(seal.sealed_rtp(&media).is_ok(), "{suite:?}");
        let mut report = rtcp(SSRC);
        let no_room = seal.seal_rtcp(&mut PacketBuf::from(&mut report));
        assert_eq!(no_room, Err(SrtpError::NoRoom), "{suite:?}");
        assert_eq!((report, seal.rtcp_next), (rtcp(SSRC), 0), "{suite:?}");
    }
}

#[test]
fn packet_of_another_ssrc_is_not_sealed() {
    for suite in SrtpSuite::ALL {
        let (mut seal, _) = pair(suite);
        let other = Ssrc(SSRC.0 ^ 1);
        assert_eq!(seal.sealed_rtp(&rtp(other, 1)), Err(SrtpError::Malformed));
        assert_eq!(seal.sealed_rtcp(&rtcp(other)), Err(SrtpError::Malformed));
    }
}

#[test]
fn each_source_of_a_peer_has_a_rollover_counter_of_its_own() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let (mut first, mut open) = pair(suite);
    let other = Ssrc(7);
    let mut second = SealContext::new(suite, &key(suite, 0x5a), other);
    for sequence in [65_535, 0] {
        let sealed = first.sealed_rtp(&rtp(SSRC, sequence)).expect("sealed");
        assert!(open.opened_rtp(&sealed).is_ok());
    }
    let sealed = second.sealed_rtp(&rtp(other, 5)).expect("sealed");
    assert!(open.opened_rtp(&sealed).is_ok(), "rollover counter 0");
    let sealed = first.sealed_rtp(&rtp(SSRC, 1)).expect("sealed");
    assert!(open.opened_rtp(&sealed).is_ok(), "rollover counter 1");
}

#[test]
fn report_that_is_authentic_but_not_encrypted_is_taken() {
    for suite in SrtpSuite::ALL {
        let (seal, mut open) = pair(suite);
        let word = SrtcpWord(17);
        let sealed = match &seal.transform {
            Transform::CounterMode(transform) => transform.authenticated_rtcp(&rtcp(SSRC), word),
            Transform::Gcm(transform) => transform.authenticated_rtcp(&rtcp(SSRC), SSRC, word),
        };
        assert_eq!(open.opened_rtcp(&sealed), Ok(rtcp(SSRC)), "{suite:?}");
        let mut forged = sealed;
        forged[13] ^= 1;
        assert_ne!(open.opened_rtcp(&forged), Ok(rtcp(SSRC)), "{suite:?}");
    }
}

#[test]
fn keys_are_not_printed() {
    for suite in SrtpSuite::ALL {
        let (seal, open) = pair(suite);
        let printed = format!("{seal:?} {open:?}");
        assert!(
            !printed.contains("key") && !printed.contains("salt"),
            "{printed}"
        );
    }
}
