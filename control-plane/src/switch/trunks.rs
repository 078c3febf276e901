//! Trunks at work: their names looked up, their health asked for, registrations kept, and the
//! calls that go out through them. What is decided, and when, is in [`crate::trunk`].
//!
//! | module | what it does |
//! |---|---|
//! | [`host`] | one destination: its addresses and its health |
//! | [`asking`] | OPTIONS and REGISTER, and what comes of them |
//! | [`outgoing`] | a member's call on its way through one trunk after the other |
//! | [`view`] | how they stand, for operators |

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use sipx_sip::Uri;
use trunkline_edge_api::MonoTime;
use trunkline_sip::agent::{ClientRequestId, RequestSequence};
use trunkline_sip::digest::ClientCredentials;
use trunkline_sip::flow::{ConnectionId, Flow, LocalEnds};
use trunkline_sip::locate::{LocateError, Located, Location};

use super::Switch;
use super::calls::CallKey;
use crate::call::Input;
use crate::site::Name;
use crate::store::{RoutingSnapshot, TrunkRoute};
use crate::trunk::pacing::Pacer;
use crate::trunk::registration::{Registration, RegistrationState};

mod asking;
mod host;
pub(super) mod outgoing;
mod view;

use host::{Host, Names};
use outgoing::OutboundCalls;
pub use view::{DestinationView, RegistrationView, TrunkView};

/// First questions of many trunks are spread over this long, milliseconds.
const SPREAD_MILLIS: u64 = 2_000;

/// Everything that is known of trunks while the daemon runs.
pub(super) struct Trunks {
    states: BTreeMap<Name, TrunkState>,
    ends: Arc<LocalEnds>,
    /// Questions that wait for a response.
    asked: HashMap<ClientRequestId, Asked>,
    /// Names that wait for the resolver.
    lookups: HashMap<u64, Lookup>,
    lookup_next: u64,
    wanted: VecDeque<(u64, Uri)>,
    /// Addresses that DNS says are sources.
    sources: HashMap<IpAddr, Name>,
    pub(super) calls: OutboundCalls,
    /// The site has changed and this has not followed yet.
    is_stale: bool,
    due: Option<MonoTime>,
}

/// One trunk.
struct TrunkState {
    route: Arc<TrunkRoute>,
    hosts: Vec<Host>,
    source_names: Vec<Names>,
    registration: Option<OurRegistration>,
    credentials: Option<Arc<ClientCredentials>>,
    pacer: Pacer,
    /// Calls at this time, both ways.
    channels: u32,
    counts: TrunkCounts,
    /// Status of the last call that was refused.
    last_cause: Option<u16>,
}

/// What a trunk has counted since the daemon began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct TrunkCounts {
    /// INVITEs sent.
    pub attempts: u64,
    /// Of them, answered.
    pub answered: u64,
    /// Of them, refused or not answered.
    pub failed: u64,
    /// Calls that went on to the next destination or trunk.
    pub failovers: u64,
    /// Calls that were not sent because too many waited for their turn.
    pub paced_out: u64,
    /// Calls that were not sent or taken because the channels were in use.
    pub channels_full: u64,
}

/// Our registration at a trunk.
struct OurRegistration {
    machine: Registration,
    /// Call-ID and number of the last REGISTER.
    sequence: Option<RequestSequence>,
    /// The way it went; calls come in on it.
    flow: Option<Flow>,
}

/// What a response is about.
#[derive(Debug, Clone)]
enum Asked {
    Options { trunk: Name, host: usize },
    Register { trunk: Name },
}

/// What a looked-up name is for.
#[derive(Debug, Clone)]
enum Lookup {
    Host { trunk: Name, host: usize },
    Source { trunk: Name, index: usize },
}

impl Trunks {
    pub(super) fn new(ends: Arc<LocalEnds>) -> Self {
        Self {
            states: BTreeMap::new(),
            ends,
            asked: HashMap::new(),
            lookups: HashMap::new(),
            lookup_next: 0,
            wanted: VecDeque::new(),
            sources: HashMap::new(),
            calls: OutboundCalls::default(),
            is_stale: false,
            due: None,
        }
    }

