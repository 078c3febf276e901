//! HMAC-SHA1 (RFC 2104) over a packet and the few bytes that follow it.
//!
//! Both keyed hash states are computed once and kept; a tag starts from a copy of them. Written
//! on the bare compression function, because the states are keys: the `hmac` crate neither wipes
//! them nor does without a buffer between packet and hash. It is the oracle of the tests.

use sha1::compress;
use sha1::digest::block_buffer::EagerBuffer;
use sha1::digest::consts::U64;
use zeroize::Zeroize;

/// Bytes of a SHA-1 block.
const BLOCK_LEN: usize = 64;
/// Bytes of the message length, in bits, that ends a hash.
const BITS_LEN: usize = 8;
/// Bytes of a full tag.
pub(super) const TAG_LEN: usize = 20;
/// Bytes of the session authentication key, RFC 3711 §5.2.
pub(super) const KEY_LEN: usize = 20;

/// The initial hash value, FIPS 180-4 §5.3.1.
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// A keyed HMAC.
pub(super) struct HmacSha1 {
    inner: [u32; 5],
    outer: [u32; 5],
}

impl HmacSha1 {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Self {
        let keyed = |pad: u8| {
            let mut block = [pad; BLOCK_LEN];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = INITIAL;
            absorb(&mut state, &block);
            block.zeroize();
            state
        };
        Self {
            inner: keyed(0x36),
            outer: keyed(0x5c),
        }
    }

    /// The tag of `message` followed by `tail`.
    #[inline]
    pub(super) fn tag(&self, message: &[u8], tail: [u8; 4]) -> [u8; TAG_LEN] {
        let whole_len = message.len() & !(BLOCK_LEN - 1);
        let (whole, rest) = message.split_at(whole_len);
        // Put together before anything is hashed: the stores have left the processor by the time
        // the hash comes to them, and needs not wait to read them back in wider pieces.
        let ending = Ending::new(rest, tail, message.len());
        let mut state = self.inner;
        absorb(&mut state, whole);
        absorb(&mut state, ending.as_bytes());

        // The outer message is always one block: the inner hash and its padding.
        let mut digest = [0; BLOCK_LEN];
        put_state(&mut digest, state);
        digest[TAG_LEN] = 0x80;
        let bits = 8 * (BLOCK_LEN + TAG_LEN) as u64;
        digest[BLOCK_LEN - BITS_LEN..].copy_from_slice(&bits.to_be_bytes());
        let mut state = self.outer;
        absorb(&mut state, &digest);
        let mut tag = [0; TAG_LEN];
        put_state(&mut tag, state);
        tag
    }
}

impl Drop for HmacSha1 {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// The last one or two blocks of the inner message: what is left of it, and the padding
/// (FIPS 180-4 §5.1.1).
struct Ending {
    blocks: [u8; 2 * BLOCK_LEN],
    len: usize,
}

impl Ending {
    /// `rest` is shorter than a block; `message_len` is that of the message without its tail.
    #[inline]
    fn new(rest: &[u8], tail: [u8; 4], message_len: usize) -> Self {
        let mut blocks = [0; 2 * BLOCK_LEN];
        let end = rest.len() + tail.len();
        blocks[..rest.len()].copy_from_slice(rest);
        blocks[rest.len()..end].copy_from_slice(&tail);
        blocks[end] = 0x80;
        let len = if end + 1 + BITS_LEN <= BLOCK_LEN {
            BLOCK_LEN
        } else {
            2 * BLOCK_LEN
        };
        let bits = 8 * (BLOCK_LEN + message_len + tail.len()) as u64;
        blocks[len - BITS_LEN..len].copy_from_slice(&bits.to_be_bytes());
        Self { blocks, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.blocks[..self.len]
    }
}

/// Hashes whole blocks in one go. The buffer only cuts them: nothing is left for it to keep.
#[inline]
fn absorb(state: &mut [u32; 5], blocks: &[u8]) {
    debug_assert_eq!(blocks.len() % BLOCK_LEN, 0);
    EagerBuffer::<U64>::default().digest_blocks(blocks, |blocks| compress(state, blocks));
}

fn put_state(out: &mut [u8], state: [u32; 5]) {
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, Mac};
    use sha1::Sha1;

    use super::*;

    #[test]
    fn tag_is_that_of_rfc_2202() {
        // Test case 1 of RFC 2202 §3, its message split before the last four bytes.
        let hmac = HmacSha1::new(&[0x0b; KEY_LEN]);
        let expected = [
            0xb6, 0x17, 0x31, 0x86, 0x55, 0x05, 0x72, 0x64, 0xe2, 0x8b, 0xc0, 0xb6, 0xfb, 0x37,
            0x8c, 0x8e, 0xf1, 0x46, 0xbe, 0x00,
        ];
        assert_eq!(hmac.tag(b"Hi T", *b"here"), expected);
    }

    #[test]
    fn every_length_agrees_with_the_hmac_crate() {
        let key = [0xa7; KEY_LEN];
        let ours = HmacSha1::new(&key);
        let message: Vec<u8> = (0..400u32).map(|n| (n * 31) as u8).collect();
        for len in 0..=message.len() {
            let mut theirs = Hmac::<Sha1>::new_from_slice(&key).expect("any length");
            theirs.update(&message[..len]);
            theirs.update(&[1, 2, 3, 4]);
            let expected = theirs.finalize().into_bytes();
            assert_eq!(
                ours.tag(&message[..len], [1, 2, 3, 4])[..],
                expected[..],
                "length {len}"
            );
        }
    }
}
