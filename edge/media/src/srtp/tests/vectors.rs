//! The vectors of RFC 3711 appendix B, RFC 6188 §7 and RFC 7714 §16 and §17, and the reference
//! packet that libsrtp's own test has carried since its first release.

use super::counter_mode::Aes;
use super::key_derivation::Label;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn key_stream(key: &str, counter: &str) -> Vec<u8> {
    let counter: [u8; 16] = hex(counter).try_into().expect("16 bytes");
    let mut stream = vec![0; 48];
    Aes::new(&hex(key)).apply_key_stream(&counter, &mut stream);
    stream
}

#[test]
fn key_stream_is_that_of_rfc_3711_b_2() {
    let key = "2B7E151628AED2A6ABF7158809CF4F3C";
    assert_eq!(
        key_stream(key, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"),
        hex(
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
             41E95B3BB0A2E8DD477901E4FCA894C0"
        )
    );
    assert_eq!(
        key_stream(key, "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF"),
        hex(
            "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
             6A2CC3787889374FBEB4C81B17BA6C44"
        )
    );
}

#[test]
fn key_stream_is_that_of_rfc_6188_7_1() {
    let key = "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98";
    assert_eq!(
        key_stream(key, "f0f1f2f3f4f5f6f7f8f9fafbfcfd0000"),
        hex(
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac
             63c4868b7096d88421b563b8c94c9a31"
        )
    );
    assert_eq!(
        key_stream(key, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
        hex(
            "cea518c90fd91ced9cbb18c078a54711 3dbc4814f4da5f00a08772b63c6a046d
             6eb246913062a16891433e97dd01a57f"
        )
    );
}

fn derivation(suite: SrtpSuite, key: &str, salt: &str) -> KeyDerivation {
    let master = [hex(key), hex(salt)].concat();
    let master = SrtpKey::new(suite, &master).expect("the suite's length");
    KeyDerivation::new(suite, &master)
}

#[test]
fn derived_keys_are_those_of_rfc_3711_b_3() {
    let keys = derivation(
        SrtpSuite::AesCm128HmacSha1_80,
        "E1F97A0D3E018BE0D64FA32C06DE4139",
        "0EC675AD498AFEEBB6960B3AABE6",
    );
    let cipher: [u8; 16] = *keys.derive(Label::RtpCipher);
    let salt: [u8; 14] = *keys.derive(Label::RtpSalt);
    let authentication: [u8; 20] = *keys.derive(Label::RtpAuthentication);
    assert_eq!(cipher[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(
        authentication[..],
        hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
    );
}

#[test]
fn derived_keys_are_those_of_rfc_6188_7_2() {
    let keys = derivation(
        SrtpSuite::AesCm256HmacSha1_80,
        "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
        "3b04803de51ee7c96423ab5b78d2",
    );
    let cipher: [u8; 32] = *keys.derive(Label::RtpCipher);
    let salt: [u8; 14] = *keys.derive(Label::RtpSalt);
    let authentication: [u8; 20] = *keys.derive(Label::RtpAuthentication);
    assert_eq!(
        cipher[..],
        hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
    );
    assert_eq!(salt[..], hex("fa31791685ca444a9e07c6c64e93"));
    assert_eq!(
        authentication[..],
        hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
    );
}

#[test]
fn sealed_packet_is_that_of_libsrtp() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let master = hex("e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
    let master = SrtpKey::new(suite, &master).expect("30 bytes");
    let packet = hex("800f1234decafbadcafebabe abababababababababababababababab");
    let sealed = hex("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402
                      b78d6acc99ea179b8dbb");
    let mut seal = SealContext::new(suite, &master, Ssrc(0xcafe_babe));
    assert_eq!(seal.sealed_rtp(&packet), Ok(sealed.clone()));
    let mut open = OpenContext::new(suite, &master);
    assert_eq!(open.opened_rtp(&sealed), Ok(packet));
}

const GCM_128_KEY: &str = "000102030405060708090a0b0c0d0e0f";
const GCM_256_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const GCM_SALT: &str = "517569642070726f2071756f";

/// These vectors give session keys, not master keys.
fn gcm(key: &str) -> Gcm {
    let salt = hex(GCM_SALT).try_into().expect("12 bytes");
    Gcm::with_session_keys(&hex(key), salt)
}

#[test]
fn sealed_rtp_is_that_of_rfc_7714_16() {
    let packet = hex("8040f17b 8041f8d3 5501a0b2
        47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573");
    let rows = [
        (
            GCM_128_KEY,
            "8040f17b 8041f8d3 5501a0b2
             f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833
             899d7f27 beb16a91 52cf765e e4390cce",
        ),
        (
            GCM_256_KEY,
            "8040f17b 8041f8d3 5501a0b2
             32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b
             7aa3db36 dfffd6b0 f9bb7878 d7a76c13",
        ),
    ];
    let part = ClearHeader::parse(&packet).expect("valid").part(0xf17b);
    for (key, sealed) in rows {
        let gcm = gcm(key);
        assert_eq!(
            through(&packet, &mut |buf| gcm.seal_rtp(buf, part)),
            Ok(hex(sealed))
        );
        assert_eq!(
            through(&hex(sealed), &mut |buf| gcm.open_rtp(buf, part)),
            Ok(packet.clone())
        );
    }
}

#[test]
fn sealed_rtcp_is_that_of_rfc_7714_17() {
    let packet = hex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
        deadbeef deadbeef deadbeef deadbeef deadbeef",
    );
    let sealed = hex("81c8000d 4d617273
        63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded
        0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4");
    let word = SrtcpWord::encrypted(0x5d4).expect("below the limit");
    let gcm = gcm(GCM_128_KEY);
    let ssrc = Ssrc(0x4d61_7273);
    assert_eq!(
        through(&packet, &mut |buf| gcm.seal_rtcp(buf, ssrc, word)),
        Ok(sealed.clone())
    );
    assert_eq!(
        through(&sealed, &mut |buf| gcm.open_rtcp(buf, ssrc, word)),
        Ok(packet)
    );
}
