//! The sections of `trunkline.toml` that both daemons read, and how such a file is read.
//!
//! One file configures both daemons. The edge reads `[node]` and `[edge]` and skips the sections
//! that belong to control; control reads all of them. Anything else is an error that names file,
//! line, key and what is allowed there, and a file is checked to its end, so that one run shows
//! every mistake.
//!
//! A [`SectionSpec`] is the one place where a key's form, default and effect are written down:
//! the reader takes the default from it, the error message its allowed form, and
//! `trunkline-control config-reference` prints it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::vocabulary::PortRange;

mod document;
mod media_address;
#[cfg(test)]
mod tests;

pub use document::{
    ConfigError, Document, KeyDefault, KeySpec, Problem, Reader, Section, SectionSpec, Table,
    Value, parse_document, reference,
};
pub use media_address::{MEDIA_ADDRESSES_MAX, MediaAddress, bound_addresses};

/// Largest configuration file that is read, bytes. A real one has a few kilobytes; the limit
/// keeps a mistaken path (a log, a device) from filling memory.
pub const CONFIG_FILE_SIZE_MAX: u64 = 1 << 20;

/// Sections that belong to control alone. The edge skips them unread.
pub const CONTROL_SECTIONS: &[&str] = &["sip", "registrar", "media", "http", "store", "trace"];

/// `[node]`.
pub static NODE: SectionSpec = SectionSpec {
    name: "node",
    effect: "What both daemons share.",
    keys: &[
        KeySpec {
            name: "name",
            form: "1 to 63 letters, digits, '.', '-' or '_'",
            default: KeyDefault::Literal("\"trunkline\""),
            effect: "Name of this machine in logs and in SIP Server and User-Agent headers.",
        },
        KeySpec {
            name: "run_dir",
            form: "an absolute path",
            default: KeyDefault::Literal("\"/run/trunkline\""),
            effect: "Directory of the daemons' sockets. It must exist.",
        },
        KeySpec {
            name: "state_dir",
            form: "an absolute path",
            default: KeyDefault::Literal("\"/var/lib/trunkline\""),
            effect: "Directory of what outlives a reboot: the store and the CDR spool. It must exist.",
        },
        KeySpec {
            name: "log",
            form: "a level (error, warn, info, debug, trace, off) or a list such as \
                   \"info,trunkline_sip=debug\"",
            default: KeyDefault::Literal("\"info\""),
            effect: "What is logged.",
        },
        KeySpec {
            name: "log_format",
            form: "\"text\" or \"json\"",
            default: KeyDefault::Literal("\"text\""),
            effect: "Form of a log line. Both go to standard error.",
        },
    ],
};

/// `[edge]`.
pub static EDGE: SectionSpec = SectionSpec {
    name: "edge",
    effect: "The media edge.",
    keys: &[
        KeySpec {
            name: "workers",
            form: "a number from 1 to 256",
            default: KeyDefault::Absent {
                meaning: "one worker per core",
                example: "2",
            },
            effect: "Packet threads, each pinned to a core and owning a slice of the media ports.",
        },
        KeySpec {
            name: "media_addresses",
            form: "a list of 1 to 16 IP addresses of this machine or tables { address, advertise, \
                   name }, e.g. [\"2001:db8::10\", { address = \"10.0.0.5\", advertise = \
                   \"203.0.113.5\", name = \"outside\" }]",
            default: KeyDefault::Literal("[\"127.0.0.1\", \"::1\"]"),
            effect: "Addresses that RTP is received on. SDP names advertise, where a 1:1 NAT gives \
                     peers another address; the site file names an entry by its name, or by its \
                     address. Who names none gets the first entry of the family that fits.",
        },
        KeySpec {
            name: "ports",
            form: "\"FIRST-LAST\" with 1024 <= FIRST < LAST <= 65535, e.g. \"30000-39999\"",
            default: KeyDefault::Literal("\"30000-39999\""),
            effect: "UDP media ports, the same on every media address. A call's leg takes two; each \
                     worker gets an equal slice.",
        },
        KeySpec {
            name: "sessions_max",
            form: "a number from 1 to 65536",
            default: KeyDefault::Literal("5000"),
            effect: "Calls that one worker holds. Its memory is sized by this at start.",
        },
        KeySpec {
            name: "orphan_timeout_secs",
            form: "seconds, from 1 to 86400",
            default: KeyDefault::Literal("60"),
            effect: "Without control, a call is closed after this long without media.",
        },
        KeySpec {
            name: "io",
            form: "\"auto\", \"io_uring\" or \"epoll\"",
            default: KeyDefault::Literal("\"auto\""),
            effect: "How workers do I/O. \"auto\" takes io_uring where the kernel allows it, else \
                     epoll; \"io_uring\" does not start without it.",
        },
        KeySpec {
            name: "dscp",
            form: "a number from 0 to 63",
            default: KeyDefault::Literal("46"),
            effect: "DSCP of the media that is sent (RFC 2474). 46 is expedited forwarding, what RFC \
                     4594 wants for telephony; 0 marks nothing.",
        },
        KeySpec {
            name: "prompts_max",
            form: "a number from 1 to 1000000",
            default: KeyDefault::Literal("10000"),
            effect: "Files for play that are loaded at once.",
        },
        KeySpec {
            name: "prompt_memory_mb",
            form: "megabytes, from 1 to 1048576",
            default: KeyDefault::Literal("512"),
            effect: "Memory of all of them together: their samples, and what they are encoded to. What \
                     finds no room is refused until others are forgotten.",
        },
        KeySpec {
            name: "prompt_file_mb",
            form: "megabytes, from 1 to 4096",
            default: KeyDefault::Literal("384"),
            effect: "Longest file that is read, whatever it says of itself.",
        },
        KeySpec {
            name: "prompt_secs_max",
            form: "seconds, from 1 to 86400",
            default: KeyDefault::Literal("1800"),
            effect: "Longest prompt. One of half an hour takes 86 MB when it is wideband.",
        },
        KeySpec {
            name: "recordings_max",
            form: "a number from 1 to 65536",
            default: KeyDefault::Literal("2000"),
            effect: "Recordings of one worker at once.",
        },
        KeySpec {
            name: "recorder_memory_mb",
            form: "megabytes, from 1 to 65536",
            default: KeyDefault::Literal("14"),
            effect: "Memory of one worker for packets on their way to its recordings, taken at start. \
                     14 hold those of 1,000 recorded G.711 calls for half a second; what finds no room \
                     is counted and becomes silence in the file.",
        },
    ],
};

