//! RTP endpoints (RFC 3550) that send paced speech and record every packet they hear.
//!
//! A [`MediaHub`] serves all endpoints of a process with two threads, one that receives and one
//! that sends, so that a hundred calls cost two threads and not four hundred. A sender follows
//! the absolute times `start + n · 20 ms`: a late wake-up makes one packet late, never the rest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::speech::{FRAME_LEN, Speech};
use crate::srtp::Protection;

mod compare;
mod packet;

pub use compare::{Heard, compare};
pub use packet::{PacketHeader, RTP_HEADER_LEN};

/// Packetisation time of everything sent here (RFC 3551 §4.2 recommends it).
pub const PTIME: Duration = Duration::from_millis(20);

/// Socket buffers, so that a busy test machine loses nothing before the receiving thread runs.
/// The kernel caps it at `net.core.rmem_max`.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// An RTP packet as it was sent.
#[derive(Debug, Clone)]
pub struct SentPacket {
    /// Its header.
    pub header: PacketHeader,
    /// Its payload.
    pub payload: Vec<u8>,
    /// All of it as it went over the wire.
    pub datagram: Vec<u8>,
    /// When it was handed to the kernel.
    pub at: Instant,
}

/// An RTP packet as it was heard.
#[derive(Debug, Clone)]
pub struct ReceivedPacket {
    /// Its header.
    pub header: PacketHeader,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Who sent it.
    pub from: SocketAddr,
    /// When it was read from the socket.
    pub at: Instant,
}

/// The threads behind the endpoints. Cloning gives another handle; the threads end with the last.
#[derive(Clone)]
pub struct MediaHub {
    shared: Arc<HubShared>,
    _threads: Arc<HubThreads>,
}

struct HubShared {
    epoll: std::os::fd::OwnedFd,
    endpoints: Mutex<HashMap<u64, Arc<EndpointShared>>>,
    next_id: AtomicU64,
    agenda: Mutex<BinaryHeap<Reverse<(Instant, u64)>>>,
    agenda_changed: Condvar,
    stopping: AtomicBool,
}

struct HubThreads {
    shared: Arc<HubShared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for HubThreads {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.agenda_changed.notify_all();
        for handle in lock(&self.handles).drain(..) {
            // A panic there was already printed; what the endpoints recorded stands.
            let _ = handle.join();
        }
    }
}

impl MediaHub {
    /// Starts the two threads.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(HubShared {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            endpoints: Mutex::default(),
            next_id: AtomicU64::new(0),
            agenda: Mutex::default(),
            agenda_changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let receiver = Arc::clone(&shared);
        let sender = Arc::clone(&shared);
        let handles = vec![
            std::thread::Builder::new()
                .name("rtp-receive".into())
                .spawn(move || receiver.receive_loop())?,
            std::thread::Builder::new()
                .name("rtp-send".into())
                .spawn(move || sender.send_loop())?,
        ];
        let threads = HubThreads {
            shared: Arc::clone(&shared),
            handles: Mutex::new(handles),
        };
        Ok(Self {
            shared,
            _threads: Arc::new(threads),
        })
    }

    /// Binds an endpoint: an even RTP port and the odd one above it for RTCP (RFC 3550 §11).
    pub fn endpoint(&self, ip: IpAddr) -> io::Result<RtpEndpoint> {
        let (socket, rtcp) = bind_pair(ip)?;
        socket.set_nonblocking(true)?;
        rtcp.set_nonblocking(true)?;
        // Best effort: a smaller buffer only matters under load.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let endpoint = Arc::new(EndpointShared {
            local: socket.local_addr()?,
            socket,
            rtcp,
            record: Mutex::default(),
            protection: Mutex::default(),
            finished: Condvar::new(),
        });
        lock(&self.shared.endpoints).insert(id, Arc::clone(&endpoint));
        epoll::add(
            &self.shared.epoll,
            &endpoint.socket,
            epoll::EventData::new_u64(id),
            epoll::EventFlags::IN,
        )?;
        Ok(RtpEndpoint {
            id,
            shared: endpoint,
            hub: self.clone(),
        })
    }
}

