//! A packet inside a buffer that has room behind it.

use std::ops::{Deref, DerefMut};

/// A packet that is edited in place. Protecting it makes it longer, so the buffer usually goes on
/// behind the packet; one made of a plain slice has no room to grow.
#[derive(Debug)]
pub struct PacketBuf<'a> {
    buffer: &'a mut [u8],
    /// Bytes of the packet; never more than the buffer has.
    len: usize,
}

impl<'a> PacketBuf<'a> {
    /// The first `len` bytes of `buffer` as a packet; all of it when it is shorter.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], len: usize) -> Self {
        let len = len.min(buffer.len());
        Self { buffer, len }
    }

    /// Cuts the packet to `len` bytes; one that is shorter stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends `tail`. Returns whether there was room; without it nothing changes.
    #[inline]
    #[must_use]
    pub fn append(&mut self, tail: &[u8]) -> bool {
        let end = self.len + tail.len();
        let Some(room) = self.buffer.get_mut(self.len..end) else {
            return false;
        };
        room.copy_from_slice(tail);
        self.len = end;
        true
    }

    /// Makes the packet `len` bytes longer and gives it apart from them, whose content is
    /// undefined. `None` without room; then nothing changes.
    #[inline]
    pub fn grow(&mut self, len: usize) -> Option<(&mut [u8], &mut [u8])> {
        let start = self.len;
        let end = start + len;
        let grown = self.buffer.get_mut(..end)?;
        self.len = end;
        Some(grown.split_at_mut(start))
    }

    /// Bytes by which the packet can grow.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.len() - self.len
    }
}

impl Deref for PacketBuf<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for PacketBuf<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

impl<'a> From<&'a mut [u8]> for PacketBuf<'a> {
    fn from(packet: &'a mut [u8]) -> Self {
        let len = packet.len();
        Self::new(packet, len)
    }
}

impl<'a, const LEN: usize> From<&'a mut [u8; LEN]> for PacketBuf<'a> {
    fn from(packet: &'a mut [u8; LEN]) -> Self {
        Self::new(packet, LEN)
    }
}

impl<'a> From<&'a mut Vec<u8>> for PacketBuf<'a> {
    fn from(packet: &'a mut Vec<u8>) -> Self {
        packet.as_mut_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_grows_into_the_room_behind_it_and_no_further() {
        let mut bytes = [7; 6];
        let mut packet = PacketBuf::new(&mut bytes, 3);
        assert_eq!(packet.room(), 3);
        assert!(packet.append(&[1, 2]));
        assert!(!packet.append(&[3, 4]));
        assert_eq!(*packet, [7, 7, 7, 1, 2]);
        packet.truncate(9);
        packet.truncate(1);
        assert_eq!(*packet, [7]);
        assert!(packet.grow(6).is_none());
        let (grown, tail) = packet.grow(5).expect("exactly the room there is");
        assert_eq!((grown.len(), tail.len()), (1, 5));
        assert_eq!(packet.len(), 6);
    }

    #[test]
    fn length_beyond_the_buffer_is_cut_to_it() {
        assert_eq!(PacketBuf::new(&mut [0; 4], 9).len(), 4);
        assert_eq!(PacketBuf::from(&mut [0; 4]).room(), 0);
    }
}
