//! Receive buffers that the kernel picks from a ring (`IORING_REGISTER_PBUF_RING`).
//!
//! A buffer has one owner at a time: the kernel, or one [`RxBuffer`]. What arrives in it is edited
//! and sent where it lies; the same buffer also holds the destination address while the send is
//! under way.
//!
//! ```text
//!   byte 0         16            44                                       2048
//!        | io_uring_recvmsg_out | sockaddr_in or _in6 | datagram ……………… |
//! ```

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use trunkline_media::PacketBuf;

use crate::tier::{PACKET_ROOM, RxBuffer};

/// Buffer group of the receive buffers; there is only one.
pub(super) const GROUP: u16 = 0;

/// Buffers per worker, a power of two: more than one enter brings on Linux 6.13 and later, which is
/// 32 datagrams from each of 20 sockets. They are used in turn, so fewer of them stay warm in the
/// processor's cache.
pub(super) const COUNT: u16 = 1024;

/// Buffers that the kernel never picks, for packets that the edge makes: a frame of a full
/// conference and what else one duty cycle brings. When none is left such a packet is dropped.
pub(super) const SPARE: u16 = 2048;

/// All buffers; the spare ones have the higher ids.
pub(super) const TOTAL: u16 = COUNT + SPARE;

/// Bytes of one buffer: an Ethernet frame's datagram, what the kernel puts before it, and room.
const LEN: usize = 2048;

/// Bytes of `struct io_uring_recvmsg_out`, which the kernel writes first.
const NAME_OFFSET: usize = 16;

/// Room for the larger of the two socket addresses.
pub(super) const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();

/// Where the datagram begins.
const PAYLOAD_OFFSET: usize = NAME_OFFSET + NAME_LEN;

const PAGE_LEN: usize = 4096;
const ENTRIES_LEN: usize = COUNT as usize * size_of::<BufRingEntry>();
const REGION_LEN: usize = ENTRIES_LEN + TOTAL as usize * LEN;

const _: () = {
    assert!(COUNT.is_power_of_two());
    assert!(ENTRIES_LEN.is_multiple_of(LEN));
    assert!(size_of::<BufRingEntry>() == 16);
    assert!(NAME_LEN == 28);
    assert!(PAYLOAD_OFFSET + PACKET_ROOM == LEN);
};

/// What the kernel wrote before the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) source: SocketAddr,
    /// The datagram was longer than the buffer.
    pub(super) truncated: bool,
}

pub(super) struct BufferRing {
    /// Entries, then buffers; [`REGION_LEN`] bytes, page-aligned.
    region: NonNull<u8>,
    /// Entries ever published, modulo 2^16.
    tail: u16,
    /// Buffers that the kernel can pick.
    available: u16,
    /// Ids of the spare buffers that nobody owns.
    spare: Vec<u16>,
}

