//! The messages on the edge's Unix socket, before and beside the rings.
//!
//! One datagram each (`SOCK_SEQPACKET`):
//!
//! ```text
//! control                          edge
//!    │  Hello { role: Control }     │
//!    ├─────────────────────────────►│  peer's uid, version, one control at a time
//!    │  Welcome { worker_count: 2 } │
//!    │◄─────────────────────────────┤
//!    │  WorkerOffer { worker: 0 }   │  + region, eventfd to the worker, eventfd to control
//!    │◄─────────────────────────────┤
//!    │  WorkerOffer { worker: 1 }   │
//!    │◄─────────────────────────────┤
//!    │       … connection stays open; its end is how each side learns of the other's death
//! ```
//!
//! An observer gets each region read-only and no eventfds. Where `Welcome` would stand,
//! [`Refused`] may come, and then the edge closes the connection.
//!
//! Every message begins with its kind (u16), two reserved bytes, and the sender's
//! [`ApiVersion`] (u32). That and the form of [`Refused`] never change, not even across major
//! versions, so two releases that cannot talk can still say so. Integers are little-endian; bodies
//! grow only at the end.

use crate::vocabulary::{ApiVersion, Epoch, WorkerIndex};

/// Longest message of the handshake.
pub const MESSAGE_LEN_MAX: usize = 1024;

/// Longest text of a [`Refused`], in bytes; a longer one is cut.
pub const REFUSAL_TEXT_LEN_MAX: usize = 512;

const KIND_HELLO: u16 = 10;
const KIND_WELCOME: u16 = 20;
const KIND_WORKER_OFFER: u16 = 21;
const KIND_REFUSED: u16 = 30;

/// What a client wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Sends commands and reads events; there is one at a time.
    Control = 1,
    /// Reads counters and heartbeats.
    Observer = 2,
}

impl TryFrom<u8> for Role {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            1 => Ok(Self::Control),
            2 => Ok(Self::Observer),
            other => Err(other),
        }
    }
}

/// First message, from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// What the client speaks.
    pub version: ApiVersion,
    /// What it wants to be.
    pub role: Role,
    /// Its PID, for logs; what the kernel says about the peer goes before it.
    pub pid: u32,
    /// This life of control; 0 from an observer.
    pub epoch: Epoch,
}

/// The edge's consent. One [`WorkerOffer`] for each worker follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// What the edge speaks.
    pub version: ApiVersion,
    /// PID of the edge.
    pub pid: u32,
    /// This life of the edge; every region states the same.
    pub generation: u64,
    /// How many workers there are.
    pub worker_count: u16,
}

/// Carries one worker's file descriptors: for control the region, the eventfd that wakes the
/// worker and the one that wakes control; for an observer the region alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOffer {
    /// Whose they are.
    pub worker: WorkerIndex,
}

/// The edge's refusal, its last message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// For programs. `None` for a code that this version does not know.
    pub code: Option<RefusalCode>,
    /// For people: what is wrong and what to do.
    pub text: String,
}

/// Why the edge refuses a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// Another major version.
    VersionMismatch = 10,
    /// The hello could not be read.
    BadHello = 11,
    /// No hello came in time.
    HelloTimeout = 12,
    /// There is a control already.
    ControlPresent = 20,
    /// There are as many observers as may be.
    TooManyObservers = 21,
    /// The peer runs under a user that may not connect.
    NotPermitted = 30,
    /// The edge could not hand over its descriptors.
    HandoverFailed = 40,
}

impl TryFrom<u16> for RefusalCode {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::VersionMismatch,
            11 => Self::BadHello,
            12 => Self::HelloTimeout,
            20 => Self::ControlPresent,
            21 => Self::TooManyObservers,
            30 => Self::NotPermitted,
            40 => Self::HandoverFailed,
            other => return Err(other),
        })
    }
}

/// What the edge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeMessage {
    /// Come in.
    Welcome(Welcome),
    /// One worker's descriptors.
    WorkerOffer(WorkerOffer),
    /// No.
    Refused(Refused),
}

