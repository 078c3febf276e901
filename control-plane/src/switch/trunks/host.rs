//! One destination of a trunk: the addresses its name stands for, and whether it lives.

use bytes::Bytes;
use sipx_sip::Uri;
use trunkline_edge_api::MonoTime;
use trunkline_sip::locate::{Hop, LocateError, Located};

use crate::trunk::destination::Destination;
use crate::trunk::health::Health;
use crate::trunk::settings::{TrunkSettings, TrunkTransport};

/// A name whose lookup failed is asked for again after this, seconds.
const RETRY_SECS: u64 = 5;

/// A lookup that is not answered at all is given up after this, seconds.
const LOOKUP_SECS: u64 = 20;

/// A name, and what it stands for at present.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) uri: Uri,
    /// In the order of preference. What was known stays while DNS does not answer.
    pub(super) hops: Vec<Hop>,
    pub(super) error: Option<LocateError>,
    refresh_at: MonoTime,
}

impl Names {
    fn new(now: MonoTime, uri: Uri) -> Self {
        Self {
            uri,
            hops: Vec::new(),
            error: None,
            refresh_at: now,
        }
    }

    /// A host whose addresses are sources of calls.
    pub(super) fn of_source(now: MonoTime, name: &str) -> Option<Self> {
        let uri = Uri::parse(Bytes::from(format!("sip:{name}"))).ok()?;
        Some(Self::new(now, uri))
    }

    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        Some(self.refresh_at)
    }

    /// `Some`: look this up, and say what came of it in [`Self::handle_outcome`].
    pub(super) fn handle_timeout(&mut self, now: MonoTime) -> Option<Uri> {
        if now < self.refresh_at {
            return None;
        }
        self.refresh_at = now.plus_secs(LOOKUP_SECS);
        Some(self.uri.clone())
    }

    pub(super) fn handle_outcome(&mut self, now: MonoTime, outcome: Result<Located, LocateError>) {
        match outcome {
            Ok(located) => {
                self.hops = located.hops;
                self.error = None;
                let secs = u64::from(located.ttl_secs).max(RETRY_SECS);
                self.refresh_at = now.plus_secs(secs);
            }
            Err(error) => {
                if !error.is_temporary() {
                    self.hops.clear();
                }
                if self.error != Some(error) {
                    let host = self.uri.to_string();
                    tracing::warn!(host, %error, "a trunk's name does not stand for an address");
                }
                self.error = Some(error);
                self.refresh_at = now.plus_secs(RETRY_SECS);
            }
        }
    }

    /// The address to send to; another one each time that one was lost.
    pub(super) fn hop(&self) -> Option<&Hop> {
        self.hops.first()
    }

    /// The address did not answer: the next one is tried from now on.
    pub(super) fn rotate(&mut self) {
        if self.hops.len() > 1 {
            self.hops.rotate_left(1);
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) destination: Destination,
    pub(super) names: Names,
    pub(super) health: Health,
}

impl Host {
    pub(super) fn new(
        now: MonoTime,
        destination: &Destination,
        settings: &TrunkSettings,
        offset_millis: u64,
    ) -> Option<Self> {
        let uri = uri_of("", destination, settings.transport)?;
        Some(Self {
            destination: destination.clone(),
            names: Names::new(now, uri),
            health: Health::new(now, settings.options_secs, offset_millis),
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        let health = self.health.poll_timeout();
        self.names.poll_timeout().into_iter().chain(health).min()
    }
}

/// The URI of `user` at a destination; the destination's own when `user` is empty.
pub(super) fn uri_of(
    user: &str,
    destination: &Destination,
    transport: TrunkTransport,
) -> Option<Uri> {
    let parameter = match transport {
        TrunkTransport::Udp => "",
        TrunkTransport::Tcp => ";transport=tcp",
        TrunkTransport::Tls => ";transport=tls",
    };
    let at = if user.is_empty() { "" } else { "@" };
    let text = format!("sip:{user}{at}{}{parameter}", destination.host_port());
    Uri::parse(Bytes::from(text)).ok()
}