    /// The site has changed.
    pub(super) fn invalidate(&mut self) {
        self.is_stale = true;
        self.due = Some(MonoTime(0));
    }

    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        self.due.into_iter().chain(self.calls.poll_timeout()).min()
    }

    /// The next name to look up, with its ticket.
    pub(super) fn poll_lookup(&mut self) -> Option<(u64, Uri)> {
        self.wanted.pop_front()
    }

    /// Takes over what the site says. A trunk that is as it was keeps what is known of it.
    fn follow(&mut self, now: MonoTime, snapshot: &RoutingSnapshot, mut draw: impl FnMut() -> u64) {
        let mut before = std::mem::take(&mut self.states);
        for route in snapshot.trunks() {
            let mut state = match before.remove(&route.name) {
                Some(state) if state.route.settings == route.settings => state,
                old => {
                    let mut state = TrunkState::new(now, route, &mut draw);
                    if let Some(old) = old {
                        (state.channels, state.counts) = (old.channels, old.counts);
                    }
                    state
                }
            };
            state.route = Arc::clone(route);
            self.states.insert(route.name.clone(), state);
        }
        self.sources
            .retain(|_, name| self.states.contains_key(name));
        self.is_stale = false;
    }

    /// The trunk that `flow` is the way of: by what DNS says of its sources, or because we
    /// registered there.
    pub(super) fn trunk_of(&self, flow: &Flow) -> Option<&Arc<TrunkRoute>> {
        let ip = flow.remote.ip().to_canonical();
        let by_name = self.sources.get(&ip).and_then(|name| self.states.get(name));
        let is_ours = |state: &&TrunkState| {
            let registration = state.registration.as_ref();
            registration.is_some_and(|registration| {
                registration.machine.state() == RegistrationState::Registered
                    && registration
                        .flow
                        .as_ref()
                        .is_some_and(|ours| ours.remote == flow.remote && ours.kind == flow.kind)
            })
        };
        let state = by_name.or_else(|| self.states.values().find(is_ours))?;
        Some(&state.route)
    }

    /// The user part that a trunk calls us by, where we registered there.
    pub(super) fn registered_user(&self, trunk: &Name) -> Option<&str> {
        let state = self.states.get(trunk)?;
        state.registration.as_ref()?;
        let login = state.route.settings.login.as_ref()?;
        Some(&login.user)
    }

    fn reschedule(&mut self) {
        let states = self.states.values();
        self.due = states.filter_map(TrunkState::poll_timeout).min();
    }

    fn look_up(&mut self, lookup: Lookup, uri: Uri) {
        self.lookup_next += 1;
        self.lookups.insert(self.lookup_next, lookup);
        self.wanted.push_back((self.lookup_next, uri));
    }

    /// Looks a name up, or takes an address as it stands.
    fn locate(&mut self, now: MonoTime, lookup: Lookup, uri: &Uri) {
        let location = Location::new(uri, &self.ends.kinds());
        if location.questions().is_empty() {
            self.located(now, &lookup, location.finish());
        } else {
            self.look_up(lookup, uri.clone());
        }
    }

    /// The resolver has answered, or the network is not needed for it.
    fn located(&mut self, now: MonoTime, lookup: &Lookup, outcome: Result<Located, LocateError>) {
        match lookup {
            Lookup::Host { trunk, host } => {
                let state = self.states.get_mut(trunk);
                if let Some(host) = state.and_then(|state| state.hosts.get_mut(*host)) {
                    host.names.handle_outcome(now, outcome);
                }
            }
            Lookup::Source { trunk, index } => {
                let state = self.states.get_mut(trunk);
                if let Some(names) = state.and_then(|state| state.source_names.get_mut(*index)) {
                    names.handle_outcome(now, outcome);
                    self.gather_sources(&trunk.clone());
                }
            }
        }
    }

    /// Admits a trunk's calls from what its names stand for now, and from nowhere else.
    fn gather_sources(&mut self, trunk: &Name) {
        let Some(state) = self.states.get(trunk) else {
            return;
        };
        let addresses: BTreeSet<IpAddr> = state
            .source_names
            .iter()
            .flat_map(|names| &names.hops)
            .map(|hop| hop.address.ip().to_canonical())
            .collect();
        self.sources
            .retain(|ip, name| name != trunk || addresses.contains(ip));
        for ip in addresses {
            // Of two trunks that claim one address, the first keeps it.
            self.sources.entry(ip).or_insert_with(|| trunk.clone());
        }
    }
}

