//! The byte form of commands and events.
//!
//! A message is a 16-byte head and a body. Integers are little-endian.
//!
//! ```text
//! 0  u16  kind          CommandKind or EventKind
//! 2  u16  reserved      0
//! 4  u32  reserved      0
//! 8  u64  correlation   0 in events that answer nothing
//! 16 …    body
//! ```
//!
//! Bodies grow only at the end: a decoder ignores what follows the fields it knows. What repeats
//! inside a body (payload routes, leg reports) states the length of one element, so elements grow
//! at their end, too. Fields that a later minor version appends are optional to the decoder of
//! that version, which takes their default when the body ends before them.
//!
//! Encoding writes into a caller's buffer and cannot fail. Decoding trusts nothing: the bytes may
//! come from a peer of another release or from one that has gone wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::command::{
    Command, CorrelatedCommand, LegConfig, LocalMedia, MediaDirection, PayloadRoute, PayloadRoutes,
    RtcpMode, SourcePolicy,
};
use crate::event::{CloseCause, Event, LegReport, Refusal, SessionReport};
use crate::vocabulary::{ClockRateHz, Correlation, Epoch, LegIndex, PayloadType, SessionId, Ssrc};

/// Longest message of major version 1, whatever minor version appends. The longest of this
/// version is a [`Command::ConfigureLeg`] with 32 routes, 360 bytes.
pub const MESSAGE_LEN_MAX: usize = 2048;

/// Room for one message.
pub type MessageBuf = [u8; MESSAGE_LEN_MAX];

/// Bytes before the body.
pub const HEAD_LEN: usize = 16;

/// Numbers of the commands. ABI: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CommandKind {
    /// [`Command::OpenLeg`].
    OpenLeg = 10,
    /// [`Command::ConfigureLeg`].
    ConfigureLeg = 11,
    /// [`Command::CloseLeg`].
    CloseLeg = 12,
    /// [`Command::CloseSession`].
    CloseSession = 13,
    /// [`Command::QuerySession`].
    QuerySession = 20,
    /// [`Command::QueryAllSessions`].
    QueryAllSessions = 21,
    /// [`Command::CloseOtherEpochs`].
    CloseOtherEpochs = 30,
}

impl TryFrom<u16> for CommandKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::OpenLeg,
            11 => Self::ConfigureLeg,
            12 => Self::CloseLeg,
            13 => Self::CloseSession,
            20 => Self::QuerySession,
            21 => Self::QueryAllSessions,
            30 => Self::CloseOtherEpochs,
            other => return Err(other),
        })
    }
}

/// Numbers of the events. ABI: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum EventKind {
    /// [`Event::CommandDone`].
    CommandDone = 10,
    /// [`Event::SessionClosed`].
    SessionClosed = 11,
    /// [`Event::SessionReported`].
    SessionReported = 20,
    /// [`Event::MediaStarted`].
    MediaStarted = 30,
}

impl TryFrom<u16> for EventKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::CommandDone,
            11 => Self::SessionClosed,
            20 => Self::SessionReported,
            30 => Self::MediaStarted,
            other => return Err(other),
        })
    }
}

/// A message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// The message's correlation, if the message was long enough to have one: a command that
    /// cannot be read is still answered, with [`Refusal::Undecodable`].
    pub correlation: Option<Correlation>,
    /// What is wrong with it.
    pub fault: DecodeFault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// It ends inside a field.
    #[error("the message of {len} bytes ends before its {field}")]
    Short {
        /// The field that does not fit.
        field: &'static str,
        /// Length of the whole message.
        len: usize,
    },
    /// Longer than [`MESSAGE_LEN_MAX`].
    #[error("the message of {len} bytes is longer than any can be")]
    Long {
        /// Length of the whole message.
        len: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown message kind {0}: it comes from a later release")]
    UnknownKind(u16),
    /// A field has a value that is not defined.
    #[error("{field} cannot be {value}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// Two routes begin with the same payload type.
    #[error("the payload routes name a payload type twice")]
    DuplicateRoute,
}

