//! How trunks stand, for operators and metrics.

use serde::{Deserialize, Serialize};
use trunkline_edge_api::MonoTime;

use super::{Switch, TrunkCounts, TrunkState};
use crate::store::{TrunkRoute, TrunkRow};
use crate::trunk::health::HealthState;
use crate::trunk::policy::Refusal;
use crate::trunk::registration::RegistrationState;

/// One trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkView {
    /// What the site says of it.
    #[serde(flatten)]
    pub configured: TrunkRow,
    /// The best state of its destinations; unknown without any.
    pub state: HealthState,
    /// Where its calls go.
    pub destinations: Vec<DestinationView>,
    /// Our registration there, where there is one.
    pub registration: Option<RegistrationView>,
    /// Calls at this time, both ways.
    pub channels: u32,
    /// Most of them; `None`: no limit.
    pub channels_max: Option<u32>,
    /// Calls per second that go out; 0: no limit.
    pub cps: u32,
    /// Calls that wait for their turn.
    pub waiting: u64,
    /// Status of the last call that it refused.
    pub last_cause: Option<u16>,
    /// Since the daemon began.
    pub counts: TrunkCounts,
    /// Addresses that DNS says are its sources.
    pub dns_sources: Vec<String>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationView {
    /// As the site file says it.
    pub host: String,
    /// What is thought of it.
    pub state: HealthState,
    /// From OPTIONS to its answer, microseconds.
    pub rtt_micros: Option<u32>,
    /// The address that calls go to now.
    pub address: Option<String>,
    /// Why there is none.
    pub problem: Option<String>,
}

/// Our registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationView {
    /// How it stands.
    pub state: RegistrationState,
    /// For how long it is still good, seconds.
    pub expires_secs: Option<u64>,
    /// The last final status.
    pub last_status: Option<u16>,
}

impl Switch {
    /// Every trunk, by name.
    #[must_use]
    pub fn trunks(&self, now: MonoTime) -> Vec<TrunkView> {
        let states = self.trunks.states.values();
        states
            .map(|state| {
                let mut view = view(now, state);
                let sources = self.trunks.sources.iter();
                let own = sources.filter(|(_, name)| **name == state.route.name);
                view.dns_sources = own.map(|(ip, _)| ip.to_string()).collect();
                view.dns_sources.sort_unstable();
                view
            })
            .collect()
    }

    /// Outbound calls that were not let out, by reason.
    pub fn outbound_refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let counts = self.trunks.calls.refusals().iter().copied();
        Refusal::ALL.iter().copied().zip(counts)
    }
}

fn view(now: MonoTime, state: &TrunkState) -> TrunkView {
    let destinations: Vec<DestinationView> = state
        .hosts
        .iter()
        .map(|host| DestinationView {
            host: host.destination.to_string(),
            state: host.health.state(),
            rtt_micros: host.health.rtt_micros(),
            address: host.names.hop().map(|hop| hop.address.to_string()),
            problem: host.names.error.map(|error| error.to_string()),
        })
        .collect();
    let has = |wanted| destinations.iter().any(|it| it.state == wanted);
    let best = if has(HealthState::Up) {
        HealthState::Up
    } else if has(HealthState::Unknown) || destinations.is_empty() {
        HealthState::Unknown
    } else {
        HealthState::Down
    };
    TrunkView {
        configured: row(&state.route),
        state: best,
        destinations,
        registration: state.registration.as_ref().map(|it| RegistrationView {
            state: it.machine.state(),
            expires_secs: it.machine.expires_in_secs(now),
            last_status: it.machine.last_status(),
        }),
        channels: state.channels,
        channels_max: state.route.settings.channels_max,
        cps: state.pacer.per_second(),
        waiting: state.pacer.waiting(now),
        last_cause: state.last_cause,
        counts: state.counts,
        dns_sources: Vec::new(),
    }
}

fn row(route: &TrunkRoute) -> TrunkRow {
    let texts = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect();
    let mut sources: Vec<String> = texts(&route.sources);
    sources.extend(route.settings.source_names.iter().cloned());
    TrunkRow {
        name: route.name.to_string(),
        tenant: route.tenant.to_string(),
        sources,
        srtp: route.srtp.to_string(),
        media_from: texts(&route.media_from),
        media: route.media.as_ref().map(ToString::to_string),
        transcode: route.audio.transcode.as_str().to_owned(),
        dtmf: route.audio.dtmf.as_str().to_owned(),
    }
}
