//! From a master key to the keys that packets are protected with: RFC 3711 §4.3, with AES-256 as
//! of RFC 6188 §3 and the 96-bit salts of RFC 7714 §11.
//!
//! The key derivation rate is 0, the only one that SDES peers use in practice, so each key is
//! derived once.

use trunkline_edge_api::crypto::{SrtpKey, SrtpSuite};
use zeroize::Zeroizing;

use super::counter_mode::Aes;

/// What a derived key is for: the labels of RFC 3711 §4.3.1 and §4.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    RtpCipher = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpCipher = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// Bytes of a master salt as the derivation sees it. Shorter ones are padded with zeros behind.
const SALT_LEN: usize = 14;

/// Derives the keys of one master key.
pub(super) struct KeyDerivation {
    prf: Aes,
    salt: Zeroizing<[u8; SALT_LEN]>,
}

impl KeyDerivation {
    pub(super) fn new(suite: SrtpSuite, master: &SrtpKey) -> Self {
        let (key, master_salt) = master.key_and_salt().split_at(suite.key_len());
        let mut salt = Zeroizing::new([0; SALT_LEN]);
        salt[..master_salt.len()].copy_from_slice(master_salt);
        Self {
            prf: Aes::new(key),
            salt,
        }
    }

    /// The first `LEN` bytes of the key stream for `label`: AES-CM with the salt, changed by the
    /// label, as its initial counter (RFC 3711 §4.3.3).
    pub(super) fn derive<const LEN: usize>(&self, label: Label) -> Zeroizing<[u8; LEN]> {
        let mut counter = [0; 16];
        counter[..SALT_LEN].copy_from_slice(&*self.salt);
        // The label stands before the 48 bits of index that a rate of 0 leaves zero.
        counter[7] ^= label as u8;
        let mut key = Zeroizing::new([0; LEN]);
        self.prf.apply_key_stream(&counter, &mut *key);
        key
    }
}