/// Writes a command's bytes to the front of `buf` and returns them.
pub fn encode_command<'b>(message: &CorrelatedCommand, buf: &'b mut MessageBuf) -> &'b [u8] {
    let mut w = Writer { buf, len: 0 };
    let kind = match message.command {
        Command::OpenLeg { .. } => CommandKind::OpenLeg,
        Command::ConfigureLeg { .. } => CommandKind::ConfigureLeg,
        Command::CloseLeg { .. } => CommandKind::CloseLeg,
        Command::CloseSession { .. } => CommandKind::CloseSession,
        Command::QuerySession { .. } => CommandKind::QuerySession,
        Command::QueryAllSessions => CommandKind::QueryAllSessions,
        Command::CloseOtherEpochs { .. } => CommandKind::CloseOtherEpochs,
    };
    w.head(kind as u16, message.correlation);
    match &message.command {
        Command::OpenLeg {
            session,
            leg,
            local,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(local.rtcp as u8);
            w.u16(0);
            w.u32(local.ssrc.0);
            w.socket_addr(Some(local.rtp));
        }
        Command::ConfigureLeg {
            session,
            leg,
            config,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(config.direction as u8);
            w.leg_config(config);
        }
        Command::CloseLeg { session, leg } => {
            w.u64(session.0);
            w.u8(*leg as u8);
        }
        Command::CloseSession { session } | Command::QuerySession { session } => w.u64(session.0),
        Command::QueryAllSessions => {}
        Command::CloseOtherEpochs { keep } => w.u32(keep.0),
    }
    w.finish()
}

/// Reads a command.
///
/// # Errors
/// [`DecodeError`] for anything but a well-formed command of this major version.
pub fn decode_command(bytes: &[u8]) -> Result<CorrelatedCommand, DecodeError> {
    let (mut r, kind, correlation) = Reader::begin(bytes)?;
    let kind = CommandKind::try_from(kind)
        .map_err(DecodeFault::UnknownKind)
        .map_err(|fault| fault.of(correlation))?;
    read_command(&mut r, kind)
        .map(|command| CorrelatedCommand {
            correlation,
            command,
        })
        .map_err(|fault| fault.of(correlation))
}

fn read_command(r: &mut Reader<'_>, kind: CommandKind) -> Result<Command, DecodeFault> {
    Ok(match kind {
        CommandKind::OpenLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let rtcp = r.enumerated::<RtcpMode>("rtcp")?;
            r.u16("reserved")?;
            let ssrc = Ssrc(r.u32("ssrc")?);
            let rtp = r.socket_addr("local")?.ok_or(bad("local", 0))?;
            Command::OpenLeg {
                session,
                leg,
                local: LocalMedia { rtp, rtcp, ssrc },
            }
        }
        CommandKind::ConfigureLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let direction = r.enumerated::<MediaDirection>("direction")?;
            Command::ConfigureLeg {
                session,
                leg,
                config: r.leg_config(direction)?,
            }
        }
        CommandKind::CloseLeg => Command::CloseLeg {
            session: r.session()?,
            leg: r.leg()?,
        },
        CommandKind::CloseSession => Command::CloseSession {
            session: r.session()?,
        },
        CommandKind::QuerySession => Command::QuerySession {
            session: r.session()?,
        },
        CommandKind::QueryAllSessions => Command::QueryAllSessions,
        CommandKind::CloseOtherEpochs => Command::CloseOtherEpochs {
            keep: Epoch(r.u32("keep")?),
        },
    })
}