/// A handshake message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It ends inside a field.
    #[error("a handshake message of {0} bytes is too short")]
    Short(usize),
    /// Not a kind that may come here.
    #[error("a handshake message of kind {0} does not belong here")]
    UnexpectedKind(u16),
    /// The sender speaks another major version.
    #[error(
        "the other side speaks version {0}, this program {API_VERSION}: install the same release \
         of trunkline-edge and trunkline-control, then restart both",
        API_VERSION = crate::API_VERSION
    )]
    VersionMismatch(ApiVersion),
    /// A field has a value that is not defined.
    #[error("a handshake message has an impossible {field}: {value}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
}

impl Hello {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = head(KIND_HELLO, self.version);
        out.extend_from_slice(&[self.role as u8, 0, 0, 0]);
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`HandshakeError::VersionMismatch`] goes before anything said in the body, which may have
    /// another form in that version.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let (kind, version, mut body) = split_head(bytes)?;
        if kind != KIND_HELLO {
            return Err(HandshakeError::UnexpectedKind(kind));
        }
        compatible(version)?;
        let [role, _, _, _] = body.array()?;
        let role = Role::try_from(role).map_err(|value| HandshakeError::BadValue {
            field: "role",
            value: value.into(),
        })?;
        Ok(Self {
            version,
            role,
            pid: u32::from_le_bytes(body.array()?),
            epoch: Epoch(u32::from_le_bytes(body.array()?)),
        })
    }
}

impl EdgeMessage {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            EdgeMessage::Welcome(welcome) => {
                let mut out = head(KIND_WELCOME, welcome.version);
                out.extend_from_slice(&welcome.pid.to_le_bytes());
                out.extend_from_slice(&u32::from(welcome.worker_count).to_le_bytes());
                out.extend_from_slice(&welcome.generation.to_le_bytes());
                out
            }
            EdgeMessage::WorkerOffer(offer) => {
                let mut out = head(KIND_WORKER_OFFER, crate::API_VERSION);
                out.extend_from_slice(&u32::from(offer.worker.0).to_le_bytes());
                out
            }
            EdgeMessage::Refused(refused) => {
                let text = truncated(&refused.text, REFUSAL_TEXT_LEN_MAX);
                let mut out = head(KIND_REFUSED, crate::API_VERSION);
                let code = refused.code.map_or(0, |code| code as u16);
                out.extend_from_slice(&code.to_le_bytes());
                out.extend_from_slice(&(text.len() as u16).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out
            }
        }
    }

    /// Reads a message from the edge.
    ///
    /// # Errors
    /// Malformed bytes; a message other than [`Refused`] from another major version.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let (kind, version, mut body) = split_head(bytes)?;
        if kind == KIND_REFUSED {
            let code = u16::from_le_bytes(body.array()?);
            let len = usize::from(u16::from_le_bytes(body.array()?));
            let text = body
                .0
                .get(..len)
                .ok_or(HandshakeError::Short(bytes.len()))?;
            let text = String::from_utf8_lossy(text);
            return Ok(EdgeMessage::Refused(Refused {
                code: RefusalCode::try_from(code).ok(),
                text: truncated(&text, REFUSAL_TEXT_LEN_MAX).to_owned(),
            }));
        }
        compatible(version)?;
        match kind {
            KIND_WELCOME => {
                let pid = u32::from_le_bytes(body.array()?);
                let worker_count = body.worker_number("worker_count")?;
                let generation = u64::from_le_bytes(body.array()?);
                Ok(EdgeMessage::Welcome(Welcome {
                    version,
                    pid,
                    generation,
                    worker_count,
                }))
            }
            KIND_WORKER_OFFER => {
                let worker = WorkerIndex(body.worker_number("worker")?);
                Ok(EdgeMessage::WorkerOffer(WorkerOffer { worker }))
            }
            other => Err(HandshakeError::UnexpectedKind(other)),
        }
    }
}

fn head(kind: u16, version: ApiVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&version.to_bits().to_le_bytes());
    out
}

