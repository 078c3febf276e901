//! The daemon: its threads, and the call thread's loop.
//!
//! | thread | does |
//! |---|---|
//! | `main` | the call thread: everything in `CallThread` |
//! | `store`, `cdr`, `http`, `operator` | what may wait for a disk or a client |
//! | `pins` | the slow hashes of conference PINs |
//!
//! The call thread waits in one place, `CallThread::turn`, for all its sources at once, and asks
//! no other thread for anything it would have to wait for.

use std::collections::VecDeque;
use std::future::pending;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use trunkline_edge_api::config::MediaAddress;
use trunkline_edge_api::{Epoch, Event, MonoTime};
use trunkline_ring::monotonic_now;
use trunkline_sip::Entropy;
use trunkline_sip::flow::{LocalEnd, LocalEnds};
use trunkline_sip::locate::LocateError;
use trunkline_sip::offer_answer::MediaAddresses;

use crate::cdr::{self, CallDirection, CdrWriter};
use crate::config::{ControlConfig, SipConfig, SipListen, TlsFiles};
use crate::edge::link::{EdgeLink, LinkError, LinkEvent};
use crate::epoch;
use crate::health::Health;
use crate::http::{self, HttpSources};
use crate::metrics::{CallMetrics, Metrics, WorkerPage};
use crate::operator::{self, OperatorRequest, OperatorSources};
use crate::pin::{PinChecker, PinVerdict};
use crate::resolver::{Resolved, Resolver};
use crate::store::{self, RoutingSnapshot, StoreOptions};
use crate::switch::{CallKey, Switch, SwitchConfig};
use crate::trace::exporter::Exporter;
use crate::transport::tls::TlsKeeper;
use crate::transport::{Inbound, Transport, TransportOptions};

mod answers;
mod directories;

use answers::{ActionsAsked, CallsAsked, Followers};

/// Heartbeats and gauges. Five times a second, so that who looks after a change sees it; one round
/// costs a few microseconds.
const TICK: Duration = Duration::from_millis(200);

/// Between two attempts to reach the edge. A restarted edge is found within this, which is part of
/// the silence its calls hear.
const EDGE_RETRY: Duration = Duration::from_millis(100);

/// How long a stopping daemon lets its goodbyes go out and be answered.
const GOODBYE: Duration = Duration::from_secs(2);

/// Operator's questions that may wait for the call thread.
const OPERATOR_QUEUE_LEN: usize = 16;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, with what to change.
pub fn run(config: &ControlConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let state_dir = &config.node.state_dir;
    let unix_secs = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs());
    let epoch = epoch::take_next(state_dir, unix_secs)?;
    directories::make(&config.media_policy);

    let (store, store_thread) =
        store::open(StoreOptions::new(config.store_path(), &config.sip.realm))?;
    let (cdr, cdr_thread) = cdr::spawn(&config.spool_path(), store.clone())?;
    let tls = Arc::new(TlsKeeper::open(tls_files(&config.sip))?);
    let metrics = Arc::new(Metrics::new()?);
    let interfaces = config.edge.media_addresses.iter();
    metrics
        .workers()
        .name_interfaces(interfaces.map(|entry| entry.name.clone()).collect());
    metrics.watch_cdr(cdr.status())?;
    let health = Arc::new(Health::default());
    let (calls, operator_requests) = mpsc::channel(OPERATOR_QUEUE_LEN);
    let sources = HttpSources {
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        store: store.clone(),
        cdr: cdr.status(),
        calls: calls.clone(),
    };
    let http = http::spawn(&config.http, sources)?;
    let routing = store.routing();
    let used = runtime.block_on(store.outbound_usage(day_began(unix_ms())))?;
    let operator_sources = OperatorSources {
        node: config.node.name.clone(),
        calls,
        store,
        cdr: cdr.status(),
        tls: Arc::clone(&tls),
    };
    let operator = operator::spawn(&config.node.control_socket(), operator_sources)?;

    let exporter = match config.trace.hep {
        Some(server) => Some(
            Exporter::spawn(server, config.trace.hep_id)
                .with_context(|| format!("[trace] hep = \"{server}\""))?,
        ),
        None => None,
    };
    let kinds = local_ends(&config.sip.listen).kinds();
    let resolver = Resolver::spawn(&config.sip.dns, kinds)?;

    let result = runtime.block_on(async {
        let mut call_thread = CallThread {
            switch: new_switch(config, epoch)?,
            transport: Transport::bind(
                &config.sip.listen,
                TransportOptions {
                    limits: config.sip.limits,
                    websocket: config.sip.websocket.clone(),
                    tls: tls.contexts(),
                },
            )?,
            edge: EdgeState::Away {
                retry_at: Instant::now(),
            },
            edge_socket: config.node.edge_socket().into(),
            epoch,
            routing,
            resolver,
            operator_requests,
            calls_asked: VecDeque::new(),
            actions_asked: ActionsAsked::default(),
            followers: Followers::default(),
            pins: PinChecker::spawn()?,
            cdr,
            exporter,
            call_metrics: metrics.call_metrics()?,
            workers: metrics.workers(),
            health,
            started_at: monotonic_now(),
            listen: config.sip.listen.iter().map(ToString::to_string).collect(),
            media_addresses: config.edge.media_addresses.clone(),
            calls_max: config.sip.calls_max as usize,
            tick: interval(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            inbound: Vec::new(),
            events: Vec::new(),
        };
        call_thread.switch.take_usage(unix_ms(), &used);
        tracing::info!(epoch = epoch.0, "control is up");
        call_thread.run().await;
        anyhow::Ok(())
    });
    drop(runtime);
    operator.stop();
    http.stop();
    cdr_thread.join();
    store_thread.join();
    tracing::info!("control has stopped");
    result
}