/// Writes an event's bytes to the front of `buf` and returns them. Allocates nothing.
pub fn encode_event<'b>(event: &Event, buf: &'b mut MessageBuf) -> &'b [u8] {
    const UNASKED: Correlation = Correlation(0);
    let mut w = Writer { buf, len: 0 };
    match event {
        Event::CommandDone {
            correlation,
            result,
        } => {
            w.head(EventKind::CommandDone as u16, *correlation);
            w.u16(match result {
                Ok(()) => 0,
                Err(refusal) => *refusal as u16,
            });
        }
        Event::SessionClosed { cause, report } => {
            w.head(EventKind::SessionClosed as u16, UNASKED);
            w.u16(*cause as u16);
            w.report(report);
        }
        Event::SessionReported {
            correlation,
            report,
        } => {
            w.head(EventKind::SessionReported as u16, *correlation);
            w.u16(0);
            w.report(report);
        }
        Event::MediaStarted {
            session,
            leg,
            source,
        } => {
            w.head(EventKind::MediaStarted as u16, UNASKED);
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(0);
            w.u16(0);
            w.u32(0);
            w.socket_addr(Some(*source));
        }
    }
    w.finish()
}

/// Reads an event.
///
/// # Errors
/// [`DecodeError`] for anything but a well-formed event of this major version.
pub fn decode_event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (mut r, kind, correlation) = Reader::begin(bytes)?;
    let kind = EventKind::try_from(kind)
        .map_err(DecodeFault::UnknownKind)
        .map_err(|fault| fault.of(correlation))?;
    read_event(&mut r, kind, correlation).map_err(|fault| fault.of(correlation))
}

fn read_event(
    r: &mut Reader<'_>,
    kind: EventKind,
    correlation: Correlation,
) -> Result<Event, DecodeFault> {
    Ok(match kind {
        EventKind::CommandDone => {
            let result = match r.u16("result")? {
                0 => Ok(()),
                code => Err(Refusal::try_from(code).map_err(|v| bad("result", v.into()))?),
            };
            Event::CommandDone {
                correlation,
                result,
            }
        }
        EventKind::SessionClosed => {
            let cause =
                CloseCause::try_from(r.u16("cause")?).map_err(|v| bad("cause", v.into()))?;
            Event::SessionClosed {
                cause,
                report: r.report()?,
            }
        }
        EventKind::SessionReported => {
            r.u16("reserved")?;
            Event::SessionReported {
                correlation,
                report: r.report()?,
            }
        }
        EventKind::MediaStarted => {
            let session = r.session()?;
            let leg = r.leg()?;
            r.take("reserved", 7)?;
            let source = r.socket_addr("source")?.ok_or(bad("source", 0))?;
            Event::MediaStarted {
                session,
                leg,
                source,
            }
        }
    })
}

const fn bad(field: &'static str, value: u64) -> DecodeFault {
    DecodeFault::BadValue { field, value }
}

impl DecodeFault {
    const fn of(self, correlation: Correlation) -> DecodeError {
        DecodeError {
            correlation: Some(correlation),
            fault: self,
        }
    }
}

/// Length of one payload route: from u8, to u8, reserved u16, clock rate u32.
const ROUTE_LEN: u8 = 8;

/// Length of one leg report: seven u64.
const LEG_REPORT_LEN: u16 = 56;

const SOURCE_NOBODY: u8 = 0;
const SOURCE_EXACT: u8 = 1;
const SOURCE_LEARN_PORT: u8 = 2;

const FAMILY_NONE: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Fills the front of a message buffer. Every message of this version is far shorter than the
/// buffer; `no_command_comes_near_the_limit` holds that.
struct Writer<'b> {
    buf: &'b mut MessageBuf,
    len: usize,
}

