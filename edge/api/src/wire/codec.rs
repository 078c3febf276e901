//! Fields of messages, in and out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{DecodeError, DecodeFault, MESSAGE_LEN_MAX, MessageBuf, bad};
use crate::command::{
    LegConfig, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes, SourcePolicy,
};
use crate::crypto::{LegCrypto, SrtpKey, SrtpSuite};
use crate::event::{LegReport, SessionReport};
use crate::source_networks::{SourceNetwork, SourceNetworks};
use crate::vocabulary::{ClockRateHz, Correlation, LegIndex, PayloadType, SessionId};

/// Length of one payload route: from u8, to u8, reserved u16, clock rate u32.
const ROUTE_LEN: u8 = 8;

/// Length of one leg report of this version: the seven u64 of 1.0 and 64 bytes of 1.1.
const LEG_REPORT_LEN: u16 = 120;

/// Length of the shortest leg report, that of 1.0.
const LEG_REPORT_LEN_MIN: u16 = 56;

const SOURCE_NOBODY: u8 = 0;
const SOURCE_EXACT: u8 = 1;
const SOURCE_LEARN_PORT: u8 = 2;
const SOURCE_NETWORKS: u8 = 3;

/// Stands where a suite's number would.
const NO_CRYPTO: u8 = 0;

const FAMILY_NONE: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Fills the front of a message buffer. Every message of this version is far shorter than the
/// buffer; `no_command_comes_near_the_limit` holds that.
pub(super) struct Writer<'b> {
    buf: &'b mut MessageBuf,
    len: usize,
}

impl<'b> Writer<'b> {
    pub(super) fn new(buf: &'b mut MessageBuf) -> Self {
        Self { buf, len: 0 }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn head(&mut self, kind: u16, correlation: Correlation) {
        self.u16(kind);
        self.u16(0);
        self.u32(0);
        self.u64(correlation.0);
    }

    /// Sixteen bytes; an IPv4 address stands in the first four, the rest is zero.
    pub(super) fn ip_octets(&mut self, ip: Option<IpAddr>) {
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
    pub(super) fn socket_addr(&mut self, addr: Option<SocketAddr>) {
        self.u8(family(addr.map(|addr| addr.ip())));
        self.u8(0);
        self.u16(addr.map_or(0, |addr| addr.port()));
        self.u32(match addr {
            Some(SocketAddr::V6(addr)) => addr.scope_id(),
            _ => 0,
        });
        self.ip_octets(addr.map(|addr| addr.ip()));
    }

    pub(super) fn leg_config(&mut self, config: &LegConfig) {
        let (policy, ip) = match &config.source {
            SourcePolicy::Nobody => (SOURCE_NOBODY, None),
            SourcePolicy::Exact => (SOURCE_EXACT, None),
            SourcePolicy::LearnPort { ip } => (SOURCE_LEARN_PORT, Some(*ip)),
            SourcePolicy::Networks(_) => (SOURCE_NETWORKS, None),
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
        self.leg_config_of_1_1(config);
        if let SourcePolicy::Networks(networks) = &config.source {
            self.networks(networks);
        }
    }

    /// Behind everything else, and only with their policy: count u8, reserved 3; for each family
    /// u8, prefix length u8, reserved u16, address.
    fn networks(&mut self, networks: &SourceNetworks) {
        self.bytes(&[networks.as_slice().len() as u8, 0, 0, 0]);
        for network in networks.as_slice() {
            let ip = Some(network.address());
            self.bytes(&[family(ip), network.prefix_len(), 0, 0]);
            self.ip_octets(ip);
        }
    }

    /// What 1.1 put behind the routes: three limits, suite u8, lengths of both keys u8, reserved
    /// u8, the keys.
    fn leg_config_of_1_1(&mut self, config: &LegConfig) {
        self.u32(config.timeouts.never_started_secs);
        self.u32(config.timeouts.stopped_secs);
        self.u32(config.timeouts.held_secs);
        let Some(crypto) = &config.crypto else {
            self.bytes(&[NO_CRYPTO, 0, 0, 0]);
            return;
        };
        let keys = [&crypto.send, &crypto.receive].map(SrtpKey::key_and_salt);
        let [send_len, receive_len] = keys.map(|key| key.len() as u8);
        self.bytes(&[crypto.suite as u8, send_len, receive_len, 0]);
        for key in keys {
            self.bytes(key);
        }
    }

    pub(super) fn report(&mut self, report: &SessionReport) {
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
            self.u64(leg.lost_packets);
            self.u64(leg.reordered_packets);
            self.u64(leg.duplicate_packets);
            self.u32(leg.jitter_micros);
            self.u32(leg.jitter_max_micros);
            self.u32(leg.rtt_micros);
            self.u16(leg.mos_centi);
            self.u16(0);
            self.u64(leg.remote_lost_packets);
            self.u32(leg.remote_jitter_micros);
            self.u32(0);
            self.u64(leg.srtp_failed_packets);
        }
    }

    pub(super) fn finish(self) -> &'b [u8] {
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
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    message_len: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn begin(bytes: &'a [u8]) -> Result<(Self, u16, Correlation), DecodeError> {
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

    /// Whether the message, or the element, holds no more: an older peer wrote it.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], DecodeFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeFault::Short {
            field,
            len: self.message_len,
        })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeFault> {
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

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeFault> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeFault> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeFault> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeFault> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn enumerated<T: TryFrom<u8, Error = u8>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, DecodeFault> {
        T::try_from(self.u8(field)?).map_err(|value| bad(field, value.into()))
    }

    pub(super) fn session(&mut self) -> Result<SessionId, DecodeFault> {
        self.u64("session").map(SessionId)
    }

    pub(super) fn leg(&mut self) -> Result<LegIndex, DecodeFault> {
        self.enumerated("leg")
    }

    pub(super) fn ip(
        &mut self,
        field: &'static str,
        family: u8,
    ) -> Result<Option<IpAddr>, DecodeFault> {
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

    pub(super) fn socket_addr(
        &mut self,
        field: &'static str,
    ) -> Result<Option<SocketAddr>, DecodeFault> {
        let family = self.u8(field)?;
        self.u8(field)?;
        let port = self.u16(field)?;
        let scope_id = self.u32(field)?;
        Ok(self.ip(field, family)?.map(|ip| match ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id)),
        }))
    }