impl HubShared {
    fn receive_loop(&self) {
        let mut events = Vec::with_capacity(64);
        let mut buffer = vec![0u8; 2048];
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        while !self.stopping.load(Ordering::Relaxed) {
            events.clear();
            let waited = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            );
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("epoll_wait on the media sockets: {error}"),
            }
            for event in &events {
                let id = event.data.u64();
                let Some(endpoint) = lock(&self.endpoints).get(&id).cloned() else {
                    continue;
                };
                endpoint.drain(&mut buffer);
            }
        }
    }

    fn send_loop(&self) {
        let mut agenda = lock(&self.agenda);
        while !self.stopping.load(Ordering::Relaxed) {
            let now = Instant::now();
            match agenda.peek().copied() {
                Some(Reverse((due, id))) if due <= now => {
                    agenda.pop();
                    drop(agenda);
                    let endpoint = lock(&self.endpoints).get(&id).cloned();
                    let next = endpoint.and_then(|endpoint| endpoint.send_next(due));
                    agenda = lock(&self.agenda);
                    agenda.extend(next.map(|due| Reverse((due, id))));
                }
                Some(Reverse((due, _))) => {
                    agenda = wait(&self.agenda_changed, agenda, due - now);
                }
                None => {
                    agenda = wait(&self.agenda_changed, agenda, Duration::from_millis(100));
                }
            }
        }
    }
}

/// A pair of UDP ports that speaks and listens.
pub struct RtpEndpoint {
    id: u64,
    shared: Arc<EndpointShared>,
    hub: MediaHub,
}

struct EndpointShared {
    local: SocketAddr,
    socket: UdpSocket,
    rtcp: UdpSocket,
    record: Mutex<Record>,
    /// Taken after `record` where both are.
    protection: Mutex<Option<Protection>>,
    finished: Condvar,
}

#[derive(Default)]
struct Record {
    sent: Vec<SentPacket>,
    received: Vec<ReceivedPacket>,
    rtcp: Vec<Vec<u8>>,
    unparsable: usize,
    send_errors: usize,
    stream: Option<Stream>,
}

/// What an endpoint is in the middle of saying.
struct Stream {
    remote: SocketAddr,
    source: Source,
    frame_index: usize,
    frames_left: usize,
    next: PacketHeader,
}

/// Where a stream's payloads come from.
enum Source {
    Speech(Speech),
    /// Payloads of 20 ms, from the first again after the last, and what the timestamp rises by.
    Payloads(Arc<[Vec<u8>]>, u32),
}

impl Source {
    fn payload(&self, index: usize) -> &[u8] {
        match self {
            Self::Speech(speech) => speech.frame(index),
            Self::Payloads(payloads, _) => &payloads[index % payloads.len()],
        }
    }

    fn timestamp_step(&self) -> u32 {
        match self {
            Self::Speech(_) => FRAME_LEN as u32,
            Self::Payloads(_, step) => *step,
        }
    }
}

impl RtpEndpoint {
    /// Where it listens for RTP.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Begins to send `frames` frames of `speech` to `remote` as `payload_type`, one every
    /// [`PTIME`], under a random SSRC and random first sequence number and timestamp (RFC 3550
    /// §5.1). A stream already running is replaced.
    pub fn speak(&self, remote: SocketAddr, payload_type: u8, speech: Speech, frames: usize) {
        self.begin(remote, payload_type, Source::Speech(speech), frames);
    }

    /// The same with payloads of another codec, of 20 ms each, which begin again after the last;
    /// each raises the timestamp by `timestamp_step`.
    pub fn send_payloads(
        &self,
        remote: SocketAddr,
        payload_type: u8,
        (payloads, timestamp_step): (&[Vec<u8>], u32),
        frames: usize,
    ) {
        assert!(!payloads.is_empty(), "nothing to send");
        let source = Source::Payloads(payloads.into(), timestamp_step);
        self.begin(remote, payload_type, source, frames);
    }

    fn begin(&self, remote: SocketAddr, payload_type: u8, source: Source, frames: usize) {
        let mut seed = [0u8; 10];
        getrandom::fill(&mut seed).expect("the kernel has entropy");
        let header = PacketHeader {
            payload_type,
            marker: true,
            sequence: u16::from_be_bytes([seed[0], seed[1]]),
            timestamp: u32::from_be_bytes([seed[2], seed[3], seed[4], seed[5]]),
            ssrc: u32::from_be_bytes([seed[6], seed[7], seed[8], seed[9]]),
        };
        let was_idle = lock(&self.shared.record)
            .stream
            .replace(Stream {
                remote,
                source,
                frame_index: 0,
                frames_left: frames,
                next: header,
            })
            .is_none();
        if was_idle {
            lock(&self.hub.shared.agenda).push(Reverse((Instant::now(), self.id)));
            self.hub.shared.agenda_changed.notify_all();
        }
    }