impl BufferRing {
    /// Allocates the buffers and registers them.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        // SAFETY: the layout has a size other than 0.
        let region = unsafe { alloc_zeroed(layout()) };
        let Some(region) = NonNull::new(region) else {
            handle_alloc_error(layout());
        };
        let mut ring = Self {
            region,
            tail: 0,
            available: 0,
            spare: (COUNT..TOTAL).collect(),
        };
        for id in 0..COUNT {
            ring.publish(id);
        }
        // SAFETY: the entries lie at the start of the region, page-aligned, COUNT of them; the
        // region is freed only in `drop`, and the tier drops the io_uring before the buffers.
        unsafe {
            submitter.register_buf_ring_with_flags(region.as_ptr() as u64, COUNT, GROUP, 0)?;
        }
        Ok(ring)
    }

    /// Takes over the buffer that a completion names, and reads what the kernel wrote before the
    /// datagram. `written` is the completion's result: bytes in the buffer from its start.
    /// The source is `None` when the kernel gave none that can be read.
    pub(super) fn take(&mut self, id: u16, written: usize) -> (RxBuffer, Option<Received>) {
        self.available = self.available.saturating_sub(1);
        let len = written.clamp(PAYLOAD_OFFSET, LEN) - PAYLOAD_OFFSET;
        let buffer = RxBuffer::filled(id, len as u16);
        let received = if written < PAYLOAD_OFFSET {
            None
        } else {
            read_head(&self.bytes(&buffer)[..PAYLOAD_OFFSET])
        };
        (buffer, received)
    }

    /// The datagram, with the rest of the buffer as room to grow. An Ethernet frame's leaves more
    /// than SRTP adds.
    pub(super) fn packet_mut(&mut self, buffer: &mut RxBuffer) -> PacketBuf<'_> {
        let len = buffer.len();
        PacketBuf::new(&mut self.bytes_mut(buffer)[PAYLOAD_OFFSET..], len)
    }

    /// A spare buffer that holds `packet`; `None` when all are in use, or the packet is longer than
    /// any can hold.
    pub(super) fn fill_spare(&mut self, packet: &[u8]) -> Option<RxBuffer> {
        if packet.len() > LEN - PAYLOAD_OFFSET {
            return None;
        }
        let mut buffer = RxBuffer::filled(self.spare.pop()?, packet.len() as u16);
        let room = &mut self.bytes_mut(&mut buffer)[PAYLOAD_OFFSET..];
        room[..packet.len()].copy_from_slice(packet);
        Some(buffer)
    }

    /// Prepares `len` bytes from where the datagram began for `dest`: the pointers and lengths
    /// that a send needs. They stay valid until [`Self::give_back`].
    pub(super) fn prepare_send(
        &mut self,
        buffer: &mut RxBuffer,
        dest: SocketAddr,
        len: usize,
    ) -> PreparedSend {
        let payload_len = len.min(LEN - PAYLOAD_OFFSET);
        let bytes = self.bytes_mut(buffer);
        let (head, payload) = bytes.split_at_mut(PAYLOAD_OFFSET);
        let name = &mut head[NAME_OFFSET..];
        PreparedSend {
            dest_len: write_name(name, dest),
            dest: name.as_ptr().cast(),
            payload: payload.as_ptr(),
            payload_len: payload_len as u32,
        }
    }

    /// Hands the buffer back to the kernel, or puts it to the spare ones.
    pub(super) fn give_back(&mut self, buffer: RxBuffer) {
        match buffer.id() {
            id if id < COUNT => self.publish(id),
            id => self.spare.push(id),
        }
    }

    /// Buffers that the kernel can pick.
    pub(super) fn available(&self) -> u16 {
        self.available
    }

    fn publish(&mut self, id: u16) {
        let slot = usize::from(self.tail & (COUNT - 1));
        let address = self.buffer_ptr(id) as u64;
        // SAFETY: `slot` is below COUNT, so the entry lies inside the region. The kernel reads
        // entries from its head to the published tail only, and this one is behind the tail: at
        // most COUNT buffers exist, each published once at a time. Entry 0 shares its last two
        // bytes with the tail, and the setters do not write those.
        unsafe {
            let entry = &mut *self.region.as_ptr().cast::<BufRingEntry>().add(slot);
            entry.set_addr(address);
            entry.set_len(LEN as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
        // SAFETY: the tail is a u16 inside entry 0, aligned, valid as long as the region; the
        // kernel only reads it.
        let tail = unsafe {
            let first = self.region.as_ptr().cast::<BufRingEntry>();
            AtomicU16::from_ptr(BufRingEntry::tail(first).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }

    fn buffer_ptr(&self, id: u16) -> *mut u8 {
        let index = usize::from(id.min(TOTAL - 1));
        // SAFETY: `index` is below TOTAL, so the offset lies inside the region.
        unsafe { self.region.as_ptr().add(ENTRIES_LEN + index * LEN) }
    }

    fn bytes(&self, buffer: &RxBuffer) -> &[u8] {
        // SAFETY: LEN bytes from there lie inside the region and were zeroed or written by the
        // kernel. The kernel does not write to a buffer that it has completed, and the RxBuffer
        // is the only one for this id until it is given back.
        unsafe { std::slice::from_raw_parts(self.buffer_ptr(buffer.id()), LEN) }
    }

    fn bytes_mut(&mut self, buffer: &mut RxBuffer) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut RxBuffer` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.buffer_ptr(buffer.id()), LEN) }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `register`.
        unsafe { dealloc(self.region.as_ptr(), layout()) }
    }
}

/// Pointers into a buffer, for a send.
pub(super) struct PreparedSend {
    pub(super) payload: *const u8,
    pub(super) payload_len: u32,
    pub(super) dest: *const libc::sockaddr,
    pub(super) dest_len: libc::socklen_t,
}

fn layout() -> Layout {
    Layout::from_size_align(REGION_LEN, PAGE_LEN).expect("a power of two and a size below isize")
}

/// `struct io_uring_recvmsg_out`: namelen, controllen, payloadlen, flags; then the name.
fn read_head(head: &[u8]) -> Option<Received> {
    let name_len = u32::from_ne_bytes(*head.first_chunk()?) as usize;
    let flags = u32::from_ne_bytes(*head.get(12..)?.first_chunk()?);
    let name = head.get(NAME_OFFSET..)?.get(..name_len)?;
    Some(Received {
        source: read_name(name)?,
        truncated: flags & libc::MSG_TRUNC as u32 != 0,
    })
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some((IpAddr::from(octets), port).into())
        }
        libc::AF_INET6 => {
            let flowinfo = u32::from_ne_bytes(*name.get(4..)?.first_chunk()?);
            let octets: [u8; 16] = *name.get(8..)?.first_chunk()?;
            let scope_id = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            let ip = Ipv6Addr::from(octets);
            Some(SocketAddrV6::new(ip, port, flowinfo, scope_id).into())
        }
        _ => None,
    }
}

/// Writes `addr` as the kernel wants it and returns its length. `name` is [`NAME_LEN`] bytes long.
fn write_name(name: &mut [u8], addr: SocketAddr) -> libc::socklen_t {
    let mut put = |at: usize, bytes: &[u8]| name[at..at + bytes.len()].copy_from_slice(bytes);
    put(2, &addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(addr) => {
            put(0, &(libc::AF_INET as u16).to_ne_bytes());
            put(4, &Ipv4Addr::octets(addr.ip()));
            put(8, &[0; 8]);
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(addr) => {
            put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
            put(4, &addr.flowinfo().to_ne_bytes());
            put(8, &addr.ip().octets());
            put(24, &addr.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        for text in [
            "192.0.2.7:30000",
            "[2001:db8::7]:30000",
            "[fe80::1%3]:65535",
        ] {
            let addr: SocketAddr = text.parse().expect("an address");
            let mut name = [0xff; NAME_LEN];
            let len = write_name(&mut name, addr) as usize;
            assert_eq!(read_name(&name[..len]), Some(addr));
        }
    }

    #[test]
    fn head_that_is_cut_or_of_another_family_has_no_source() {
        let mut head = [0; PAYLOAD_OFFSET];
        assert_eq!(read_head(&head), None, "no name at all");
        head[0] = 16;
        head[16] = libc::AF_UNIX as u8;
        assert_eq!(read_head(&head), None, "a name of another family");
        head[0] = 200;
        assert_eq!(read_head(&head), None, "a name longer than its field");
        head[0] = 16;
        head[16] = libc::AF_INET as u8;
        assert!(read_head(&head).is_some());
        assert_eq!(read_head(&head[..20]), None);
    }
}
