//! SRTP alone: what protecting and opening one packet costs per suite, without the kernel and
//! without a session around it, beside the bare primitives of the suites in the same run. Times by
//! criterion (for comparison between two builds), and a report of nanoseconds and allocations per
//! packet in `bench/results/srtp.*`.

use std::hint::black_box;

use aes::Aes128Enc;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use serde_json::json;
use sha1::compress;
use sha1::digest::block_buffer::EagerBuffer;
use sha1::digest::consts::U64;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::Ssrc;
use trunkline_edge_api::crypto::{SrtpKey, SrtpSuite};
use trunkline_media::PacketBuf;
use trunkline_media::srtp::{OVERHEAD_MAX, OpenContext, SealContext};

mod per_packet;

use per_packet::{BURST, PerPacket};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Bytes of a bare RTP header.
const HEADER_LEN: usize = 12;
/// 20 ms of G.711 behind it.
const RTP_LEN: usize = HEADER_LEN + 160;
/// Bytes of a SHA-1 block.
const BLOCK_LEN: usize = 64;
/// Bytes of a GCM tag.
const TAG_LEN: usize = 16;

const SSRC: Ssrc = Ssrc(0xfeed_beef);

/// Nanoseconds per packet that the specification allows to protect one.
fn target_nanos(suite: SrtpSuite) -> u32 {
    match suite {
        SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => 90,
        _ => 170,
    }
}

type Buffer = [u8; RTP_LEN + OVERHEAD_MAX];
const _: () = assert!(RTP_LEN + OVERHEAD_MAX == 3 * BLOCK_LEN);

/// What is done with each packet.
enum Work {
    Protect(Box<SealContext>),
    Open {
        seal: Box<SealContext>,
        open: Box<OpenContext>,
    },
    /// The hashing of an HMAC-SHA1.
    BareHash,
    /// AES-128 in counter mode over the payload, and the same hashing.
    BareCounterMode(Box<Aes128Enc>),
    /// AES-128-GCM.
    BareGcm(LessSafeKey),
}

struct Case {
    name: String,
    target: Option<u32>,
    work: Work,
    packets: Vec<(Buffer, usize)>,
    sequence: u16,
}

impl Case {
    fn new(name: String, target: Option<u32>, work: Work) -> Self {
        Self {
            name,
            target,
            work,
            packets: vec![([0xd5; RTP_LEN + OVERHEAD_MAX], RTP_LEN); BURST],
            sequence: 0,
        }
    }
}

fn key(suite: SrtpSuite) -> SrtpKey {
    let len = suite.key_len() + suite.salt_len();
    let bytes: Vec<u8> = (0..len).map(|n| (n * 29) as u8).collect();
    SrtpKey::new(suite, &bytes).expect("the suite's length")
}

fn cases() -> impl Iterator<Item = Case> {
    let suites = SrtpSuite::ALL.into_iter().flat_map(|suite| {
        let seal = || Box::new(SealContext::new(suite, &key(suite), SSRC));
        let open = Box::new(OpenContext::new(suite, &key(suite)));
        let name = suite.sdes_name();
        [
            Case::new(
                format!("{name}, protect"),
                Some(target_nanos(suite)),
                Work::Protect(seal()),
            ),
            Case::new(
                format!("{name}, open"),
                None,
                Work::Open { seal: seal(), open },
            ),
        ]
    });
    let aes = Aes128Enc::new(GenericArray::from_slice(&[7; 16]));
    let gcm = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes");
    let bare = [
        Case::new("bare SHA-1, four blocks".to_owned(), None, Work::BareHash),
        Case::new(
            "bare AES-128-CTR, then SHA-1".to_owned(),
            None,
            Work::BareCounterMode(Box::new(aes)),
        ),
        Case::new(
            "bare AES-128-GCM".to_owned(),
            None,
            Work::BareGcm(LessSafeKey::new(gcm)),
        ),
    ];
    suites.chain(bare)
}

impl PerPacket for Case {
    fn name(&self) -> &str {
        &self.name
    }

