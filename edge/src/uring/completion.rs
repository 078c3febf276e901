//! What a completion belongs to, and how completions leave the kernel's queue.

use io_uring::cqueue;

use crate::tier::SocketId;

/// What a submission carries through the kernel.
///
/// ```text
///   bits 63…56 kind   55…32 generation   31…0 slot or buffer
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserData {
    Receive(SocketId),
    Send { buffer: u16 },
    Cancel(SocketId),
    Doorbell,
}

const KIND_RECEIVE: u64 = 10;
const KIND_SEND: u64 = 11;
const KIND_CANCEL: u64 = 12;
const KIND_DOORBELL: u64 = 20;

impl UserData {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Receive(id) => KIND_RECEIVE << 56 | id.to_bits(),
            Self::Send { buffer } => KIND_SEND << 56 | buffer as u64,
            Self::Cancel(id) => KIND_CANCEL << 56 | id.to_bits(),
            Self::Doorbell => KIND_DOORBELL << 56,
        }
    }

    pub(super) const fn decode(bits: u64) -> Option<Self> {
        let id = SocketId::from_bits(bits);
        Some(match bits >> 56 {
            KIND_RECEIVE => Self::Receive(id),
            KIND_SEND => Self::Send {
                buffer: bits as u16,
            },
            KIND_CANCEL => Self::Cancel(id),
            KIND_DOORBELL => Self::Doorbell,
            _ => return None,
        })
    }
}

/// Completions copied out of the kernel's queue, so that handling them can use the ring.
#[derive(Default)]
pub(super) struct Batch {
    entries: Vec<cqueue::Entry>,
    next: usize,
}

impl Batch {
    /// The worker reads the clock once per batch.
    pub(super) const LEN_MAX: usize = 64;

    /// Takes what the queue holds; nothing while earlier entries are left. Returns how many
    /// entries there are now.
    pub(super) fn fill(&mut self, queue: &mut cqueue::CompletionQueue<'_>) -> usize {
        if self.is_empty() {
            self.entries.clear();
            self.entries.extend(queue.by_ref().take(Self::LEN_MAX));
            self.next = 0;
        }
        self.entries.len() - self.next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next == self.entries.len()
    }

    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        let entry = self.entries.get(self.next)?.clone();
        self.next += 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_survives_the_kernel() {
        let id = SocketId {
            slot: u32::MAX,
            generation: SocketId::GENERATION_MASK,
        };
        let all = [
            UserData::Receive(id),
            UserData::Send { buffer: u16::MAX },
            UserData::Cancel(id),
            UserData::Doorbell,
        ];
        for data in all {
            assert_eq!(UserData::decode(data.encode()), Some(data));
        }
        assert_eq!(UserData::decode(0), None);
    }
}