fn new_switch(config: &ControlConfig, epoch: Epoch) -> anyhow::Result<Switch> {
    let media_addresses = MediaAddresses::new(&config.edge.media_addresses)
        .ok_or_else(|| anyhow::anyhow!("[edge] media_addresses: at least one"))?
        .with_ports(config.edge.ports);
    let switch_config = SwitchConfig {
        realm: config.sip.realm.clone(),
        digest_algorithms: config.sip.digest.clone(),
        ring_timeout_secs: config.sip.ring_timeout_secs,
        media_timeouts: config.media,
        media: config.media_policy.clone(),
        calls_max: config.sip.calls_max as usize,
        transactions_max: config.sip.transactions_max as usize,
        session_expires_secs: config.sip.session_expires_secs,
        session_expires_min_secs: config.sip.session_expires_min_secs,
        registrar: config.registrar.clone(),
        media_addresses,
        trace_bytes_max: config.trace.bytes_max,
        is_trace_exported: config.trace.hep.is_some(),
        local_ends: Arc::new(local_ends(&config.sip.listen)),
        epoch,
    };
    Ok(Switch::new(
        switch_config,
        Box::new(SystemEntropy),
        Box::new(SystemEntropy),
    )?)
}

/// The files of certificates; `None` where no socket speaks TLS.
fn tls_files(sip: &SipConfig) -> Option<TlsFiles> {
    let is_secure = sip.listen.iter().any(|listen| listen.transport.is_secure());
    is_secure.then(|| sip.tls.clone())
}

/// Our sockets, as calls to trunks leave from them.
fn local_ends(listen: &[SipListen]) -> LocalEnds {
    let ends = listen.iter().map(|listen| LocalEnd {
        kind: listen.transport,
        address: listen.address,
        advertised: listen.advertise.as_ref().map(|advertise| {
            let port = advertise.port.unwrap_or(listen.address.port());
            format!("{}:{port}", advertise.host).into()
        }),
    });
    LocalEnds::new(ends.collect())
}

