//! Nonces that prove themselves, and the counts that were used with them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use trunkline_edge_api::MonoTime;

use super::DigestConfig;
use super::credentials::{decode_hex, encode_hex};

/// Bytes of the time, of the serial number, and of the proof. 128 bits of HMAC cannot be guessed
/// within a nonce's life.
const TIME_LEN: usize = 8;
const SERIAL_LEN: usize = 4;
const PROOF_LEN: usize = 16;

/// When a nonce was issued, and which one of that nanosecond: its whole identity, in the order of
/// issue.
type NonceId = (MonoTime, u32);

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NonceState {
    /// Ours, young, and this count is new.
    Fresh,
    /// Not ours, not for this source, or too old.
    Stale,
    /// Ours, but the count was used before.
    Replayed,
}

/// Issues nonces and remembers the counts of those in use.
pub(super) struct NonceMint {
    key: Hmac<Sha256>,
    realm: String,
    bind_source: bool,
    lifetime_nanos: u64,
    nonces_max: usize,
    serial: u32,
    /// Nonces that somebody used with the right password, oldest first.
    used: BTreeMap<NonceId, CountWindow>,
    /// Counts of nonces up to this one are forgotten, so these nonces have ended.
    ended: Option<NonceId>,
}

impl NonceMint {
    pub(super) fn new(config: &DigestConfig, secret: [u8; 32]) -> Self {
        Self {
            key: Hmac::new_from_slice(&secret).expect("HMAC takes a key of any length"),
            realm: config.realm.clone(),
            bind_source: config.bind_source,
            lifetime_nanos: config.nonce_lifetime_secs.saturating_mul(1_000_000_000),
            nonces_max: config.nonces_max.max(1),
            serial: 0,
            used: BTreeMap::new(),
            ended: None,
        }
    }

    /// A nonce for `source`: hex of time, serial number and proof.
    pub(super) fn issue(&mut self, now: MonoTime, source: IpAddr) -> String {
        self.serial = self.serial.wrapping_add(1);
        let mut nonce = Vec::with_capacity(TIME_LEN + SERIAL_LEN + PROOF_LEN);
        nonce.extend_from_slice(&now.0.to_be_bytes());
        nonce.extend_from_slice(&self.serial.to_be_bytes());
        let proof = self.proof(&nonce, source).finalize().into_bytes();
        nonce.extend_from_slice(&proof[..PROOF_LEN]);
        encode_hex(&nonce)
    }

    /// Uses `nonce` once more. `count` is 0 in the form without counts, where a nonce is good for
    /// one request.
    pub(super) fn redeem(
        &mut self,
        now: MonoTime,
        source: IpAddr,
        nonce: &str,
        count: u32,
    ) -> NonceState {
        let Some(id) = self.identify(nonce, source) else {
            return NonceState::Stale;
        };
        let is_old = now.nanos_since(id.0) > self.lifetime_nanos || id.0 > now;
        if is_old || self.ended.is_some_and(|ended| id <= ended) {
            return NonceState::Stale;
        }
        let is_new = self.used.entry(id).or_default().admit(count);
        while self.used.len() > self.nonces_max {
            self.ended = self.used.pop_first().map(|(id, _)| id).max(self.ended);
        }
        self.forget_expired(now);
        if is_new {
            NonceState::Fresh
        } else {
            NonceState::Replayed
        }
    }

    fn identify(&self, nonce: &str, source: IpAddr) -> Option<NonceId> {
        let bytes = decode_hex(nonce).filter(|b| b.len() == TIME_LEN + SERIAL_LEN + PROOF_LEN)?;
        let (claims, proof) = bytes.split_at(TIME_LEN + SERIAL_LEN);
        self.proof(claims, source)
            .verify_truncated_left(proof)
            .ok()?;
        let (time, serial) = claims.split_at(TIME_LEN);
        Some((
            MonoTime(u64::from_be_bytes(time.try_into().ok()?)),
            u32::from_be_bytes(serial.try_into().ok()?),
        ))
    }

    fn proof(&self, claims: &[u8], source: IpAddr) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(claims);
        if self.bind_source {
            match source.to_canonical() {
                IpAddr::V4(v4) => mac.update(&v4.octets()),
                IpAddr::V6(v6) => mac.update(&v6.octets()),
            }
        }
        mac.update(self.realm.as_bytes());
        mac
    }

    /// Two per call keep up with any rate of new nonces, as each call adds one at most.
    fn forget_expired(&mut self, now: MonoTime) {
        for _ in 0..2 {
            match self.used.first_entry() {
                Some(oldest) if now.nanos_since(oldest.key().0) > self.lifetime_nanos => {
                    oldest.remove();
                }
                _ => return,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn used_len(&self) -> usize {
        self.used.len()
    }
}

/// The counts seen with one nonce: the highest, and which of the 64 up to it. Requests overtake
/// each other on UDP, so a lower one is not at once a replay.
#[derive(Debug, Default)]
struct CountWindow {
    highest: u32,
    /// Bit `n` stands for `highest - n`.
    seen: u64,
}

impl CountWindow {
    /// Whether `count` is new; it is not the next time. A count that fell out of the window is
    /// taken for a replay.
    fn admit(&mut self, count: u32) -> bool {
        if count > self.highest || self.seen == 0 {
            let advance = count - self.highest;
            self.seen = self.seen.checked_shl(advance).unwrap_or(0) | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        let Some(bit) = 1u64.checked_shl(behind) else {
            return false;
        };
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}