fn split_head(bytes: &[u8]) -> Result<(u16, ApiVersion, Body<'_>), HandshakeError> {
    let mut body = Body(bytes, bytes.len());
    let [kind_low, kind_high, _, _] = body.array()?;
    let version = ApiVersion::from_bits(u32::from_le_bytes(body.array()?));
    Ok((u16::from_le_bytes([kind_low, kind_high]), version, body))
}

fn compatible(version: ApiVersion) -> Result<(), HandshakeError> {
    if version.is_compatible_with(crate::API_VERSION) {
        Ok(())
    } else {
        Err(HandshakeError::VersionMismatch(version))
    }
}

/// What is left of a message, and how long the whole was.
struct Body<'a>(&'a [u8], usize);

impl Body<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(HandshakeError::Short(self.1))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn worker_number(&mut self, field: &'static str) -> Result<u16, HandshakeError> {
        let value = u32::from_le_bytes(self.array()?);
        u16::try_from(value).map_err(|_| HandshakeError::BadValue {
            field,
            value: value.into(),
        })
    }
}

/// The longest beginning of `text` that is at most `len_max` bytes long.
fn truncated(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::API_VERSION;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            version: API_VERSION,
            role: Role::Control,
            pid: 4711,
            epoch: Epoch(9),
        }
    }

    #[test]
    fn messages_survive_the_round_trip() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        let messages = [
            EdgeMessage::Welcome(Welcome {
                version: API_VERSION,
                pid: 1,
                generation: u64::MAX,
                worker_count: 64,
            }),
            EdgeMessage::WorkerOffer(WorkerOffer {
                worker: WorkerIndex(63),
            }),
            EdgeMessage::Refused(Refused {
                code: Some(RefusalCode::ControlPresent),
                text: "control already runs with PID 17".into(),
            }),
        ];
        for message in messages {
            let bytes = message.encode();
            assert!(bytes.len() <= MESSAGE_LEN_MAX);
            assert_eq!(EdgeMessage::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn hello_of_another_major_version_is_told_apart_before_its_body_is_read() {
        let version = ApiVersion {
            major: API_VERSION.major + 1,
            minor: 0,
        };
        let mut bytes = Hello { version, ..hello() }.encode();
        bytes.truncate(8);
        let error = Hello::decode(&bytes).expect_err("another major");
        assert_eq!(error, HandshakeError::VersionMismatch(version));
        assert!(error.to_string().contains("install the same release"));
    }

    #[test]
    fn refusal_is_readable_whatever_version_sent_it() {
        let refused = Refused {
            code: Some(RefusalCode::VersionMismatch),
            text: "no".into(),
        };
        let mut bytes = EdgeMessage::Refused(refused.clone()).encode();
        bytes[4..8].fill(0xff);
        assert_eq!(
            EdgeMessage::decode(&bytes),
            Ok(EdgeMessage::Refused(refused))
        );
    }

    #[test]
    fn refusal_text_is_cut_between_characters() {
        let text = "é".repeat(REFUSAL_TEXT_LEN_MAX);
        let bytes = EdgeMessage::Refused(Refused { code: None, text }).encode();
        assert!(bytes.len() <= MESSAGE_LEN_MAX);
        let Ok(EdgeMessage::Refused(refused)) = EdgeMessage::decode(&bytes) else {
            panic!("not a refusal");
        };
        assert_eq!(refused.text, "é".repeat(REFUSAL_TEXT_LEN_MAX / 2));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Hello::decode(&bytes);
            let _ = EdgeMessage::decode(&bytes);
        }

        #[test]
        fn no_bytes_after_a_good_head_make_a_decoder_panic(
            kind in prop::sample::select(vec![KIND_HELLO, KIND_WELCOME, KIND_WORKER_OFFER, KIND_REFUSED]),
            body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = head(kind, API_VERSION);
            bytes.extend_from_slice(&body);
            let _ = Hello::decode(&bytes);
            let _ = EdgeMessage::decode(&bytes);
        }
    }
}