    /// Writes the next headers, and seals what is to be opened.
    fn arrive(&mut self) {
        for (packet, len) in &mut self.packets {
            self.sequence = self.sequence.wrapping_add(1);
            packet[..2].copy_from_slice(&[0x80, 0]);
            packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            packet[8..HEADER_LEN].copy_from_slice(&SSRC.0.to_be_bytes());
            *len = RTP_LEN;
            if let Work::Open { seal, .. } = &mut self.work {
                let mut buf = PacketBuf::new(packet, RTP_LEN);
                seal.seal_rtp(&mut buf).expect("a new number");
                *len = buf.len();
            }
        }
        black_box(&mut self.packets);
    }

    fn take(&mut self) -> usize {
        let packets = &mut self.packets;
        match &mut self.work {
            Work::Protect(seal) => each(packets, |packet, len| {
                seal.seal_rtp(&mut PacketBuf::new(packet, len)).is_ok()
            }),
            Work::Open { open, .. } => each(packets, |packet, len| {
                open.open_rtp(&mut PacketBuf::new(packet, len)).is_ok()
            }),
            Work::BareHash => each(packets, |packet, _| {
                black_box(bare_hash(packet));
                true
            }),
            Work::BareCounterMode(aes) => each(packets, |packet, _| {
                bare_key_stream(aes, packet);
                black_box(bare_hash(packet));
                true
            }),
            Work::BareGcm(key) => each(packets, |packet, _| bare_gcm(key, packet)),
        }
    }
}

#[inline]
fn each(
    packets: &mut [(Buffer, usize)],
    mut work: impl FnMut(&mut Buffer, usize) -> bool,
) -> usize {
    let done = packets.iter_mut().map(|(packet, len)| work(packet, *len));
    done.filter(|&is_done| black_box(is_done)).count()
}

fn bare_key_stream(aes: &Aes128Enc, packet: &mut Buffer) {
    let mut counter = [0; 16];
    counter[..HEADER_LEN].copy_from_slice(&packet[..HEADER_LEN]);
    CtrCore::<&Aes128Enc, Ctr128BE>::inner_iv_init(aes, GenericArray::from_slice(&counter))
        .apply_keystream_partial((&mut packet[HEADER_LEN..RTP_LEN]).into());
}

/// The four blocks of an HMAC whose keyed states are kept: three that the packet and its rollover
/// counter fill, and the outer one.
fn bare_hash(packet: &Buffer) -> [u32; 5] {
    let mut state = [0; 5];
    EagerBuffer::<U64>::default().digest_blocks(packet, |blocks| compress(&mut state, blocks));
    let mut outer = GenericArray::<u8, U64>::default();
    outer[0] = state[0] as u8;
    compress(&mut state, std::slice::from_ref(&outer));
    state
}

fn bare_gcm(key: &LessSafeKey, packet: &mut Buffer) -> bool {
    let (header, rest) = packet.split_at_mut(HEADER_LEN);
    let (payload, rest) = rest.split_at_mut(RTP_LEN - HEADER_LEN);
    let nonce: [u8; HEADER_LEN] = std::array::from_fn(|n| header[n]);
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_scatter(nonce, Aad::from(header), payload, &[], &mut rest[..TAG_LEN])
        .is_ok()
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "srtp",
        "SRTP: one packet protected or opened",
        &[
            "case",
            "ns/packet",
            "best batch",
            "target",
            "allocations/packet",
        ],
    );
    for mut case in cases() {
        let figures = per_packet::measure(&mut case, &ALLOCATOR);
        let target = case
            .target
            .map_or("-".to_owned(), |nanos| format!("<= {nanos}"));
        report.rows.push(vec![
            json!(case.name),
            json!(figures.median),
            json!(figures.best),
            json!(target),
            json!(figures.allocations),
        ]);
    }
    report.method = vec![format!(
        "`SealContext::seal_rtp` and `OpenContext::open_rtp` on {RTP_LEN}-byte RTP packets (160 of payload) in memory, in place, one thread, bench profile (release, fat LTO)."
    )];
    report.method.extend(per_packet::method());
    report.method.push(
        "The bare rows do what the suites cannot do without (key stream and hash, or GCM) on the same packets in the same run, with the same crates, and nothing else: what SRTP adds is the difference, and on a slower core both grow."
            .to_owned(),
    );
    report.publish()
}

fn main() {
    per_packet::compare("srtp", cases());
    if per_packet::is_measuring() {
        report().expect("bench/results is writable");
    }
}
