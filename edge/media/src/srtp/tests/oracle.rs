//! Packet by packet against webrtc-srtp, which shares no line with this module: what one seals the
//! other opens, to the same bytes.

use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;

fn profile(suite: SrtpSuite) -> ProtectionProfile {
    match suite {
        SrtpSuite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpSuite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        SrtpSuite::AesCm256HmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
        SrtpSuite::AesCm256HmacSha1_32 => ProtectionProfile::Aes256CmHmacSha1_32,
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    }
}

fn oracle(suite: SrtpSuite, key: &SrtpKey) -> Context {
    let (key, salt) = key.key_and_salt().split_at(suite.key_len());
    Context::new(key, salt, profile(suite), None, None).expect("key and salt fit")
}

#[test]
fn both_seal_to_the_same_bytes_and_open_each_other_over_a_wrap() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        let mut theirs = oracle(suite, &key(suite, 0x5a));
        let mut their_opener = oracle(suite, &key(suite, 0x5a));
        for n in 65_400..65_536 + 400u32 {
            let mut packet = rtp(SSRC, n as u16);
            packet.truncate(12 + (n as usize * 7) % 161);
            let ours = seal.sealed_rtp(&packet).expect("sealed");
            let sealed = theirs.encrypt_rtp(&packet).expect("sealed");
            assert_eq!(ours, sealed, "{suite:?}, packet {n}");
            assert_eq!(
                open.opened_rtp(&sealed),
                Ok(packet.clone()),
                "{suite:?}, packet {n}"
            );
            let opened = their_opener.decrypt_rtp(&ours).expect("authentic");
            assert_eq!(opened, packet, "{suite:?}, packet {n}");
        }
    }
}

#[test]
fn reports_of_each_open_with_the_other() {
    for suite in SrtpSuite::ALL {
        let (mut seal, mut open) = pair(suite);
        let mut theirs = oracle(suite, &key(suite, 0x5a));
        for n in 0..50 {
            let report = rtcp(SSRC);
            let ours = seal.sealed_rtcp(&report).expect("sealed");
            let opened = theirs.decrypt_rtcp(&ours).expect("authentic");
            assert_eq!(opened, report, "{suite:?}, report {n}");
            let sealed = theirs.encrypt_rtcp(&report).expect("sealed");
            assert_eq!(
                open.opened_rtcp(&sealed),
                Ok(report),
                "{suite:?}, report {n}"
            );
        }
    }
}

#[test]
fn header_extension_and_csrcs_stay_clear_for_both() {
    let mut packet = vec![0x92, 0x88, 0, 9, 0, 0, 0, 1];
    packet.extend_from_slice(&SSRC.0.to_be_bytes());
    packet.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x55, 0, 0]);
    let header_len = packet.len();
    packet.extend_from_slice(b"forty milliseconds of something");
    for suite in SrtpSuite::ALL {
        let (mut seal, _) = pair(suite);
        let ours = seal.sealed_rtp(&packet).expect("sealed");
        assert_eq!(ours[..header_len], packet[..header_len], "{suite:?}");
        let mut theirs = oracle(suite, &key(suite, 0x5a));
        let opened = theirs.decrypt_rtp(&ours).expect("authentic");
        assert_eq!(opened, packet, "{suite:?}");
    }
}
