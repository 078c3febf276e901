//! Cuts a byte stream into SIP messages (RFC 3261 §18.3) and keep-alives (RFC 5626 §4.4.1).
//!
//! Only the boundaries are found here; each message is then read by sipx-sip, which checks that
//! it agrees on where the message ends. Its own stream parser is not used because it gives up the
//! complete messages that came in one segment with a malformed one, keeps the malformed bytes to
//! itself (a 400 is made from them), and does not show that it waits for a body.

use bytes::{Bytes, BytesMut};
use sipx_sip::error::{FramingError, LimitKind, ParseError};
use sipx_sip::{Limits, Message, parse_frame};

/// What comes next in the stream.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages; a box would cost each an allocation"
)]
pub(super) enum Framed {
    /// A message.
    Message(Message),
    /// CRLFCRLF between messages, or a ping of the WebSocket protocol: the peer asks for an answer.
    Ping,
    /// Bytes that are no message. Where the next one begins is not known: nothing follows.
    Malformed { bytes: Bytes, error: ParseError },
    /// A WebSocket message that is no SIP message. What follows may be one.
    Unreadable { bytes: Bytes, error: ParseError },
    /// The peer closes its WebSocket.
    Closed,
    /// The peer does not keep to the WebSocket protocol.
    Broken,
}

/// The unread part of a stream.
#[derive(Debug)]
pub(super) struct Framer {
    buffer: BytesMut,
    limits: Limits,
    header_len_max: usize,
    /// The end of the header section is not before this.
    scanned: usize,
    /// CRLFs since the last message.
    crlfs: usize,
    has_failed: bool,
}

impl Framer {
    pub(super) fn new(limits: Limits, header_len_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            header_len_max: header_len_max.min(limits.max_message_bytes),
            limits,
            scanned: 0,
            crlfs: 0,
            has_failed: false,
        }
    }

    /// Where the next bytes are appended.
    pub(super) fn read_buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a message has begun that is not complete. To be asked when [`Self::next`] gave
    /// `None`.
    pub(super) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next thing that is complete.
    pub(super) fn next(&mut self) -> Option<Framed> {
        if self.has_failed {
            return None;
        }
        while self.buffer.starts_with(b"\r\n") {
            let _ = self.buffer.split_to(2);
            self.scanned = 0;
            self.crlfs += 1;
            if self.crlfs == 2 {
                self.crlfs = 0;
                return Some(Framed::Ping);
            }
        }
        let Some(head_len) = self.head_len() else {
            if self.buffer.len() > self.header_len_max {
                return Some(self.fail(LimitKind::MessageBytes));
            }
            return None;
        };
        if head_len > self.header_len_max {
            return Some(self.fail(LimitKind::MessageBytes));
        }
        let body_len = match content_length(&self.buffer[..head_len]) {
            Ok(body_len) => body_len,
            Err(error) => {
                self.has_failed = true;
                let bytes = self.buffer.split_to(head_len).freeze();
                let error = ParseError::Framing(error);
                return Some(Framed::Malformed { bytes, error });
            }
        };
        let message_len = head_len.saturating_add(body_len);
        if message_len > self.limits.max_message_bytes || body_len > self.limits.max_body_bytes {
            return Some(self.fail(LimitKind::BodyBytes));
        }
        if self.buffer.len() < message_len {
            return None;
        }
        self.crlfs = 0;
        self.scanned = 0;
        let bytes = self.buffer.split_to(message_len).freeze();
        Some(match parse_frame(bytes.clone(), &self.limits) {
            Ok(message) => Framed::Message(message),
            Err(error) => {
                self.has_failed = true;
                Framed::Malformed { bytes, error }
            }
        })
    }

    fn fail(&mut self, limit: LimitKind) -> Framed {
        self.has_failed = true;
        let error = ParseError::Limit {
            limit,
            value: self.buffer.len(),
        };
        let bytes = self.buffer.split().freeze();
        Framed::Malformed { bytes, error }
    }

    /// Length of the header section with its blank line. A stream that comes byte by byte is not
    /// searched from the start each time.
    fn head_len(&mut self) -> Option<usize> {
        let at = self.buffer[self.scanned..]
            .windows(4)
            .position(|w| w == b"\r\n\r\n");
        match at {
            Some(at) => {
                self.scanned += at;
                Some(self.scanned + 4)
            }
            None => {
                self.scanned = self.buffer.len().saturating_sub(3);
                None
            }
        }
    }
}

/// The one `Content-Length` (or `l`) of a header section: on a stream it is required, once
/// (RFC 3261 §20.14).
fn content_length(head: &[u8]) -> Result<usize, FramingError> {
    let is_folded = |line: &&[u8]| matches!(line.first(), Some(b' ' | b'\t'));
    let mut lines = lines(head).skip(1).peekable();
    let mut found = None;
    while let Some(line) = lines.next() {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii_end();
        let is_length =
            name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l");
        if !is_length {
            continue;
        }
        let mut value = line[colon + 1..].to_vec();
        while let Some(more) = lines.next_if(is_folded) {
            value.extend_from_slice(more);
        }
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(FramingError::ContentLengthMalformed);
        }
        let length = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok());
        // A number too large for the machine is above every limit.
        if found.replace(length.unwrap_or(usize::MAX)).is_some() {
            return Err(FramingError::ContentLengthRepeated);
        }
    }
    found.ok_or(FramingError::ContentLengthRequired)
}

