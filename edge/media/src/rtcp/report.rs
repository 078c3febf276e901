//! RTCP that is read and made for our own sake: RFC 3550 §6.4 to §6.6.

use trunkline_edge_api::Ssrc;

use super::walk::{PacketType, next_word, packet_at, read_u32};
use super::{HEADER_AND_SSRC_LEN, REPORT_BLOCK_LEN, SDES_CNAME, SENDER_INFO_LEN, cname};

/// Bytes of our canonical name: 64 random bits in hexadecimal (RFC 7022 §4.2 asks for 96 where
/// they must be unique worldwide; these tell two legs of one session apart).
const CNAME_LEN: usize = 16;

/// A report block of an SR or RR (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// Whose packets it is about.
    pub about: Ssrc,
    /// Share lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Lost in all: 24 bits, negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest_sequence: u32,
    /// Interarrival jitter in RTP time units.
    pub jitter: u32,
    /// Middle 32 bits of the last SR's NTP time; 0 when there was none.
    pub last_sr: u32,
    /// Time since that SR came, in 65536ths of a second.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    /// Middle 32 bits of an NTP time, as LSR carries them.
    #[must_use]
    pub const fn middle(ntp: u64) -> u32 {
        (ntp >> 16) as u32
    }

    fn read(bytes: &[u8], at: usize) -> Self {
        let loss = read_u32(bytes, at + 4);
        Self {
            about: Ssrc(read_u32(bytes, at)),
            fraction_lost: (loss >> 24) as u8,
            // Sign-extended from 24 bits.
            cumulative_lost: (loss << 8).cast_signed() >> 8,
            highest_sequence: read_u32(bytes, at + 8),
            jitter: read_u32(bytes, at + 12),
            last_sr: read_u32(bytes, at + 16),
            delay_since_last_sr: read_u32(bytes, at + 20),
        }
    }

    fn words(&self) -> [u32; 6] {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff);
        [
            self.about.0,
            u32::from(self.fraction_lost) << 24 | lost.cast_unsigned() & 0xff_ffff,
            self.highest_sequence,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ]
    }
}

/// Calls `block` with every report block of a validated compound that is about `about`, and
/// `sender_report` with the NTP middle of every sender report.
pub fn read(
    compound: &[u8],
    about: Ssrc,
    mut block: impl FnMut(&ReportBlock),
    mut sender_report: impl FnMut(u32),
) {
    let mut at = 0;
    while let Some(part) = packet_at(compound, at) {
        at = part.end;
        let blocks = match part.packet_type {
            PacketType::SenderReport => {
                sender_report(read_u32(compound, part.start + 10));
                part.start + HEADER_AND_SSRC_LEN + SENDER_INFO_LEN
            }
            PacketType::ReceiverReport => part.start + HEADER_AND_SSRC_LEN,
            _ => continue,
        };
        for n in 0..usize::from(part.count) {
            let read = ReportBlock::read(compound, blocks + n * REPORT_BLOCK_LEN);
            if read.about == about {
                block(&read);
            }
        }
    }
}

/// NTP middle of the sender report that a compound begins with, if it does.
#[must_use]
pub fn leading_sender_report(compound: &[u8]) -> Option<u32> {
    let part = packet_at(compound, 0)?;
    (part.packet_type == PacketType::SenderReport).then(|| read_u32(compound, part.start + 10))
}

/// What an SR says of its sender (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP time of the report.
    pub ntp: u64,
    /// RTP time of the same moment.
    pub rtp_time: u32,
    /// RTP packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// A compound of our own: SR or RR, SDES with the canonical name, and BYE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// SSRC of the leg.
    pub own: Ssrc,
    /// `None` makes it an RR.
    pub sender: Option<SenderInfo>,
    /// What is said of the peer.
    pub block: Option<ReportBlock>,
    /// Whether the leg leaves (RFC 3550 §6.6).
    pub goodbye: bool,
}

impl Report {
    /// Bytes of the longest: SR with a block, SDES, BYE.
    pub const LEN_MAX: usize = 52 + 28 + 8;