    /// Where the running stream goes from the next packet on (a re-INVITE moved it).
    pub fn redirect(&self, remote: SocketAddr) {
        if let Some(stream) = &mut lock(&self.shared.record).stream {
            stream.remote = remote;
        }
    }

    /// Stops speaking after the packet now due.
    pub fn be_silent(&self) {
        if let Some(stream) = &mut lock(&self.shared.record).stream {
            stream.frames_left = 0;
        }
    }

    /// Waits until everything asked for was sent; false when `limit` passes first.
    #[must_use]
    pub fn wait_spoken(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut record = lock(&self.shared.record);
        while record.stream.is_some() {
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            record = wait(&self.shared.finished, record, deadline - now);
        }
        true
    }

    /// Protects what is sent from now on and believes nothing else than what is authentic; `None`
    /// ends that.
    pub fn protect(&self, protection: Option<Protection>) {
        *lock(&self.shared.protection) = protection;
    }

    /// Sends an RTCP compound from the RTP port (RFC 5761), protected if the endpoint is.
    pub fn send_rtcp(&self, to: SocketAddr, compound: &[u8]) -> io::Result<()> {
        let datagram = match &mut *lock(&self.shared.protection) {
            Some(protection) => protection
                .protect_rtcp(compound)
                .map_err(io::Error::other)?,
            None => compound.to_vec(),
        };
        self.send_raw(to, &datagram)
    }

    /// Sends one datagram as it is: for packets no honest phone would send.
    pub fn send_raw(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.shared.socket.send_to(datagram, to).map(|_| ())
    }

    /// Everything sent so far, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<SentPacket> {
        lock(&self.shared.record).sent.clone()
    }

    /// Everything heard so far, in order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<ReceivedPacket> {
        lock(&self.shared.record).received.clone()
    }

    /// Everything heard so far on the RTCP port, and the RTCP heard on the RTP port (RFC 5761).
    #[must_use]
    pub fn received_rtcp(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut record = lock(&self.shared.record);
        while let Ok(len) = self.shared.rtcp.recv(&mut buffer) {
            record.rtcp.push(buffer[..len].to_vec());
        }
        record.rtcp.clone()
    }

    /// How many packets were heard so far.
    #[must_use]
    pub fn received_count(&self) -> usize {
        lock(&self.shared.record).received.len()
    }

    /// Datagrams heard that were not RTP version 2, or not authentic where the endpoint protects.
    #[must_use]
    pub fn unparsable_count(&self) -> usize {
        lock(&self.shared.record).unparsable
    }

    /// Packets the kernel refused to send.
    #[must_use]
    pub fn send_error_count(&self) -> usize {
        lock(&self.shared.record).send_errors
    }

    /// Forgets what was sent and heard so far.
    pub fn clear(&self) {
        let mut record = lock(&self.shared.record);
        record.sent.clear();
        record.received.clear();
        record.rtcp.clear();
        record.unparsable = 0;
        record.send_errors = 0;
    }
}

impl Drop for RtpEndpoint {
    fn drop(&mut self) {
        lock(&self.hub.shared.endpoints).remove(&self.id);
        // The socket leaves the set by itself when the last reference closes it.
        let _ = epoll::delete(&self.hub.shared.epoll, &self.shared.socket);
    }
}