    pub(super) fn leg_config(
        &mut self,
        direction: MediaDirection,
    ) -> Result<LegConfig, DecodeFault> {
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
            // Which they are stands at the end.
            SOURCE_NETWORKS => SourcePolicy::Nobody,
            other => return Err(bad("source", other.into())),
        };
        let remote_rtp = self.socket_addr("remote_rtp")?;
        let remote_rtcp = self.socket_addr("remote_rtcp")?;
        let routes = self.routes()?;
        let (timeouts, crypto) = if self.is_at_end() {
            (MediaTimeouts::OFF, None)
        } else {
            (self.timeouts()?, self.crypto()?)
        };
        let source = match policy {
            SOURCE_NETWORKS => SourcePolicy::Networks(self.networks()?),
            _ => source,
        };
        Ok(LegConfig {
            remote_rtp,
            remote_rtcp,
            source,
            direction,
            routes,
            crypto,
            timeouts,
        })
    }

    fn networks(&mut self) -> Result<SourceNetworks, DecodeFault> {
        let count = self.u8("network_count")?;
        self.take("reserved", 3)?;
        let mut networks = Vec::with_capacity(SourceNetworks::LEN_MAX);
        for _ in 0..count {
            let family = self.u8("network")?;
            let prefix_len = self.u8("prefix_len")?;
            self.u16("reserved")?;
            let network = self
                .ip("network", family)?
                .and_then(|address| SourceNetwork::new(address, prefix_len));
            networks.push(network.ok_or(bad("network", prefix_len.into()))?);
        }
        SourceNetworks::new(&networks).ok_or(bad("network_count", count.into()))
    }

    fn timeouts(&mut self) -> Result<MediaTimeouts, DecodeFault> {
        Ok(MediaTimeouts {
            never_started_secs: self.u32("never_started_secs")?,
            stopped_secs: self.u32("stopped_secs")?,
            held_secs: self.u32("held_secs")?,
        })
    }

    fn crypto(&mut self) -> Result<Option<LegCrypto>, DecodeFault> {
        let suite = self.u8("suite")?;
        let lens = [self.u8("send_key_len")?, self.u8("receive_key_len")?];
        self.u8("reserved")?;
        if suite == NO_CRYPTO {
            return Ok(None);
        }
        let suite = SrtpSuite::try_from(suite).map_err(|value| bad("suite", value.into()))?;
        let mut key = |field, len: u8| {
            let bytes = self.take(field, len.into())?;
            SrtpKey::new(suite, bytes).ok_or(bad(field, len.into()))
        };
        Ok(Some(LegCrypto {
            suite,
            send: key("send_key", lens[0])?,
            receive: key("receive_key", lens[1])?,
        }))
    }

    pub(super) fn routes(&mut self) -> Result<PayloadRoutes, DecodeFault> {
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

    pub(super) fn payload_type(&mut self, field: &'static str) -> Result<PayloadType, DecodeFault> {
        let value = self.u8(field)?;
        PayloadType::new(value).ok_or(bad(field, value.into()))
    }

    pub(super) fn report(&mut self) -> Result<SessionReport, DecodeFault> {
        let len = self.u16("leg_report_len")?;
        if len < LEG_REPORT_LEN_MIN {
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
                ..LegReport::default()
            };
            if !element.is_at_end() {
                element.leg_report_of_1_1(leg)?;
            }
        }
        Ok(SessionReport { session, legs })
    }

    fn leg_report_of_1_1(&mut self, leg: &mut LegReport) -> Result<(), DecodeFault> {
        leg.lost_packets = self.u64("lost_packets")?;
        leg.reordered_packets = self.u64("reordered_packets")?;
        leg.duplicate_packets = self.u64("duplicate_packets")?;
        leg.jitter_micros = self.u32("jitter_micros")?;
        leg.jitter_max_micros = self.u32("jitter_max_micros")?;
        leg.rtt_micros = self.u32("rtt_micros")?;
        leg.mos_centi = self.u16("mos_centi")?;
        self.u16("reserved")?;
        leg.remote_lost_packets = self.u64("remote_lost_packets")?;
        leg.remote_jitter_micros = self.u32("remote_jitter_micros")?;
        self.u32("reserved")?;
        leg.srtp_failed_packets = self.u64("srtp_failed_packets")?;
        Ok(())
    }

    /// A reader of the next `len` bytes only, so that an element's unknown end is skipped.
    pub(super) fn element(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<Reader<'a>, DecodeFault> {
        Ok(Reader {
            rest: self.take(field, len)?,
            message_len: self.message_len,
        })
    }
}
