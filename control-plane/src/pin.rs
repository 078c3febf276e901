//! Conference PINs: kept as a slow hash, and checked on a thread of their own.
//!
//! The store has PBKDF2-HMAC-SHA256 (RFC 8018 §5.2) with a salt of each conference's own. That a
//! PIN has four to sixteen digits bounds what any hash can do for it: who has the store tries all
//! PINs of six digits in a day of one core. It keeps PINs out of backups and from eyes that pass
//! by, and long ones from everybody. The number of digits stands beside the hash, so that callers
//! need not end a PIN with `#`; it tells a thief a tenth of the work at most.
//!
//! A check takes a tenth of a second, so the call thread has it done elsewhere. The queue is
//! short: callers who find it full are asked again and have lost no try.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, sync_channel};

use aws_lc_rs::pbkdf2;
use tokio::sync::mpsc;

use crate::call::Pin;

/// OWASP's figure for PBKDF2-HMAC-SHA256 of 2023.
const ITERATIONS: u32 = 600_000;

/// First field of a hash as the store has it.
const SCHEME: &str = "pbkdf2-sha256";

/// Checks that may wait: some six seconds of them.
const QUEUE_LEN: usize = 64;

/// What is kept of a PIN.
#[derive(Clone, PartialEq, Eq)]
pub struct PinHash {
    iterations: u32,
    digit_count: usize,
    salt: [u8; 16],
    sum: [u8; 32],
}

impl PinHash {
    /// Hashes a PIN. Takes a tenth of a second.
    #[must_use]
    pub fn new(pin: &Pin, salt: [u8; 16]) -> Self {
        let mut hash = Self {
            iterations: ITERATIONS,
            digit_count: pin.0.len(),
            salt,
            sum: [0; 32],
        };
        let (iterations, salt) = (hash.rounds(), hash.salt);
        let digits = pin.0.as_bytes();
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, digits, &mut hash.sum);
        hash
    }

    /// Whether this is the PIN. Takes a tenth of a second.
    #[must_use]
    pub fn is_of(&self, pin: &Pin) -> bool {
        let (algorithm, digits) = (pbkdf2::PBKDF2_HMAC_SHA256, pin.0.as_bytes());
        pbkdf2::verify(algorithm, self.rounds(), &self.salt, digits, &self.sum).is_ok()
    }

    /// How many digits it has.
    #[must_use]
    pub fn digit_count(&self) -> usize {
        self.digit_count
    }

    fn rounds(&self) -> NonZeroU32 {
        NonZeroU32::new(self.iterations).unwrap_or(NonZeroU32::MIN)
    }
}

impl fmt::Debug for PinHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinHash(_)")
    }
}

/// `pbkdf2-sha256$600000$6$salt$sum`, the last two hexadecimal.
impl fmt::Display for PinHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}${}${}$", self.iterations, self.digit_count)?;
        self.salt
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("$")?;
        self.sum.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not what [`PinHash`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no hash of a PIN")]
pub struct NotAHash;

impl FromStr for PinHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut fields = text.split('$');
        let mut next = || fields.next().ok_or(NotAHash);
        let (scheme, iterations, digit_count) = (next()?, next()?, next()?);
        let (salt, sum) = (next()?, next()?);
        if scheme != SCHEME || fields.next().is_some() {
            return Err(NotAHash);
        }
        // More would keep the checking thread busy for longer than a caller waits.
        let iterations = iterations.parse().ok();
        let iterations = iterations.filter(|count| (1..=10 * ITERATIONS).contains(count));
        Ok(Self {
            iterations: iterations.ok_or(NotAHash)?,
            digit_count: digit_count.parse().map_err(|_| NotAHash)?,
            salt: from_hex(salt)?,
            sum: from_hex(sum)?,
        })
    }
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], NotAHash> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotAHash);
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NotAHash)?;
    }
    Ok(bytes)
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinVerdict {
    /// It is the PIN.
    Right,
    /// It is not.
    Wrong,
    /// There was no time to find out.
    Unchecked,
}