impl TrunkState {
    fn new(now: MonoTime, route: &Arc<TrunkRoute>, draw: &mut impl FnMut() -> u64) -> Self {
        let settings = &route.settings;
        let mut offset = || draw() % SPREAD_MILLIS;
        let hosts = settings.destinations.iter();
        let hosts = hosts.filter_map(|it| Host::new(now, it, settings, offset() / 8));
        let registration = settings.register.map(|register| OurRegistration {
            machine: Registration::new(now, register.expires_secs, 0),
            sequence: None,
            flow: None,
        });
        let source_names = settings.source_names.iter();
        Self {
            hosts: hosts.collect(),
            source_names: source_names
                .filter_map(|it| Names::of_source(now, it))
                .collect(),
            registration,
            credentials: settings.login.as_ref().map(|login| {
                let (user, password) = (login.user.clone(), login.password.0.clone());
                Arc::new(ClientCredentials::with_password(user, password))
            }),
            pacer: Pacer::new(settings.cps),
            channels: 0,
            counts: TrunkCounts::default(),
            last_cause: None,
            route: Arc::clone(route),
        }
    }

    fn poll_timeout(&self) -> Option<MonoTime> {
        let hosts = self.hosts.iter().filter_map(Host::poll_timeout);
        let names = self.source_names.iter().filter_map(Names::poll_timeout);
        let registration = self.registration.as_ref();
        let registration = registration.and_then(|it| it.machine.poll_timeout());
        hosts.chain(names).chain(registration).min()
    }

    fn has_channel(&self) -> bool {
        let max = self.route.settings.channels_max;
        max.is_none_or(|max| self.channels < max)
    }
}

impl Switch {
    /// The next host name to look up: a ticket and the URI. The outcome comes back through
    /// [`Self::handle_resolved`].
    pub fn poll_lookup(&mut self) -> Option<(u64, Uri)> {
        self.trunks.poll_lookup()
    }

    /// What a name stands for.
    pub fn handle_resolved(
        &mut self,
        now: MonoTime,
        ticket: u64,
        outcome: Result<Located, LocateError>,
    ) {
        if let Some(lookup) = self.trunks.lookups.remove(&ticket) {
            self.trunks.located(now, &lookup, outcome);
            self.trunks.reschedule();
        }
    }

    /// A connection has closed: who registered over it does so again.
    pub(super) fn trunk_connection_closed(&mut self, now: MonoTime, connection: ConnectionId) {
        for state in self.trunks.states.values_mut() {
            if let Some(registration) = &mut state.registration
                && let Some(flow) = &registration.flow
                && flow.connection == Some(connection)
            {
                registration.machine.handle_flow_lost(now);
            }
        }
        self.trunks.reschedule();
    }

    /// What is due: names, questions, registrations, calls whose turn or whose end has come.
    pub(super) fn trunks_timeout(&mut self, now: MonoTime) {
        if self.trunks.is_stale {
            let snapshot = Arc::clone(&self.snapshot);
            let entropy = &mut self.entropy;
            self.trunks.follow(now, &snapshot, || entropy.next_u64());
        }
        for (key, fork, request) in self.trunks.calls.take_turns(now) {
            self.send_invite(now, key, fork, request);
        }
        for key in self.trunks.calls.take_ends(now) {
            tracing::info!("an outbound call has lasted as long as it may");
            self.inputs.push_back((key, Input::Shutdown));
        }
        if self.trunks.due.is_some_and(|due| due <= now) {
            self.look_up_names(now);
            self.ask_trunks(now);
            self.trunks.reschedule();
        }
    }

    fn look_up_names(&mut self, now: MonoTime) {
        let mut wanted = Vec::new();
        for (trunk, state) in &mut self.trunks.states {
            for (host, it) in state.hosts.iter_mut().enumerate() {
                if let Some(uri) = it.names.handle_timeout(now) {
                    let trunk = trunk.clone();
                    wanted.push((Lookup::Host { trunk, host }, uri));
                }
            }
            for (index, it) in state.source_names.iter_mut().enumerate() {
                if let Some(uri) = it.handle_timeout(now) {
                    let trunk = trunk.clone();
                    wanted.push((Lookup::Source { trunk, index }, uri));
                }
            }
        }
        for (lookup, uri) in wanted {
            self.trunks.locate(now, lookup, &uri);
        }
    }

    /// A call has ended, or never begun: its channels are free again.
    pub(super) fn release_channels(&mut self, now: MonoTime, key: CallKey) {
        if let Some(trunk) = self.trunks.calls.release(now, key)
            && let Some(state) = self.trunks.states.get_mut(&trunk)
        {
            state.channels = state.channels.saturating_sub(1);
        }
    }
}