impl<'b> Writer<'b> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn head(&mut self, kind: u16, correlation: Correlation) {
        self.u16(kind);
        self.u16(0);
        self.u32(0);
        self.u64(correlation.0);
    }

    /// Sixteen bytes; an IPv4 address stands in the first four, the rest is zero.
    fn ip_octets(&mut self, ip: Option<IpAddr>) {
        let mut octets = [0; 16];
        match ip {
            None => {}
            Some(IpAddr::V4(ip)) => octets[..4].copy_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => octets = ip.octets(),
        }
        self.bytes(&octets);
    }

    /// 24 bytes: family u8, reserved u8, port u16, scope u32, address. The scope id is that of a
    /// link-local IPv6 address; flow labels are not carried.
    fn socket_addr(&mut self, addr: Option<SocketAddr>) {
        self.u8(family(addr.map(|addr| addr.ip())));
        self.u8(0);
        self.u16(addr.map_or(0, |addr| addr.port()));
        self.u32(match addr {
            Some(SocketAddr::V6(addr)) => addr.scope_id(),
            _ => 0,
        });
        self.ip_octets(addr.map(|addr| addr.ip()));
    }

    fn leg_config(&mut self, config: &LegConfig) {
        let (policy, ip) = match config.source {
            SourcePolicy::Nobody => (SOURCE_NOBODY, None),
            SourcePolicy::Exact => (SOURCE_EXACT, None),
            SourcePolicy::LearnPort { ip } => (SOURCE_LEARN_PORT, Some(ip)),
        };
        self.u8(policy);
        self.u8(family(ip));
        self.u32(0);
        self.ip_octets(ip);
        self.socket_addr(config.remote_rtp);
        self.socket_addr(config.remote_rtcp);
        let routes = config.routes.as_slice();
        self.u8(routes.len() as u8);
        self.u8(ROUTE_LEN);
        self.u16(0);
        self.u32(0);
        for route in routes {
            self.u8(route.from.get());
            self.u8(route.to.get());
            self.u16(0);
            self.u32(route.clock_rate.get());
        }
    }

    fn report(&mut self, report: &SessionReport) {
        self.u16(LEG_REPORT_LEN);
        self.u32(0);
        self.u64(report.session.0);
        for leg in &report.legs {
            self.u64(leg.rx_packets);
            self.u64(leg.rx_bytes);
            self.u64(leg.tx_packets);
            self.u64(leg.tx_bytes);
            self.u64(leg.rx_rtcp_packets);
            self.u64(leg.tx_rtcp_packets);
            self.u64(leg.dropped_packets);
        }
    }

    fn finish(self) -> &'b [u8] {
        &self.buf[..self.len]
    }
}

const fn family(ip: Option<IpAddr>) -> u8 {
    match ip {
        None => FAMILY_NONE,
        Some(IpAddr::V4(_)) => FAMILY_V4,
        Some(IpAddr::V6(_)) => FAMILY_V6,
    }
}

/// Reads fields from the front of a message. Never panics.
struct Reader<'a> {
    rest: &'a [u8],
    message_len: usize,
}