/// A check, and for whom.
#[derive(Debug)]
pub struct PinCheck<K> {
    /// Comes back with the verdict.
    pub key: K,
    /// What was entered.
    pub pin: Pin,
    /// What is kept.
    pub hash: PinHash,
}

/// The call thread's end of the checking thread, which ends when this is dropped.
#[derive(Debug)]
pub struct PinChecker<K> {
    checks: SyncSender<PinCheck<K>>,
    verdicts: mpsc::Receiver<(K, PinVerdict)>,
}

impl<K: Copy + Send + 'static> PinChecker<K> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn spawn() -> std::io::Result<Self> {
        let (checks, waiting) = sync_channel::<PinCheck<K>>(QUEUE_LEN);
        let (tell, verdicts) = mpsc::channel(QUEUE_LEN);
        std::thread::Builder::new()
            .name("pins".to_owned())
            .spawn(move || {
                for PinCheck { key, pin, hash } in waiting {
                    let verdict = match hash.is_of(&pin) {
                        true => PinVerdict::Right,
                        false => PinVerdict::Wrong,
                    };
                    if tell.blocking_send((key, verdict)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { checks, verdicts })
    }

    /// Has a PIN checked. Never waits; `Err` when too many wait already.
    ///
    /// # Errors
    /// The key: nothing will come of this check.
    pub fn check(&self, check: PinCheck<K>) -> Result<(), K> {
        let key = check.key;
        self.checks.try_send(check).map_err(|_| key)
    }

    /// The next verdict.
    pub async fn verdict(&mut self) -> Option<(K, PinVerdict)> {
        self.verdicts.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(digits: &str) -> Pin {
        Pin(digits.to_owned())
    }

    #[test]
    fn hash_is_of_its_pin_alone_and_reads_back() {
        let hash = PinHash::new(&pin("271828"), [7; 16]);
        assert!(hash.is_of(&pin("271828")));
        assert!(!hash.is_of(&pin("271829")));
        assert_eq!(hash.digit_count(), 6);
        let text = hash.to_string();
        assert!(!text.contains("271828") && !format!("{hash:?}").contains(&text));
        assert_eq!(text.parse(), Ok(hash.clone()));
        assert_ne!(PinHash::new(&pin("271828"), [8; 16]), hash, "salted");
    }

    #[test]
    fn what_no_release_wrote_is_no_hash() {
        let good = format!("{SCHEME}$1$4${}${}", "0".repeat(32), "f".repeat(64));
        assert!(good.parse::<PinHash>().is_ok());
        for bad in [
            "271828".to_owned(),
            String::new(),
            good.replace("sha256", "md5"),
            good.replace("$1$", "$0$"),
            good.replace("$1$", "$99999999$"),
            good.replace('f', "é"),
            format!("{good}0"),
            format!("{good}$"),
        ] {
            assert_eq!(bad.parse::<PinHash>(), Err(NotAHash), "{bad}");
        }
    }

    #[test]
    fn checks_are_answered_and_those_too_many_come_back() {
        let hash = PinHash::new(&pin("2718"), [7; 16]);
        let mut checker = PinChecker::spawn().expect("a thread");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("runtime");
        for (key, digits, expected) in [
            (1, "2718", PinVerdict::Right),
            (2, "1111", PinVerdict::Wrong),
        ] {
            let check = PinCheck {
                key,
                pin: pin(digits),
                hash: hash.clone(),
            };
            assert_eq!(checker.check(check), Ok(()));
            assert_eq!(runtime.block_on(checker.verdict()), Some((key, expected)));
        }
        let refused = (0..QUEUE_LEN + 8).filter_map(|key| {
            let (pin, hash) = (pin("1111"), hash.clone());
            checker.check(PinCheck { key, pin, hash }).err()
        });
        assert!(refused.count() >= 1);
    }
}