impl EndpointShared {
    fn drain(&self, buffer: &mut [u8]) {
        // An error is a stored ICMP answer to something sent earlier; reading on clears it.
        for _ in 0..256 {
            match self.socket.recv_from(buffer) {
                Ok((len, from)) => {
                    let at = Instant::now();
                    let datagram = &buffer[..len];
                    let is_rtcp = matches!(datagram, [first, 192..=223, ..] if first >> 6 == 2);
                    let mut record = lock(&self.record);
                    let opened = match &mut *lock(&self.protection) {
                        Some(protection) if is_rtcp => protection.open_rtcp(datagram),
                        Some(protection) => protection.open(datagram),
                        None => Ok(datagram.to_vec()),
                    };
                    let Ok(datagram) = opened else {
                        record.unparsable += 1;
                        continue;
                    };
                    if is_rtcp {
                        record.rtcp.push(datagram);
                        continue;
                    }
                    match PacketHeader::parse(&datagram) {
                        Some((header, payload)) => record.received.push(ReceivedPacket {
                            header,
                            payload: payload.to_vec(),
                            from,
                            at,
                        }),
                        None => record.unparsable += 1,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// Sends the packet that was due at `due` and tells when the next one is.
    fn send_next(&self, due: Instant) -> Option<Instant> {
        let mut record = lock(&self.record);
        let stream = record.stream.as_mut()?;
        if stream.frames_left == 0 {
            record.stream = None;
            self.finished.notify_all();
            return None;
        }
        stream.frames_left -= 1;
        let header = stream.next;
        let frame = stream.source.payload(stream.frame_index).to_vec();
        stream.frame_index += 1;
        stream.next.marker = false;
        stream.next.sequence = header.sequence.wrapping_add(1);
        stream.next.timestamp = header
            .timestamp
            .wrapping_add(stream.source.timestamp_step());
        let remote = stream.remote;
        let last = stream.frames_left == 0;

        let mut datagram = Vec::with_capacity(RTP_HEADER_LEN + frame.len());
        header.write_to(&mut datagram);
        datagram.extend_from_slice(&frame);
        if let Some(protection) = &mut *lock(&self.protection) {
            datagram = protection
                .protect(&datagram)
                .expect("a packet made here can be protected");
        }
        match self.socket.send_to(&datagram, remote) {
            Ok(_) => record.sent.push(SentPacket {
                header,
                payload: frame,
                datagram,
                at: Instant::now(),
            }),
            Err(_) => record.send_errors += 1,
        }
        if last {
            record.stream = None;
            self.finished.notify_all();
            return None;
        }
        Some(due + PTIME)
    }
}

/// Binds an even port and the one above it. The kernel picks odd ports half the time, so it takes
/// a few tries.
fn bind_pair(ip: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    let mut last_error = None;
    for _ in 0..64 {
        let rtp = UdpSocket::bind((ip, 0))?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 1 || port == u16::MAX {
            continue;
        }
        match UdpSocket::bind((ip, port + 1)) {
            Ok(rtcp) => return Ok((rtp, rtcp)),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| io::Error::other("the kernel gave only odd ports")))
}

/// The lock, also after a thread that held it panicked: the records stay worth reading then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
    condvar
        .wait_timeout(guard, limit)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::speech;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn hears_byte_for_byte_what_the_other_endpoint_says() {
        let hub = MediaHub::start().unwrap();
        let one = hub.endpoint(LOOPBACK).unwrap();
        let other = hub.endpoint(LOOPBACK).unwrap();
        one.speak(other.local_addr(), 0, speech::caller(), 50);
        assert!(one.wait_spoken(Duration::from_secs(5)));
        std::thread::sleep(Duration::from_millis(50));

        let heard = compare(&one.sent(), &other.received(), 8_000);
        assert_eq!((heard.sent, heard.received, heard.lost), (50, 50, 0));
        assert!(heard.payload_identical);
        assert_eq!(other.received()[0].from, one.local_addr());
    }

    #[test]
    fn packets_leave_every_twenty_milliseconds() {
        let hub = MediaHub::start().unwrap();
        let one = hub.endpoint(LOOPBACK).unwrap();
        let started = Instant::now();
        one.speak(one.local_addr(), 0, speech::caller(), 26);
        assert!(one.wait_spoken(Duration::from_secs(5)));
        let spent = started.elapsed();
        assert!(spent >= PTIME * 25, "25 intervals took {spent:?}");
        assert!(spent < PTIME * 40, "25 intervals took {spent:?}");
    }

    #[test]
    fn rtp_port_is_even_and_the_next_one_is_held_for_rtcp() {
        let hub = MediaHub::start().unwrap();
        let endpoint = hub.endpoint(LOOPBACK).unwrap();
        let port = endpoint.local_addr().port();
        assert_eq!(port % 2, 0);
        assert!(UdpSocket::bind((LOOPBACK, port + 1)).is_err());
    }

    #[test]
    fn datagram_that_is_not_rtp_is_counted_and_not_recorded() {
        let hub = MediaHub::start().unwrap();
        let endpoint = hub.endpoint(LOOPBACK).unwrap();
        endpoint
            .send_raw(endpoint.local_addr(), b"\x00\x01 not rtp")
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        while endpoint.unparsable_count() == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(endpoint.unparsable_count(), 1);
        assert_eq!(endpoint.received_count(), 0);
    }
}