    /// Writes the compound to the front of `out` and returns its length.
    pub fn write(&self, out: &mut [u8; Self::LEN_MAX]) -> usize {
        out.fill(0);
        let mut len = HEADER_AND_SSRC_LEN;
        let mut put = |out: &mut [u8; Self::LEN_MAX], word: u32| {
            out[len..len + 4].copy_from_slice(&word.to_be_bytes());
            len += 4;
        };
        if let Some(sender) = self.sender {
            put(out, (sender.ntp >> 32) as u32);
            put(out, sender.ntp as u32);
            put(out, sender.rtp_time);
            put(out, sender.packets);
            put(out, sender.octets);
        }
        for word in self.block.iter().flat_map(ReportBlock::words) {
            put(out, word);
        }
        let packet_type = match self.sender {
            Some(_) => PacketType::SenderReport,
            None => PacketType::ReceiverReport,
        };
        self.head(out, 0, len, packet_type, u8::from(self.block.is_some()));

        let start = len;
        let text = start + HEADER_AND_SSRC_LEN + 2;
        out[text - 2] = SDES_CNAME;
        out[text - 1] = CNAME_LEN as u8;
        for (byte, digit) in out[text..text + CNAME_LEN].iter_mut().zip(cname(self.own)) {
            *byte = digit;
        }
        // One null byte at least ends the items.
        let mut len = next_word(text + CNAME_LEN + 1);
        self.head(out, start, len, PacketType::SourceDescription, 1);

        if self.goodbye {
            let start = len;
            len += HEADER_AND_SSRC_LEN;
            self.head(out, start, len, PacketType::Goodbye, 1);
        }
        len
    }

    fn head(
        &self,
        out: &mut [u8; Self::LEN_MAX],
        start: usize,
        end: usize,
        packet_type: PacketType,
        count: u8,
    ) {
        let words_less_one = ((end - start) / 4 - 1) as u16;
        out[start] = 0x80 | count;
        out[start + 1] = packet_type.code();
        out[start + 2..start + 4].copy_from_slice(&words_less_one.to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&self.own.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::validate;
    use super::*;

    fn arb_report() -> impl Strategy<Value = Report> {
        let sender = prop::option::of(any::<(u64, u32, u32, u32)>());
        let block = prop::option::of(any::<(u32, u8, u32, u32, u32, u32)>());
        (
            any::<u32>(),
            sender,
            block,
            -0x80_0000..0x7f_ffff,
            any::<bool>(),
        )
            .prop_map(|(own, sender, block, cumulative_lost, goodbye)| Report {
                own: Ssrc(own),
                sender: sender.map(|(ntp, rtp_time, packets, octets)| SenderInfo {
                    ntp,
                    rtp_time,
                    packets,
                    octets,
                }),
                block: block.map(|(about, fraction_lost, highest, jitter, lsr, dlsr)| {
                    ReportBlock {
                        about: Ssrc(about),
                        fraction_lost,
                        cumulative_lost,
                        highest_sequence: highest,
                        jitter,
                        last_sr: lsr,
                        delay_since_last_sr: dlsr,
                    }
                }),
                goodbye,
            })
    }

    proptest! {
        #[test]
        fn what_is_made_is_valid_and_reads_as_it_was_meant(report in arb_report()) {
            let mut out = [0xee; Report::LEN_MAX];
            let len = report.write(&mut out);
            let compound = &out[..len];
            prop_assert!(validate(compound).is_ok());
            let middle = report.sender.map(|sender| ReportBlock::middle(sender.ntp));
            prop_assert_eq!(leading_sender_report(compound), middle);
            let about = report.block.map_or(Ssrc(0), |block| block.about);
            let (mut blocks, mut senders) = (Vec::new(), Vec::new());
            read(compound, about, |block| blocks.push(*block), |sr| senders.push(sr));
            prop_assert_eq!(blocks, Vec::from_iter(report.block));
            prop_assert_eq!(senders, Vec::from_iter(middle));
        }
    }

    /// RFC 3550 §6.4.1, §6.5, §6.6, laid out by hand.
    #[test]
    fn receiver_report_with_goodbye_has_the_bytes_of_the_rfc() {
        let report = Report {
            own: Ssrc(0x0102_0304),
            sender: None,
            block: Some(ReportBlock {
                about: Ssrc(0x0a0b_0c0d),
                fraction_lost: 0x40,
                cumulative_lost: -2,
                highest_sequence: 0x0001_0203,
                jitter: 7,
                last_sr: 0x1122_3344,
                delay_since_last_sr: 0x0001_8000,
            }),
            goodbye: true,
        };
        let mut out = [0; Report::LEN_MAX];
        let len = report.write(&mut out);
        assert_eq!(
            out[..32],
            [
                0x81, 201, 0, 7, 1, 2, 3, 4, // RR, one block
                0x0a, 0x0b, 0x0c, 0x0d, 0x40, 0xff, 0xff, 0xfe, // about, fraction, lost
                0, 1, 2, 3, 0, 0, 0, 7, 0x11, 0x22, 0x33, 0x44, 0, 1, 0x80, 0,
            ]
        );
        assert_eq!(out[32..42], [0x81, 202, 0, 6, 1, 2, 3, 4, 1, 16]);
        assert_eq!(out[58..60], [0, 0]);
        assert_eq!(out[60..len], [0x81, 203, 0, 1, 1, 2, 3, 4]);
    }
}
