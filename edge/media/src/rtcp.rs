//! RTCP through a relay that sends under its own SSRCs: RFC 3550 §6, and §7.2 for what a
//! translator owes its two sides.
//!
//! What the far peer says of itself is said of the stream we send instead of it; what it reports
//! about our stream is said of the source behind that stream:
//!
//! ```text
//!   A's peer: SSRC 7                                      B's peer: SSRC 9
//!   SR  sender 7, RTP time t          ->  SR  sender <leg B>, RTP time t + offset, our counts
//!       block about <leg A>, seq s    ->      block about 9, seq s - offset
//!       block about anyone else       ->      left out
//!   SDES 7 CNAME=alice@192.168.1.5    ->  SDES <leg B> CNAME=3f62...
//!   BYE 7                             ->  BYE <leg B>
//! ```
//!
//! | packet | what becomes of it |
//! |---|---|
//! | SR, RR | translated; an SR that is not from the stream's present source has no RTP time in our stream and becomes an RR; profile extensions are left out |
//! | SDES | the CNAME item only, its text replaced: a CNAME names the user's host, which the far side is not to learn |
//! | BYE, APP | SSRC translated |
//! | generic NACK (RFC 4585 §6.2.1) | SSRCs and sequence numbers translated |
//! | everything else | left out: it holds numbers of the far stream that nothing here translates |
//!
//! The translation is made in place. It only ever shortens a compound, so what is written never
//! overtakes what is still to be read. Padding is left out. Reduced-size RTCP (RFC 5506) is
//! accepted.

use trunkline_edge_api::Ssrc;

use crate::rewrite::{OutgoingStream, mix};

pub mod report;
mod walk;

pub use walk::{MalformedRtcp, PacketType, validate};
use walk::{Packet, packet_at, read_u16, read_u32};

/// Bytes of the common header and the SSRC that follows it in all packets but SDES and BYE.
const HEADER_AND_SSRC_LEN: usize = 8;
/// Bytes of an SR's sender information, RFC 3550 §6.4.1.
const SENDER_INFO_LEN: usize = 20;
/// Bytes of a report block, RFC 3550 §6.4.1.
const REPORT_BLOCK_LEN: usize = 24;
/// SDES item type of the canonical name, RFC 3550 §6.5.1.
const SDES_CNAME: u8 = 1;
/// RTPFB format of the generic NACK, RFC 4585 §6.2.1.
const FMT_GENERIC_NACK: u8 = 1;

/// The two streams that RTCP arriving on one leg speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Translation<'a> {
    /// What the far leg sends: fed by the peer whose RTCP this is.
    pub onward: &'a OutgoingStream,
    /// What this leg sends: what the peer's report blocks are about.
    pub reported: &'a OutgoingStream,
}

/// Translates the compound `packet` in place. Returns its new length, 0 when nothing of it is for
/// the far side.
///
/// # Errors
///
/// [`MalformedRtcp`] when any part of the compound is; then `packet` is unchanged.
pub fn translate(packet: &mut [u8], translation: Translation<'_>) -> Result<usize, MalformedRtcp> {
    validate(packet)?;
    let mut writer = Writer {
        bytes: packet,
        written: 0,
        translation,
        // Whoever is not sending RTP still has an SSRC, told by its first report.
        peer: translation.onward.source(),
    };
    let mut at = 0;
    while let Some(part) = packet_at(writer.bytes, at) {
        at = part.end;
        writer.translate(part);
    }
    Ok(writer.written)
}

struct Writer<'a> {
    bytes: &'a mut [u8],
    /// Bytes of the translation so far; never beyond the part that is being read.
    written: usize,
    translation: Translation<'a>,
    /// The SSRC that stands for the peer itself.
    peer: Option<Ssrc>,
}