/// `[node]`: what both daemons share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of this machine, fit for a SIP `User-Agent` token.
    pub name: String,
    /// Directory of the daemons' sockets.
    pub run_dir: PathBuf,
    /// Directory of the store and the CDR spool.
    pub state_dir: PathBuf,
    /// A level or a list of `target=level` directives.
    pub log: String,
    /// Form of a log line.
    pub log_format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[edge]`: the media edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Packet threads, 1 … 256; 0 when the file does not say, which means one per core. A 0 in
    /// the file is refused, so that it cannot be taken for "none".
    pub workers: u16,
    /// 1 … [`MEDIA_ADDRESSES_MAX`], in the order of preference.
    pub media_addresses: Vec<MediaAddress>,
    /// UDP media ports of all workers together.
    pub ports: PortRange,
    /// Sessions per worker, 1 … 65,536.
    pub sessions_max: u32,
    /// Seconds without control and without media after which a session closes, 1 … 86,400.
    pub orphan_timeout_secs: u32,
    /// How workers do I/O.
    pub io: IoChoice,
    /// DSCP of the media that is sent, 0 … 63: RFC 2474.
    pub dscp: u8,
    /// Prompts at once, 1 … 1,000,000.
    pub prompts_max: u32,
    /// Memory of all prompts, MiB, 1 … 1,048,576.
    pub prompt_memory_mb: u32,
    /// Longest prompt file, MiB, 1 … 4,096.
    pub prompt_file_mb: u32,
    /// Longest prompt, seconds, 1 … 86,400.
    pub prompt_secs_max: u32,
    /// Recordings of one worker at once, 1 … 65,536.
    pub recordings_max: u32,
    /// Memory of one worker for packets on their way to the recorder, MiB, 1 … 65,536.
    pub recorder_memory_mb: u32,
}

/// Which I/O a worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring, or the edge does not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// The part of `trunkline.toml` that the edge reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeDocument {
    /// `[node]`.
    pub node: NodeConfig,
    /// `[edge]`.
    pub edge: EdgeConfig,
}

impl Document for EdgeDocument {
    const SECTIONS: &'static [&'static SectionSpec] = &[&NODE, &EDGE];
    const SKIPPED: &'static [&'static str] = CONTROL_SECTIONS;

    fn read(reader: &Reader<'_>) -> Option<Self> {
        let node = NodeConfig::read(&reader.section(&NODE));
        let edge = EdgeConfig::read(&reader.section(&EDGE));
        Some(Self {
            node: node?,
            edge: edge?,
        })
    }
}

impl NodeConfig {
    /// Reads `[node]`; `None` after a problem was reported to the section's reader.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let name = section.value("name", |v| {
            v.as_str().filter(|s| is_node_name(s)).map(str::to_owned)
        });
        let run_dir = section.value("run_dir", |v| v.as_absolute_path());
        let state_dir = section.value("state_dir", |v| v.as_absolute_path());
        let log = section.value("log", |v| {
            v.as_str().filter(|s| is_log_filter(s)).map(str::to_owned)
        });
        let log_format = section.value("log_format", |v| match v.as_str()? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        Some(Self {
            name: name?,
            run_dir: run_dir?,
            state_dir: state_dir?,
            log: log?,
            log_format: log_format?,
        })
    }

    /// The socket on which the edge listens for control and observers.
    #[must_use]
    pub fn edge_socket(&self) -> PathBuf {
        self.run_dir.join("edge.sock")
    }

    /// The socket on which control listens for its operators.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

impl EdgeConfig {
    /// Reads `[edge]`; `None` after a problem was reported to the section's reader.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let workers = section.optional("workers", |v| v.as_number(1..=256));
        let media_addresses = media_address::read(section);
        let ports = section.value("ports", |v| port_range(v.as_str()?));
        let sessions_max = section.value("sessions_max", |v| v.as_number(1..=65_536));
        let orphan_timeout_secs = section.value("orphan_timeout_secs", |v| v.as_number(1..=86_400));
        let io = section.value("io", |v| match v.as_str()? {
            "auto" => Some(IoChoice::Auto),
            "io_uring" => Some(IoChoice::IoUring),
            "epoll" => Some(IoChoice::Epoll),
            _ => None,
        });
        let dscp = section.value("dscp", |v| v.as_number(0..=63));
        let number = |name, most: u32| section.value(name, |v| v.as_number(1..=most));
        let prompts_max = number("prompts_max", 1_000_000);
        let prompt_memory_mb = number("prompt_memory_mb", 1 << 20);
        let prompt_file_mb = number("prompt_file_mb", 4_096);
        let prompt_secs_max = number("prompt_secs_max", 86_400);
        let recordings_max = number("recordings_max", 65_536);
        let recorder_memory_mb = number("recorder_memory_mb", 65_536);
        Some(Self {
            workers: workers?.unwrap_or(0),
            media_addresses: media_addresses?,
            ports: ports?,
            sessions_max: sessions_max?,
            orphan_timeout_secs: orphan_timeout_secs?,
            io: io?,
            dscp: dscp?,
            prompts_max: prompts_max?,
            prompt_memory_mb: prompt_memory_mb?,
            prompt_file_mb: prompt_file_mb?,
            prompt_secs_max: prompt_secs_max?,
            recordings_max: recordings_max?,
            recorder_memory_mb: recorder_memory_mb?,
        })
    }
}

impl EdgeConfig {
    /// The addresses that are bound, each once, in the order of the file.
    #[must_use]
    pub fn bound_addresses(&self) -> Vec<IpAddr> {
        bound_addresses(&self.media_addresses)
    }
}

impl Default for EdgeDocument {
    fn default() -> Self {
        parse_document("", "defaults").expect("every default fits its own form")
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        EdgeDocument::default().node
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        EdgeDocument::default().edge
    }
}

/// Reads and parses the file at `path`.
///
/// # Errors
/// The file cannot be read, is larger than [`CONFIG_FILE_SIZE_MAX`], is not UTF-8, or has any
/// problem that [`parse_document`] reports.
pub fn load_document<T: Document>(path: &Path) -> Result<T, ConfigError> {
    let name = path.display().to_string();
    parse_document(&read_text(path, CONFIG_FILE_SIZE_MAX)?, &name)
}

/// Reads a text file of at most `size_max` bytes.
///
/// # Errors
/// The file cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path, size_max: u64) -> Result<String, ConfigError> {
    use std::io::Read;

    let name = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(size_max.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(|error| ConfigError::file(&name, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > size_max {
        return Err(ConfigError::file(
            &name,
            format!("is larger than {size_max} bytes; is this the right file?"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        ConfigError::at(&name, line, "is not UTF-8 text".to_owned())
    })
}

fn is_node_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The directives are understood by the logging library; this finds the slips that would
/// otherwise only show as missing lines.
fn is_log_filter(filter: &str) -> bool {
    let is_level = |level: &str| {
        ["error", "warn", "info", "debug", "trace", "off"]
            .contains(&level.to_ascii_lowercase().as_str())
    };
    filter
        .split(',')
        .map(str::trim)
        .all(|directive| match directive.split_once('=') {
            None => is_level(directive),
            Some((target, level)) => {
                is_level(level)
                    && !target.is_empty()
                    && target
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
            }
        })
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    if first < 1024 || first >= last {
        return None;
    }
    PortRange::new(first, last)
}
