//! Packets that wait for their turn: a fixed number of slots, in sequence order.

use trunkline_edge_api::{MonoTime, PayloadType};

/// Packets that can wait at once: [`super::DEPTH_MAX_MILLIS`] of the shortest packets in use, 10 ms.
pub(super) const SLOT_COUNT: usize = 32;

/// What is known of one waiting packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Extended sequence number.
    pub(super) sequence: i64,
    /// Where its sound begins, RTP units on the buffer's own timeline.
    pub(super) position: i64,
    /// How long its sound lasts, RTP units; 0 for comfort noise.
    pub(super) units: u32,
    pub(super) is_pause: bool,
    pub(super) payload_type: PayloadType,
    pub(super) arrived_at: MonoTime,
    payload_len: u16,
}

impl Slot {
    /// A packet that has just come; its length is set when it is put in.
    pub(super) fn new(
        sequence: i64,
        position: i64,
        units: u32,
        payload_type: PayloadType,
        arrived_at: MonoTime,
    ) -> Self {
        Self {
            sequence,
            position,
            units,
            is_pause: false,
            payload_type,
            arrived_at,
            payload_len: 0,
        }
    }

    /// Where its sound ends.
    pub(super) fn end(&self) -> i64 {
        self.position + i64::from(self.units)
    }
}

/// Up to [`SLOT_COUNT`] packets. Sequence numbers and positions both rise from front to back.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    slots: [Slot; SLOT_COUNT],
    /// A permutation of the slot indices: the first `len` wait, in order; the rest are free, the
    /// one freed last in front, so that a buffer of two packets keeps using the same memory.
    order: [u8; SLOT_COUNT],
    len: usize,
    payloads: Box<[u8]>,
    payload_len_max: usize,
}

/// Why a packet was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// All slots are in use.
    Full,
    /// A packet of its sequence number is there, or its position does not lie between those of its
    /// neighbours.
    Misplaced,
}

impl Slots {
    /// Room for payloads of up to `payload_len_max` bytes.
    pub(super) fn new(payload_len_max: usize) -> Self {
        let empty = Slot::new(0, 0, 0, PayloadType::PCMU, MonoTime(0));
        Self {
            slots: [empty; SLOT_COUNT],
            order: std::array::from_fn(|index| index as u8),
            len: 0,
            payloads: vec![0; SLOT_COUNT * payload_len_max].into_boxed_slice(),
            payload_len_max,
        }
    }

    pub(super) fn payload_len_max(&self) -> usize {
        self.payload_len_max
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn front(&self) -> Option<&Slot> {
        self.get(0)
    }

    fn get(&self, place: usize) -> Option<&Slot> {
        (place < self.len).then(|| &self.slots[usize::from(self.order[place])])
    }

    /// The payload of the packet in front.
    pub(super) fn front_payload(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        self.payload(self.order[0])
    }

    /// The payload in the slot that [`Self::pop_front`] named, until the next packet is put in.
    pub(super) fn payload(&self, index: u8) -> &[u8] {
        let index = usize::from(index) % SLOT_COUNT;
        let start = index * self.payload_len_max;
        &self.payloads[start..start + usize::from(self.slots[index].payload_len)]
    }

    /// Takes the packet in front out; its index gives its payload.
    pub(super) fn pop_front(&mut self) -> Option<(Slot, u8)> {
        let slot = *self.front()?;
        self.order[..self.len].rotate_left(1);
        self.len -= 1;
        Some((slot, self.order[self.len]))
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Puts `slot` where its sequence number belongs. `payload` is at most `payload_len_max` long.
    pub(super) fn insert(&mut self, slot: Slot, payload: &[u8]) -> Result<(), Refused> {
        if self.len == SLOT_COUNT {
            return Err(Refused::Full);
        }
        let mut place = self.len;
        while place > 0 && self.slots[usize::from(self.order[place - 1])].sequence > slot.sequence {
            place -= 1;
        }
        let fits_before = place == 0
            || self.get(place - 1).is_some_and(|earlier| {
                earlier.sequence < slot.sequence && earlier.position <= slot.position
            });
        let fits_after = self
            .get(place)
            .is_none_or(|later| slot.position <= later.position);
        if !fits_before || !fits_after || payload.len() > self.payload_len_max {
            return Err(Refused::Misplaced);
        }
        self.order[place..=self.len].rotate_right(1);
        self.len += 1;
        let index = usize::from(self.order[place]);
        self.slots[index] = Slot {
            payload_len: payload.len() as u16,
            ..slot
        };
        let start = index * self.payload_len_max;
        self.payloads[start..start + payload.len()].copy_from_slice(payload);
        Ok(())
    }
}