fn interval() -> Interval {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Whether there is an edge.
enum EdgeState {
    /// None; the next attempt is due then.
    Away { retry_at: Instant },
    /// A handshake is going on.
    Connecting(Pin<Box<dyn Future<Output = Result<EdgeLink, LinkError>>>>),
    /// Connected.
    Linked(EdgeLink),
}

/// What the call thread woke up for.
enum Wake {
    Inbound,
    Edge(LinkEvent),
    Connected(Result<EdgeLink, LinkError>),
    RetryEdge,
    Timeout,
    Routing,
    Operator(OperatorRequest),
    PinChecked(CallKey, PinVerdict),
    Resolved(Resolved),
    Tick,
    Stop,
}

/// Everything that lives on the call thread.
struct CallThread {
    switch: Switch,
    transport: Transport,
    edge: EdgeState,
    edge_socket: Arc<Path>,
    epoch: Epoch,
    routing: watch::Receiver<Arc<RoutingSnapshot>>,
    resolver: Resolver,
    operator_requests: mpsc::Receiver<OperatorRequest>,
    /// In the order of their time; no more than have connections to the operator socket.
    calls_asked: VecDeque<CallsAsked>,
    actions_asked: ActionsAsked,
    followers: Followers,
    pins: PinChecker<CallKey>,
    cdr: CdrWriter,
    /// To the capture server, if there is one.
    exporter: Option<Exporter>,
    call_metrics: CallMetrics,
    workers: Arc<WorkerPage>,
    health: Arc<Health>,
    started_at: MonoTime,
    listen: Vec<String>,
    media_addresses: Vec<MediaAddress>,
    calls_max: usize,
    tick: Interval,
    terminate: Signal,
    interrupt: Signal,
    inbound: Vec<Inbound>,
    events: Vec<Event>,
}

impl CallThread {
    async fn run(&mut self) {
        let routing = Arc::clone(&self.routing.borrow_and_update());
        self.switch.set_snapshot(routing);
        while !self.turn().await {}

        tracing::info!(
            calls = self.switch.call_count(),
            "stopping; calls are hung up"
        );
        self.health.set_draining();
        self.switch.hang_up_all(monotonic_now(), unix_ms());
        let deadline = Instant::now() + GOODBYE;
        while self.switch.call_count() + self.switch.transaction_count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, self.turn()).await.is_err() {
                break;
            }
        }
        self.carry_away();
    }

    /// Waits for one thing, handles it, and carries away what came of it. `true`: time to stop.
    async fn turn(&mut self) -> bool {
        self.answer_calls(monotonic_now());
        self.answer_actions();
        self.tell_followers();
        self.carry_away();
        let wake = self.wait().await;
        let (now, unix_ms) = (monotonic_now(), unix_ms());
        match wake {
            Wake::Inbound => self.take_inbound(now, unix_ms),
            Wake::Edge(LinkEvent::Events) => self.take_events(now, unix_ms),
            Wake::Edge(LinkEvent::HungUp) => self.lose_edge(),
            Wake::Connected(Ok(link)) => self.adopt_edge(now, unix_ms, link),
            Wake::Connected(Err(error)) => {
                tracing::debug!(%error, "no edge yet");
                self.edge = EdgeState::Away {
                    retry_at: Instant::now() + EDGE_RETRY,
                };
            }
            Wake::RetryEdge => self.connect_edge(),
            Wake::Timeout => self.switch.handle_timeout(now, unix_ms),
            Wake::Routing => {
                let routing = Arc::clone(&self.routing.borrow_and_update());
                self.switch.set_snapshot(routing);
            }
            Wake::Operator(request) => self.answer_operator(now, unix_ms, request),
            Wake::PinChecked(key, verdict) => {
                self.switch.handle_pin_checked(now, unix_ms, key, verdict);
            }
            Wake::Resolved(Resolved { ticket, outcome }) => {
                self.switch.handle_resolved(now, ticket, outcome);
            }
            Wake::Tick => self.publish(now),
            Wake::Stop => return true,
        }
        false
    }

    async fn wait(&mut self) -> Wake {
        let asked = self.calls_asked.front().map(|asked| asked.answer_at);
        let timeout = self.switch.poll_timeout().into_iter().chain(asked).min();
        tokio::select! {
            // Events first: they complete calls that are under way, messages may begin new ones.
            biased;
            wake = wait_for_edge(&mut self.edge) => wake,
            () = self.transport.recv(&mut self.inbound) => Wake::Inbound,
            () = sleep_until(timeout) => Wake::Timeout,
            _ = self.tick.tick() => Wake::Tick,
            Ok(()) = self.routing.changed() => Wake::Routing,
            Some(request) = self.operator_requests.recv() => Wake::Operator(request),
            Some((key, verdict)) = self.pins.verdict() => Wake::PinChecked(key, verdict),
            resolved = self.resolver.recv() => Wake::Resolved(resolved),
            _ = self.terminate.recv() => Wake::Stop,
            _ = self.interrupt.recv() => Wake::Stop,
        }
    }

    fn take_inbound(&mut self, now: MonoTime, unix_ms: i64) {
        for inbound in self.inbound.drain(..) {
            match inbound {
                Inbound::Message { flow, message } => {
                    self.switch.handle_message(now, unix_ms, flow, message);
                }
                Inbound::Malformed { flow, bytes, error } => {
                    self.switch.handle_malformed(&flow, &bytes, &error);
                }
                Inbound::ConnectionClosed { connection, .. } => {
                    self.switch
                        .handle_connection_closed(now, unix_ms, connection);
                }
                Inbound::Undelivered { transmit } => {
                    if let Some(id) = &transmit.id {
                        self.switch.handle_undelivered(now, unix_ms, id);
                    }
                }
            }
        }
    }

    fn take_events(&mut self, now: MonoTime, unix_ms: i64) {
        let EdgeState::Linked(link) = &mut self.edge else {
            return;
        };
        link.receive(self.switch.proxy_mut(), &mut self.events);
        for event in self.events.drain(..) {
            self.switch.handle_worker_event(now, unix_ms, event);
        }
    }

    fn connect_edge(&mut self) {
        let (path, epoch) = (Arc::clone(&self.edge_socket), self.epoch);
        self.edge =
            EdgeState::Connecting(Box::pin(
                async move { EdgeLink::connect(&path, epoch).await },
            ));
    }

    fn adopt_edge(&mut self, now: MonoTime, unix_ms: i64, link: EdgeLink) {
        let workers = link.workers();
        tracing::info!(workers = workers.len(), "edge connected");
        link.beat(now);
        self.edge = EdgeState::Linked(link);
        self.health.set_edge_connected(true);
        self.switch.handle_edge_connected(now, unix_ms, &workers);
        self.publish(now);
    }

    fn lose_edge(&mut self) {
        tracing::error!("the edge is gone; its calls are silent until it is back");
        self.edge = EdgeState::Away {
            retry_at: Instant::now(),
        };
        self.health.set_edge_connected(false);
        self.workers.clear();
        self.switch.handle_edge_disconnected();
    }

    /// Takes to the sockets, rings and threads what the switch wants sent.
    fn carry_away(&mut self) {
        while let Some(transmit) = self.switch.poll_transmit() {
            if let Err(error) = self.transport.send(&transmit) {
                tracing::debug!(%error, remote = %transmit.flow.remote, "message not sent");
                if let Some(id) = &transmit.id {
                    self.switch
                        .handle_undelivered(monotonic_now(), unix_ms(), id);
                }
            }
        }
        while let Some(traced) = self.switch.poll_traced() {
            if let Some(exporter) = &self.exporter {
                exporter.submit(traced);
            }
        }
        while let Some(check) = self.switch.poll_pin_check() {
            if let Err(key) = self.pins.check(check) {
                let unchecked = PinVerdict::Unchecked;
                self.switch
                    .handle_pin_checked(monotonic_now(), unix_ms(), key, unchecked);
            }
        }
        while let Some((ticket, uri)) = self.switch.poll_lookup() {
            if self.resolver.ask(ticket, uri).is_err() {
                let unanswered = Err(LocateError::Unanswered);
                self.switch
                    .handle_resolved(monotonic_now(), ticket, unanswered);
            }
        }
        if let EdgeState::Linked(link) = &mut self.edge {
            link.send(self.switch.proxy_mut());
        }
        while let Some(record) = self.switch.poll_record() {
            self.call_metrics.observe_record(&record);
            if !self.cdr.submit(record) {
                tracing::error!("a call record was lost: the CDR writer does not keep up");
            }
        }
        while let Some(recording) = self.switch.poll_recording() {
            if !self.cdr.submit(recording) {
                tracing::error!("a recording's record was lost: the CDR writer does not keep up");
            }
        }
    }

    /// Heartbeats and gauges.
    fn publish(&mut self, now: MonoTime) {
        self.health.beat(now);
        for direction in CallDirection::ALL {
            let count = self.switch.calls_active(*direction);
            self.call_metrics.set_calls_active(*direction, count);
        }
        let transactions = self.switch.transaction_count();
        self.call_metrics
            .publish_sip(self.switch.agent_counters(), transactions);
        self.call_metrics
            .set_registrations_active(self.switch.registration_count());
        self.call_metrics
            .publish_transport(self.transport.counters());
        let exported = self.exporter.as_ref().map(Exporter::counters);
        self.call_metrics
            .publish_trace(self.switch.traced_bytes(), exported);
        let proxy = self.switch.proxy();
        self.call_metrics
            .publish_proxy(&proxy.counters(), proxy.command_counts());
        self.call_metrics.publish_trunks(self.switch.trunks(now));
        self.call_metrics
            .publish_outbound_refusals(self.switch.outbound_refusals());
        if let EdgeState::Linked(link) = &self.edge {
            link.beat(now);
            for end in link.ends() {
                self.workers.publish(end.worker(), end);
            }
            for (worker, ports) in self.switch.proxy().port_pools() {
                for (index, entry) in self.media_addresses.iter().enumerate() {
                    if let Some(pool) = ports.get(entry.address) {
                        let (used, capacity) = (pool.used_count(), pool.capacity());
                        self.workers.publish_ports(worker, index, used, capacity);
                    }
                }
            }
        }
    }
}

async fn wait_for_edge(edge: &mut EdgeState) -> Wake {
    match edge {
        EdgeState::Away { retry_at } => {
            tokio::time::sleep_until((*retry_at).into()).await;
            Wake::RetryEdge
        }
        EdgeState::Connecting(connecting) => Wake::Connected(connecting.await),
        EdgeState::Linked(link) => Wake::Edge(link.readable().await),
    }
}

async fn sleep_until(timeout: Option<MonoTime>) {
    match timeout {
        Some(at) => tokio::time::sleep(Duration::from_nanos(at.nanos_since(monotonic_now()))).await,
        None => pending().await,
    }
}

/// Midnight (UTC) before `unix_ms`.
fn day_began(unix_ms: i64) -> i64 {
    unix_ms - unix_ms.rem_euclid(86_400_000)
}

fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        })
}

/// The operating system's randomness.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("getrandom(2) does not fail once the kernel has booted");
    }
}
