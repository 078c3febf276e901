//! A DNS server on a loopback port that knows what a test tells it.
//!
//! It answers A, AAAA, SRV and NAPTR over UDP (RFC 1035, 2782, 3403); what it was not told of does
//! not exist, for as long as the zone says. Its records may change while it runs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// How long an absent name stays absent, seconds.
const NEGATIVE_TTL_SECS: u32 = 60;

/// A record's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Share among those of one priority.
        weight: u16,
        /// Port of the service.
        port: u16,
        /// Its host.
        target: String,
    },
    /// NAPTR with the flag `s`.
    Naptr {
        /// Lower is looked at first.
        order: u16,
        /// Lower is better.
        preference: u16,
        /// Say `SIP+D2U`.
        service: String,
        /// The name of the SRV records.
        replacement: String,
    },
}

impl Record {
    /// Its type's number.
    fn kind(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Address(IpAddr::V6(_)) => 28,
            Self::Srv { .. } => 33,
            Self::Naptr { .. } => 35,
        }
    }

    fn data(&self) -> Vec<u8> {
        let numbers =
            |numbers: &[u16]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => [numbers(&[*priority, *weight, *port]), name(target)].concat(),
            Self::Naptr {
                order,
                preference,
                service,
                replacement,
            } => [
                numbers(&[*order, *preference]),
                text("s"),
                text(service),
                text(""),
                name(replacement),
            ]
            .concat(),
        }
    }
}

/// Names in lower case, with the lifetime of their records.
type Zone = HashMap<String, (u32, Vec<Record>)>;

#[derive(Debug, Default)]
struct Shared {
    zone: Mutex<Zone>,
    asked: Mutex<Vec<(String, u16)>>,
    is_silent: AtomicBool,
    is_stopped: AtomicBool,
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(&socket, &of_thread));
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts `records` in place of all that `name` had; none make it an absent name.
    pub fn set(&self, name: &str, ttl_secs: u32, records: &[Record]) {
        let entry = (ttl_secs, records.to_vec());
        lock(&self.shared.zone).insert(name.to_ascii_lowercase(), entry);
    }

    /// Whether questions are left unanswered from now on.
    pub fn set_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// How often `name` was asked about so far, whatever was asked.
    #[must_use]
    pub fn asked_count(&self, name: &str) -> usize {
        let asked = lock(&self.shared.asked);
        asked.iter().filter(|(other, _)| other == name).count()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 1_500];
    while !shared.is_stopped.load(Ordering::Relaxed) {
        let Ok((len, source)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some((name, kind, question_end)) = question(&buffer[..len]) else {
            continue;
        };
        lock(&shared.asked).push((name.clone(), kind));
        if shared.is_silent.load(Ordering::Relaxed) {
            continue;
        }
        let answer = answer(&buffer[..question_end], &name, kind, &lock(&shared.zone));
        // The asker may be gone.
        let _ = socket.send_to(&answer, source);
    }
}

/// The one question of a message: its name in lower case, its type, and where it ends.
fn question(message: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = message.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn answer(question: &[u8], asked: &str, kind: u16, zone: &Zone) -> Vec<u8> {
    let known = zone.get(asked).filter(|(_, records)| !records.is_empty());
    let (ttl_secs, records) = known.cloned().unwrap_or_default();
    let fitting = records.iter().filter(|record| record.kind() == kind);
    let mut body: Vec<u8> = Vec::new();
    let mut count = 0_u16;
    for record in fitting {
        push_record(&mut body, asked, record.kind(), ttl_secs, &record.data());
        count += 1;
    }
    let mut message = question.to_vec();
    // A response with authority; NXDOMAIN where the name does not exist.
    message[2] = 0x84 | (question[2] & 1);
    message[3] = if known.is_some() { 0 } else { 3 };
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message[8..10].copy_from_slice(&u16::from(count == 0).to_be_bytes());
    message[10..12].copy_from_slice(&[0, 0]);
    message.extend_from_slice(&body);
    if count == 0 {
        // RFC 2308 §3: the SOA record says for how long the absence holds.
        let mut soa = [name("ns.test"), name("admin.test")].concat();
        for number in [1, 60, 60, 60, NEGATIVE_TTL_SECS] {
            soa.extend_from_slice(&number.to_be_bytes());
        }
        push_record(&mut message, asked, 6, NEGATIVE_TTL_SECS, &soa);
    }
    message
}

fn push_record(out: &mut Vec<u8>, owner: &str, kind: u16, ttl_secs: u32, data: &[u8]) {
    out.extend_from_slice(&name(owner));
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl_secs.to_be_bytes());
    let len = u16::try_from(data.len()).expect("a short record");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
}

/// A name as labels, uncompressed.
fn name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    labels.flat_map(text).chain([0]).collect()
}

/// A length and so many bytes.
fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("below 256 bytes");
    std::iter::once(len).chain(text.bytes()).collect()
}