impl<'a> Reader<'a> {
    fn begin(bytes: &'a [u8]) -> Result<(Self, u16, Correlation), DecodeError> {
        let unanswerable = |fault| DecodeError {
            correlation: None,
            fault,
        };
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(unanswerable(DecodeFault::Long { len: bytes.len() }));
        }
        let mut r = Self {
            rest: bytes,
            message_len: bytes.len(),
        };
        let kind = r.u16("kind").map_err(unanswerable)?;
        r.take("reserved", 6).map_err(unanswerable)?;
        let correlation = Correlation(r.u64("correlation").map_err(unanswerable)?);
        Ok((r, kind, correlation))
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], DecodeFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeFault::Short {
            field,
            len: self.message_len,
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeFault> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeFault::Short {
                field,
                len: self.message_len,
            })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeFault> {
        self.array(field).map(u8::from_le_bytes)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, DecodeFault> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeFault> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeFault> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn enumerated<T: TryFrom<u8, Error = u8>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, DecodeFault> {
        T::try_from(self.u8(field)?).map_err(|value| bad(field, value.into()))
    }

    fn session(&mut self) -> Result<SessionId, DecodeFault> {
        self.u64("session").map(SessionId)
    }

    fn leg(&mut self) -> Result<LegIndex, DecodeFault> {
        self.enumerated("leg")
    }

    fn ip(&mut self, field: &'static str, family: u8) -> Result<Option<IpAddr>, DecodeFault> {
        let octets: [u8; 16] = self.array(field)?;
        match family {
            FAMILY_NONE => Ok(None),
            FAMILY_V4 => {
                let [a, b, c, d, ..] = octets;
                Ok(Some(Ipv4Addr::new(a, b, c, d).into()))
            }
            FAMILY_V6 => Ok(Some(Ipv6Addr::from(octets).into())),
            other => Err(bad(field, other.into())),
        }
    }

    fn socket_addr(&mut self, field: &'static str) -> Result<Option<SocketAddr>, DecodeFault> {
        let family = self.u8(field)?;
        self.u8(field)?;
        let port = self.u16(field)?;
        let scope_id = self.u32(field)?;
        Ok(self.ip(field, family)?.map(|ip| match ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id)),
        }))
    }

    fn leg_config(&mut self, direction: MediaDirection) -> Result<LegConfig, DecodeFault> {
        let policy = self.u8("source")?;
        let family = self.u8("source_ip")?;
        self.u32("reserved")?;
        let ip = self.ip("source_ip", family)?;
        let source = match policy {
            SOURCE_NOBODY => SourcePolicy::Nobody,
            SOURCE_EXACT => SourcePolicy::Exact,
            SOURCE_LEARN_PORT => SourcePolicy::LearnPort {
                ip: ip.ok_or(bad("source_ip", FAMILY_NONE.into()))?,
            },
            other => return Err(bad("source", other.into())),
        };
        let remote_rtp = self.socket_addr("remote_rtp")?;
        let remote_rtcp = self.socket_addr("remote_rtcp")?;
        let routes = self.routes()?;
        Ok(LegConfig {
            remote_rtp,
            remote_rtcp,
            source,
            direction,
            routes,
        })
    }

    fn routes(&mut self) -> Result<PayloadRoutes, DecodeFault> {
        let count = usize::from(self.u8("route_count")?);
        if count > PayloadRoutes::LEN_MAX {
            return Err(bad("route_count", count as u64));
        }
        let len = self.u8("route_len")?;
        if len < ROUTE_LEN {
            return Err(bad("route_len", len.into()));
        }
        self.take("reserved", 6)?;
        let mut routes = Vec::with_capacity(count);
        for _ in 0..count {
            let mut element = self.element("route", len.into())?;
            routes.push(PayloadRoute {
                from: element.payload_type("from")?,
                to: element.payload_type("to")?,
                clock_rate: {
                    element.u16("reserved")?;
                    let hz = element.u32("clock_rate")?;
                    ClockRateHz::new(hz).ok_or(bad("clock_rate", hz.into()))?
                },
            });
        }
        PayloadRoutes::new(routes).ok_or(DecodeFault::DuplicateRoute)
    }

    fn payload_type(&mut self, field: &'static str) -> Result<PayloadType, DecodeFault> {
        let value = self.u8(field)?;
        PayloadType::new(value).ok_or(bad(field, value.into()))
    }

    fn report(&mut self) -> Result<SessionReport, DecodeFault> {
        let len = self.u16("leg_report_len")?;
        if len < LEG_REPORT_LEN {
            return Err(bad("leg_report_len", len.into()));
        }
        self.u32("reserved")?;
        let session = self.session()?;
        let mut legs = [LegReport::default(); 2];
        for leg in &mut legs {
            let mut element = self.element("leg_report", len.into())?;
            *leg = LegReport {
                rx_packets: element.u64("rx_packets")?,
                rx_bytes: element.u64("rx_bytes")?,
                tx_packets: element.u64("tx_packets")?,
                tx_bytes: element.u64("tx_bytes")?,
                rx_rtcp_packets: element.u64("rx_rtcp_packets")?,
                tx_rtcp_packets: element.u64("tx_rtcp_packets")?,
                dropped_packets: element.u64("dropped_packets")?,
            };
        }
        Ok(SessionReport { session, legs })
    }

    /// A reader of the next `len` bytes only, so that an element's unknown end is skipped.
    fn element(&mut self, field: &'static str, len: usize) -> Result<Reader<'a>, DecodeFault> {
        Ok(Reader {
            rest: self.take(field, len)?,
            message_len: self.message_len,
        })
    }
}

#[cfg(test)]
mod tests;