/// The lines of a header section, without their CRLF.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sipx_sip::StreamParser;

    use super::*;

    fn limits() -> Limits {
        Limits {
            max_message_bytes: 2_000,
            max_body_bytes: 1_000,
            ..Limits::datagram()
        }
    }

    fn message(length_header: &str, body: &str) -> String {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n{length_header}\r\n\r\n{body}"
        )
    }

    /// Everything that comes out of `stream` when it arrives in pieces of `piece` bytes.
    fn framed(stream: &[u8], piece: usize) -> (Vec<Framed>, Framer) {
        let mut framer = Framer::new(limits(), 1_500);
        let mut out = Vec::new();
        for chunk in stream.chunks(piece.max(1)) {
            framer.read_buffer().extend_from_slice(chunk);
            while let Some(next) = framer.next() {
                out.push(next);
            }
        }
        (out, framer)
    }

    fn describe(framed: &[Framed]) -> String {
        let word = |framed: &Framed| match framed {
            Framed::Message(message) => format!("{}", message.body().len()),
            Framed::Ping => "ping".to_owned(),
            Framed::Malformed { error, .. } => error.to_string(),
            other => format!("{other:?}"),
        };
        framed.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn messages_and_pings_are_found_in_pieces_of_any_size() {
        let stream = format!(
            "{}\r\n\r\n{}\r\n{}\r\n\r\n\r\n\r\n",
            message("Content-Length: 5", "hello"),
            message("l:\r\n 0", ""),
            message("CONTENT-LENGTH : 2", "\r\n"),
        );
        for piece in 1..stream.len() {
            let (found, framer) = framed(stream.as_bytes(), piece);
            assert_eq!(
                describe(&found),
                "5 ping 0 2 ping ping",
                "in pieces of {piece}"
            );
            assert!(!framer.is_partial());
        }
    }

    #[test]
    fn message_before_a_malformed_one_is_not_lost_and_nothing_follows() {
        let bad = "not SIP\r\nContent-Length: 0\r\n\r\n";
        let stream = message("Content-Length: 0", "") + bad + &message("Content-Length: 0", "");
        let (found, _) = framed(stream.as_bytes(), stream.len());
        assert_eq!(found.len(), 2, "{}", describe(&found));
        assert!(matches!(&found[1], Framed::Malformed { bytes, .. } if bytes == bad.as_bytes()));
    }

    #[test]
    fn lengths_that_cannot_be_trusted_end_the_stream() {
        let rows = [
            ("X: y", "Content-Length is required on stream transports"),
            (
                "Content-Length: -1",
                "Content-Length is not a decimal number",
            ),
            ("Content-Length:", "Content-Length is not a decimal number"),
            ("Content-Length: 1\r\nl: 1", "repeated Content-Length"),
            ("Content-Length: 1001", "body size limit exceeded (174)"),
            (
                "Content-Length: 99999999999999999999999",
                "body size limit exceeded (193)",
            ),
        ];
        for (header, expected) in rows {
            let stream = message(header, "");
            let (found, _) = framed(stream.as_bytes(), 7);
            let found = describe(&found);
            let kind = expected.split(" (").next().expect("not empty");
            assert!(found.contains(kind), "{header}: {found}");
        }
    }

    #[test]
    fn endless_header_section_is_cut_off_at_the_limit() {
        let stream = format!("OPTIONS sip:a@b SIP/2.0\r\nX: {}", "x".repeat(5_000));
        let (found, framer) = framed(stream.as_bytes(), 100);
        assert!(describe(&found).contains("message size limit exceeded"));
        assert!(framer.buffer.len() <= stream.len() - 1_500);
        // A head above its limit is refused even where it comes whole.
        let whole = message(
            &format!("X: {}\r\nContent-Length: 0", "x".repeat(1_500)),
            "",
        );
        let (found, _) = framed(whole.as_bytes(), 4_000);
        assert!(describe(&found).contains("message size limit exceeded"));
    }

    #[test]
    fn waiting_for_a_body_is_partial_and_waiting_for_nothing_is_not() {
        let (_, framer) = framed(message("Content-Length: 5", "").as_bytes(), 4_000);
        assert!(framer.is_partial());
        let (_, framer) = framed(message("Content-Length: 0", "").as_bytes(), 4_000);
        assert!(!framer.is_partial());
    }

    proptest! {
        #[test]
        fn agrees_with_sipx_on_valid_streams(
            bodies in prop::collection::vec("[ -~]{0,60}", 1..6),
            gaps in prop::collection::vec(0usize..4, 6),
            piece in 1usize..200,
        ) {
            let mut stream = String::new();
            for (body, gap) in bodies.iter().zip(&gaps) {
                stream.push_str(&message(&format!("Content-Length: {}", body.len()), body));
                stream.push_str(&"\r\n".repeat(*gap));
            }
            let theirs = StreamParser::new(limits()).push(stream.as_bytes()).expect("valid");
            let (found, _) = framed(stream.as_bytes(), piece);
            let ours: Vec<_> = found.into_iter().filter_map(|framed| match framed {
                Framed::Message(message) => Some(message.to_bytes()),
                _ => None,
            }).collect();
            let theirs: Vec<_> = theirs.iter().map(Message::to_bytes).collect();
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn no_bytes_panic_or_pile_up(bytes in prop::collection::vec(any::<u8>(), 0..6_000), piece in 1usize..500) {
            let (_, framer) = framed(&bytes, piece);
            prop_assert!(framer.has_failed || framer.buffer.len() <= limits().max_message_bytes + 500);
        }
    }
}
