//! The `Authorization` header: RFC 7616 §3.4 in the grammar of RFC 3261 §25.1.

use super::Algorithm;

/// The parameters of one `Digest` header, as written. The first of a name counts.
pub(super) struct Parameters {
    pairs: Vec<(String, Value)>,
}

struct Value {
    /// Between the quotes, escapes untouched: what goes into the hash.
    raw: String,
    quoted: bool,
}

/// More parameters than the grammar knows, with room for extensions.
const PARAMETERS_MAX: usize = 24;

/// The parameters of `value`; `None` when it is not of the `Digest` scheme or not readable.
pub(super) fn parameters(value: &[u8]) -> Option<Parameters> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (scheme, mut rest) = text.split_once([' ', '\t'])?;
    if !scheme.eq_ignore_ascii_case("Digest") {
        return None;
    }
    let mut pairs = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(Parameters { pairs });
        }
        if pairs.len() == PARAMETERS_MAX {
            return None;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = split_value(after.trim_start())?;
        pairs.push((name.trim().to_ascii_lowercase(), value));
        rest = after.trim_start();
        if !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
    }
}

/// A token or quoted string, and what follows it.
fn split_value(text: &str) -> Option<(Value, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let value = Value {
            raw: text[..end].to_owned(),
            quoted: false,
        };
        return Some((value, &text[end..]));
    };
    let mut is_escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => {
                let value = Value {
                    raw: inner[..at].to_owned(),
                    quoted: true,
                };
                return Some((value, &inner[at + 1..]));
            }
            _ => {}
        }
    }
    None
}

impl Value {
    /// The meant text: escapes undone.
    fn unescaped(&self) -> String {
        if !self.quoted || !self.raw.contains('\\') {
            return self.raw.clone();
        }
        let mut out = String::with_capacity(self.raw.len());
        let mut characters = self.raw.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => out.extend(characters.next()),
                other => out.push(other),
            }
        }
        out
    }
}

impl Parameters {
    fn get(&self, name: &str) -> Option<&Value> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)
    }

    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.raw.as_str())
    }

    /// Our realm holds nothing that would need an escape.
    pub(super) fn realm(&self) -> Option<&str> {
        self.raw("realm")
    }

    pub(super) fn algorithm(&self) -> Option<&str> {
        self.raw("algorithm")
    }
}

/// What an answer to a challenge must hold.
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) uri: String,
    pub(super) nonce: String,
    pub(super) response: Vec<u8>,
    protection: Protection,
}

/// RFC 7616's `qop=auth`, or the form of RFC 2069 that has no count.
enum Protection {
    Auth {
        /// As written: it is hashed as written.
        nc: String,
        nonce_count: u32,
        cnonce: String,
        /// As written, too: `AUTH` hashes as `AUTH`.
        qop: String,
    },
    Legacy,
}

impl Credentials {
    /// `None` when a parameter is missing or malformed, or when `qop` is one that was not offered.
    pub(super) fn new(parameters: &Parameters) -> Option<Self> {
        let protection = match parameters.raw("qop") {
            None => Protection::Legacy,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                let nc = parameters.raw("nc")?;
                let is_hex =
                    (1..=8).contains(&nc.len()) && nc.bytes().all(|b| b.is_ascii_hexdigit());
                let nonce_count = is_hex.then(|| u32::from_str_radix(nc, 16).ok()).flatten()?;
                if nonce_count == 0 {
                    return None;
                }
                Protection::Auth {
                    nc: nc.to_owned(),
                    nonce_count,
                    cnonce: parameters.raw("cnonce")?.to_owned(),
                    qop: qop.to_owned(),
                }
            }
            Some(_) => return None,
        };
        Some(Self {
            username: parameters.get("username")?.unescaped(),
            uri: parameters.raw("uri")?.to_owned(),
            nonce: parameters.raw("nonce")?.to_owned(),
            response: decode_hex(parameters.raw("response")?)?,
            protection,
        })
    }

    /// The count of this use of the nonce; 0 in the form without counts.
    pub(super) fn nonce_count(&self) -> u32 {
        match self.protection {
            Protection::Auth { nonce_count, .. } => nonce_count,
            Protection::Legacy => 0,
        }
    }

    /// What the response must be (RFC 7616 §3.4.1).
    pub(super) fn expected_response(
        &self,
        algorithm: Algorithm,
        ha1: &[u8],
        method: &[u8],
    ) -> Vec<u8> {
        let a2 = [method, b":", self.uri.as_bytes()].concat();
        let ha1 = encode_hex(ha1);
        let ha2 = encode_hex(&algorithm.hash(&a2));
        let nonce = &self.nonce;
        let input = match &self.protection {
            Protection::Auth {
                nc, cnonce, qop, ..
            } => format!("{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}"),
            Protection::Legacy => format!("{ha1}:{nonce}:{ha2}"),
        };
        algorithm.hash(input.as_bytes())
    }
}

/// Lower-case hexadecimal.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// `None` for an odd length or another character.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
        .collect()
}