impl Writer<'_> {
    fn translate(&mut self, part: Packet) {
        match part.packet_type {
            PacketType::SenderReport => self.sender_report(part),
            PacketType::ReceiverReport => self.receiver_report(part),
            PacketType::SourceDescription => self.source_description(part),
            PacketType::Goodbye => self.goodbye(part),
            PacketType::App => self.app(part),
            PacketType::TransportFeedback if part.count == FMT_GENERIC_NACK => {
                self.generic_nack(part);
            }
            PacketType::TransportFeedback | PacketType::Other(_) => {}
        }
    }

    fn own(&self) -> Ssrc {
        self.translation.onward.ssrc()
    }

    fn sender_report(&mut self, part: Packet) {
        let sender = Ssrc(read_u32(self.bytes, part.start + 4));
        self.peer.get_or_insert(sender);
        let blocks = part.start + HEADER_AND_SSRC_LEN + SENDER_INFO_LEN;
        let rtp_time = read_u32(self.bytes, part.start + 16);
        let Some(rtp_time) = self.translation.onward.timestamp_sent(sender, rtp_time) else {
            self.report(
                PacketType::ReceiverReport,
                part,
                blocks,
                HEADER_AND_SSRC_LEN,
            );
            return;
        };
        let start = self.written;
        let ntp = part.start + 8..part.start + 16;
        self.bytes.copy_within(ntp, start + 8);
        self.put_u32(start + 16, rtp_time);
        self.put_u32(start + 20, self.translation.onward.packets());
        self.put_u32(start + 24, self.translation.onward.octets());
        self.report(
            PacketType::SenderReport,
            part,
            blocks,
            HEADER_AND_SSRC_LEN + SENDER_INFO_LEN,
        );
    }

    fn receiver_report(&mut self, part: Packet) {
        let sender = Ssrc(read_u32(self.bytes, part.start + 4));
        self.peer.get_or_insert(sender);
        let blocks = part.start + HEADER_AND_SSRC_LEN;
        self.report(
            PacketType::ReceiverReport,
            part,
            blocks,
            HEADER_AND_SSRC_LEN,
        );
    }

    /// Writes header and blocks of a report. `head_len` bytes precede the blocks in what is
    /// written; `blocks` is where they are read.
    fn report(&mut self, packet_type: PacketType, part: Packet, blocks: usize, head_len: usize) {
        let start = self.written;
        let mut end = start + head_len;
        let mut count = 0u8;
        for block in (0..usize::from(part.count)).map(|n| blocks + n * REPORT_BLOCK_LEN) {
            let about = Ssrc(read_u32(self.bytes, block));
            let highest = read_u32(self.bytes, block + 8);
            let Some((source, highest)) = self.behind(about, highest) else {
                continue;
            };
            self.bytes.copy_within(block..block + REPORT_BLOCK_LEN, end);
            self.put_u32(end, source.0);
            self.put_u32(end + 8, highest);
            end += REPORT_BLOCK_LEN;
            count += 1;
        }
        self.put_u32(start + 4, self.own().0);
        self.finish(packet_type, count, end);
    }

    /// Source and sequence number behind `sequence` of our stream `about`.
    fn behind(&self, about: Ssrc, sequence: u32) -> Option<(Ssrc, u32)> {
        let reported = self.translation.reported;
        if about != reported.ssrc() {
            return None;
        }
        Some((reported.source()?, reported.sequence_received(sequence)?))
    }

    fn source_description(&mut self, part: Packet) {
        let mut chunk = part.start + 4;
        let mut cname_len = None;
        for _ in 0..part.count {
            let ssrc = Ssrc(read_u32(self.bytes, chunk));
            let is_peer = self.peer.is_none_or(|peer| peer == ssrc);
            let mut item = chunk + 4;
            while self.bytes[item] != 0 {
                let text_len = self.bytes[item + 1];
                if is_peer && self.bytes[item] == SDES_CNAME {
                    cname_len.get_or_insert(text_len);
                }
                item += 2 + usize::from(text_len);
            }
            chunk = walk::next_word(item + 1);
        }
        let Some(cname_len) = cname_len else {
            return;
        };
        let own = self.own();
        let start = self.written;
        self.put_u32(start + 4, own.0);
        self.bytes[start + 8] = SDES_CNAME;
        self.bytes[start + 9] = cname_len;
        let text_end = start + 10 + usize::from(cname_len);
        for (byte, digit) in self.bytes[start + 10..text_end].iter_mut().zip(cname(own)) {
            *byte = digit;
        }
        let end = walk::next_word(text_end + 1);
        self.bytes[text_end..end].fill(0);
        self.finish(PacketType::SourceDescription, 1, end);
    }

    fn goodbye(&mut self, part: Packet) {
        let mut sources = (0..usize::from(part.count)).map(|n| part.start + 4 + 4 * n);
        let leaves = |at| {
            let source = Ssrc(read_u32(self.bytes, at));
            self.peer.is_none_or(|peer| peer == source)
        };
        if !sources.any(leaves) {
            return;
        }
        let start = self.written;
        let reason = part.start + 4 + 4 * usize::from(part.count);
        let mut end = start + HEADER_AND_SSRC_LEN;
        let own = self.own();
        self.bytes.copy_within(reason..part.content_end, end);
        end += part.content_end - reason;
        self.put_u32(start + 4, own.0);
        self.finish(PacketType::Goodbye, 1, end);
    }

    fn app(&mut self, part: Packet) {
        let start = self.written;
        let body = part.start + HEADER_AND_SSRC_LEN..part.content_end;
        let end = start + HEADER_AND_SSRC_LEN + body.len();
        self.bytes.copy_within(body, start + HEADER_AND_SSRC_LEN);
        let own = self.own();
        self.put_u32(start + 4, own.0);
        self.finish(PacketType::App, part.count, end);
    }

    fn generic_nack(&mut self, part: Packet) {
        const FCI: usize = 12;
        let about = Ssrc(read_u32(self.bytes, part.start + 8));
        let start = self.written;
        let mut end = start + FCI;
        let mut media_source = None;
        for entry in (part.start + FCI..part.content_end).step_by(4) {
            let lost = u32::from(read_u16(self.bytes, entry));
            let Some((source, lost)) = self.behind(about, lost) else {
                continue;
            };
            media_source = Some(source);
            self.bytes.copy_within(entry..entry + 4, end);
            self.bytes[end..end + 2].copy_from_slice(&(lost as u16).to_be_bytes());
            end += 4;
        }
        if let Some(source) = media_source {
            let own = self.own();
            self.put_u32(start + 4, own.0);
            self.put_u32(start + 8, source.0);
            self.finish(PacketType::TransportFeedback, part.count, end);
        }
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Writes the common header of the packet that ends at `end`, without padding.
    fn finish(&mut self, packet_type: PacketType, count: u8, end: usize) {
        let start = self.written;
        let words_less_one = ((end - start) / 4 - 1) as u16;
        self.bytes[start] = 0x80 | count;
        self.bytes[start + 1] = packet_type.code();
        self.bytes[start + 2..start + 4].copy_from_slice(&words_less_one.to_be_bytes());
        self.written = end;
    }
}

/// Endless text of a stream's canonical name: hexadecimal digits that say nothing of any host and
/// stay the same as long as the SSRC does.
fn cname(ssrc: Ssrc) -> impl Iterator<Item = u8> {
    let bits = mix(u64::from(ssrc.0));
    (0..16)
        .map(move |digit| b"0123456789abcdef"[(bits >> (4 * digit) & 0xf) as usize])
        .cycle()
}

#[cfg(test)]
mod tests;
