//! Crossing out secrets, byte for byte, so that lengths and positions stay true.

/// Header fields whose value is a secret or lets one be guessed: digest responses can be tried
/// against a dictionary.
const SECRET_HEADERS: [&[u8]; 2] = [b"authorization", b"proxy-authorization"];

/// Lines of SDP whose value is a key (RFC 4568, RFC 8839).
const SECRET_ATTRIBUTES: [&[u8]; 2] = [b"a=crypto:", b"a=ice-pwd:"];

/// What a body of `application/dtmf-relay` begins its digit with.
const DIGIT: &[u8] = b"signal";

/// What stands in place of a secret's bytes.
const CROSS: u8 = b'x';

/// The message with `Authorization`, `Proxy-Authorization`, SRTP keys, ICE passwords and digits in
/// INFO bodies crossed out. Everything else is as it was, byte for byte.
#[must_use]
pub fn mask(message: &[u8]) -> Vec<u8> {
    let mut masked = message.to_vec();
    let mut in_body = false;
    let mut is_digit = false;
    let mut is_secret_continued = false;
    let mut start = 0;
    while start < message.len() {
        let end = message[start..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(message.len(), |offset| start + offset + 1);
        let line = message[start..end].trim_ascii_end();
        let range = start..start + line.len();
        start = end;
        if in_body {
            if let Some(secret) = secret_of_body_line(line, is_digit) {
                cross(&mut masked[range.start + secret..range.end]);
            }
            continue;
        }
        if line.is_empty() {
            in_body = true;
            continue;
        }
        // A folded line (RFC 3261 §7.3.1) goes on with the value of the one before.
        let is_folded = matches!(line.first(), Some(b' ' | b'\t'));
        if is_folded && is_secret_continued {
            cross(&mut masked[range]);
            continue;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii().to_ascii_lowercase();
        is_secret_continued = SECRET_HEADERS.contains(&name.as_slice());
        if is_secret_continued {
            cross(&mut masked[range.start + colon + 1..range.end]);
        }
        if matches!(name.as_slice(), b"content-type" | b"c") {
            let value = line[colon + 1..].to_ascii_lowercase();
            is_digit = value.windows(b"dtmf".len()).any(|window| window == b"dtmf");
        }
    }
    masked
}

/// Where in the line its secret begins.
fn secret_of_body_line(line: &[u8], is_digit: bool) -> Option<usize> {
    if is_digit {
        // `application/dtmf-relay` has `Signal=5`, `application/dtmf` the digit alone.
        let is_relay = line.contains(&b'=');
        let names_digit =
            line.len() >= DIGIT.len() && line[..DIGIT.len()].eq_ignore_ascii_case(DIGIT);
        return match (is_relay, names_digit) {
            (true, true) => line.iter().position(|&byte| byte == b'=').map(|at| at + 1),
            (true, false) => None,
            (false, _) => Some(0),
        };
    }
    SECRET_ATTRIBUTES
        .iter()
        .find(|name| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .map(|name| match line.iter().position(|&byte| byte == b' ') {
            // `a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:…`: tag and suite are no secret.
            Some(_) => inline_key(line).unwrap_or(name.len()),
            None => name.len(),
        })
}

fn inline_key(line: &[u8]) -> Option<usize> {
    const INLINE: &[u8] = b"inline:";
    line.windows(INLINE.len())
        .position(|window| window.eq_ignore_ascii_case(INLINE))
        .map(|at| at + INLINE.len())
}

fn cross(secret: &mut [u8]) {
    for byte in secret {
        if !byte.is_ascii_whitespace() {
            *byte = CROSS;
        }
    }
}
