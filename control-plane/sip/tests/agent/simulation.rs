//! Two agents call each other over a network that loses, repeats and reorders, in simulated time.
//! Whatever happens, every leg ends exactly once on both sides and nothing is left behind.
//!
//! `TRUNKLINE_SIM_SEED=7` runs one seed alone.

use std::collections::{BTreeMap, BTreeSet};

use sipx_sip::{Limits, Message, Method, parse_datagram, validate};
use trunkline_edge_api::MonoTime;
use trunkline_sip::entropy::{Entropy, SeededEntropy};
use trunkline_sip::{
    Agent, AgentConfig, AgentEvent, EndedBy, Flow, LegError, ReferRequest, ReferTarget, SipLegId,
};

use crate::support::*;

const ADDRESSES: [&str; 2] = ["203.0.113.1:5060", "198.51.100.9:5060"];

#[derive(Debug, Clone, Copy)]
enum Action {
    Ring,
    RingWithMedia,
    Answer,
    Reject,
    Cancel,
    Hangup,
    Reinvite,
    AcceptOffer,
    RejectOffer,
    Refer,
    AnswerRefer,
    TellRefer,
}

#[derive(Debug)]
enum Happening {
    Arrival {
        to: usize,
        bytes: bytes::Bytes,
    },
    Act {
        party: usize,
        leg: SipLegId,
        action: Action,
    },
}

/// What a network does to a datagram, in percent, and how long the rest take, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Weather {
    loss: u64,
    duplication: u64,
    delay_max: u64,
}

/// What the seeds reached altogether, so that the run is known not to be empty.
#[derive(Debug, Default)]
struct Reached {
    answered: u64,
    rejected: u64,
    cancelled: u64,
    renegotiated: u64,
    refused_offers: u64,
    lost_glare: u64,
    byes: u64,
    answered_late: u64,
    early_offers: u64,
    referred: u64,
    told: u64,
    pracks: u64,
    updates: u64,
}

struct World {
    seed: u64,
    random: SeededEntropy,
    weather: Weather,
    now: MonoTime,
    parties: [Agent; 2],
    happenings: BTreeMap<(MonoTime, u64), Happening>,
    serial: u64,
    alive: BTreeSet<(usize, SipLegId)>,
    ended: BTreeSet<(usize, SipLegId)>,
    /// Legs whose INVITE had no offer.
    late: BTreeSet<(usize, SipLegId)>,
    /// Legs that are answered.
    up: BTreeSet<(usize, SipLegId)>,
    reached: Reached,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let party = |salt| {
            let entropy = SeededEntropy::new(seed.wrapping_mul(31).wrapping_add(salt));
            // The least there is: sessions are refreshed before the last of them is hung up.
            let config = AgentConfig {
                session_expires_secs: 90,
                ..AgentConfig::default()
            };
            Agent::new(config, Box::new(entropy))
        };
        Self {
            seed,
            random: SeededEntropy::new(seed),
            weather,
            now: MonoTime(1),
            parties: [party(1), party(2)],
            happenings: BTreeMap::new(),
            serial: 0,
            alive: BTreeSet::new(),
            ended: BTreeSet::new(),
            late: BTreeSet::new(),
            up: BTreeSet::new(),
            reached: Reached::default(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn schedule(&mut self, in_millis: u64, happening: Happening) {
        self.serial += 1;
        let at = self.now.plus_millis(in_millis);
        self.happenings.insert((at, self.serial), happening);
    }

    fn act_later(&mut self, party: usize, leg: SipLegId, within_millis: u64, action: Action) {
        let delay = self.below(within_millis);
        self.schedule(delay, Happening::Act { party, leg, action });
    }

    fn call(&mut self, from: usize) {
        let flow = Flow::udp(address(ADDRESSES[from]), address(ADDRESSES[1 - from]));
        let mut request = invite_request(flow);
        let is_late = self.chance(25);
        if is_late {
            request.offer = bytes::Bytes::new();
        }
        let leg = self.parties[from]
            .invite(self.now, request)
            .expect("there is room");
        self.alive.insert((from, leg));
        if is_late {
            self.late.insert((from, leg));
        }
        if self.chance(30) {
            self.act_later(from, leg, 6_000, Action::Cancel);
        }
        self.schedule(
            60_000,
            Happening::Act {
                party: from,
                leg,
                action: Action::Hangup,
            },
        );
    }

    /// Runs until no message, timer or plan is left.
    fn run(&mut self) {
        loop {
            for party in 0..2 {
                self.drain(party);
            }
            let arrival = self.happenings.first_key_value().map(|((at, _), _)| *at);
            let timers = [0, 1].map(|party| self.parties[party].poll_timeout());
            let Some(next) = [arrival, timers[0], timers[1]].into_iter().flatten().min() else {
                break;
            };
            assert!(
                next.0 < 3_600_000_000_000,
                "seed {}: an hour and no end",
                self.seed
            );
            self.now = self.now.max(next);
            for (party, timer) in timers.into_iter().enumerate() {
                if timer.is_some_and(|at| at <= self.now) {
                    self.parties[party].handle_timeout(self.now);
                }
            }
            while let Some(entry) = self.happenings.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                match entry.remove() {
                    Happening::Arrival { to, bytes } => {
                        let flow = Flow::udp(address(ADDRESSES[to]), address(ADDRESSES[1 - to]));
                        let message = parse_datagram(bytes, &Limits::datagram()).expect("SIP");
                        self.parties[to].handle_message(self.now, flow, message);
                    }
                    Happening::Act { party, leg, action } => self.act(party, leg, action),
                }
            }
        }
    }

    fn act(&mut self, party: usize, leg: SipLegId, action: Action) {
        let now = self.now;
        let agent = &mut self.parties[party];
        let result = match action {
            Action::Ring => agent.provisional(now, leg, 180, None),
            Action::RingWithMedia => agent.provisional(now, leg, 183, Some(body(ANSWER))),
            Action::Answer => agent.answer(now, leg, body(ANSWER)),
            Action::Reject => agent.reject(now, leg, 486, None, Vec::new()),
            Action::Cancel => agent.cancel(now, leg),
            Action::Hangup => agent.hangup(now, leg, None),
            Action::Reinvite => agent.reinvite(now, leg, body(OFFER)),
            Action::AcceptOffer => agent.accept_offer(now, leg, body(ANSWER)),
            Action::RejectOffer => agent.reject_offer(now, leg, 488),
            Action::Refer => agent.refer(now, leg, &carol()),
            Action::AnswerRefer if leg.to_string().ends_with('7') => {
                agent.reject_refer(now, leg, 603)
            }
            Action::AnswerRefer => agent.accept_refer(now, leg),
            Action::TellRefer => agent.notify_refer(now, leg, 200, None, true),
        };
        let known = self.alive.contains(&(party, leg));
        match result {
            Err(LegError::UnknownLeg) => assert!(!known, "seed {}: leg forgotten", self.seed),
            _ => assert!(known, "seed {}: an ended leg took {action:?}", self.seed),
        }
    }

    fn drain(&mut self, party: usize) {
        while let Some(event) = self.parties[party].poll_event() {
            self.react(party, event);
        }
        while let Some(transmit) = self.parties[party].poll_transmit() {
            let message = parse_datagram(transmit.bytes.clone(), &Limits::datagram());
            let message = message.expect("the agent writes SIP");
            assert!(
                validate(&message).is_empty(),
                "seed {}: {message:?}",
                self.seed
            );
            if let Message::Request(request) = &message {
                assert_eq!(
                    transmit.flow.remote,
                    address(ADDRESSES[1 - party]),
                    "{request:?}"
                );
            }
            let copies = if self.chance(self.weather.duplication) {
                2
            } else {
                1
            };
            for _ in 0..copies {
                if !self.chance(self.weather.loss) {
                    let delay = 1 + self.below(self.weather.delay_max);
                    let bytes = transmit.bytes.clone();
                    self.schedule(
                        delay,
                        Happening::Arrival {
                            to: 1 - party,
                            bytes,
                        },
                    );
                }
            }
        }
    }

    fn react(&mut self, party: usize, event: AgentEvent) {
        match event {
            AgentEvent::Invite { leg, .. } => {
                self.alive.insert((party, leg));
                for action in [Action::Ring, Action::RingWithMedia] {
                    if self.chance(60) {
                        self.act_later(party, leg, 300, action);
                    }
                }
                if self.chance(30) {
                    self.act_later(party, leg, 3_000, Action::Reinvite);
                }
                match self.below(10) {
                    0 => {}
                    1 => self.act_later(party, leg, 3_000, Action::Reject),
                    _ => self.act_later(party, leg, 3_000, Action::Answer),
                }
                self.schedule(
                    60_000,
                    Happening::Act {
                        party,
                        leg,
                        action: Action::Hangup,
                    },
                );
            }
            AgentEvent::Answered { leg, sdp, .. } => {
                let is_late = self.late.contains(&(party, leg));
                assert!(sdp.is_some() || is_late, "seed {}: an answer", self.seed);
                self.reached.answered += 1;
                self.reached.answered_late += u64::from(is_late);
                self.up.insert((party, leg));
                self.talk(party, leg);
            }
            AgentEvent::Confirmed { leg, .. } => {
                self.up.insert((party, leg));
                self.talk(party, leg);
            }
            AgentEvent::Offer { leg, .. } => {
                if !self.up.contains(&(party, leg)) {
                    self.reached.early_offers += 1;
                }
                let action = if self.chance(75) {
                    Action::AcceptOffer
                } else {
                    Action::RejectOffer
                };
                self.act_later(party, leg, 300, action);
            }
            AgentEvent::OfferAnswered { result, .. } => match result {
                Ok(_) => self.reached.renegotiated += 1,
                Err(491) => self.reached.lost_glare += 1,
                Err(_) => self.reached.refused_offers += 1,
            },
            AgentEvent::Rejected { leg, .. } => {
                self.reached.rejected += 1;
                self.end(party, leg);
            }
            AgentEvent::Ended { leg, by, .. } => {
                match by {
                    EndedBy::Cancelled => self.reached.cancelled += 1,
                    EndedBy::Bye => self.reached.byes += 1,
                    _ => {}
                }
                self.end(party, leg);
            }
            AgentEvent::Progress { .. }
            | AgentEvent::OfferCancelled { .. }
            | AgentEvent::AnswerInPrack { .. }
            | AgentEvent::AnswerInAck { .. } => {}
            AgentEvent::Refer { leg, .. } => {
                self.reached.referred += 1;
                self.act_later(party, leg, 500, Action::AnswerRefer);
                self.act_later(party, leg, 5_000, Action::TellRefer);
            }
            AgentEvent::ReferProgress { status, .. } => {
                self.reached.told += u64::from(status == Some(200));
            }
            AgentEvent::ReferAnswered { .. } => {}
            AgentEvent::Request { .. } | AgentEvent::Response { .. } | AgentEvent::Digit { .. } => {
                panic!("seed {}: no such request is sent", self.seed)
            }
        }
    }

    fn talk(&mut self, party: usize, leg: SipLegId) {
        if self.chance(40) {
            self.act_later(party, leg, 4_000, Action::Refer);
        }
        for _ in 0..2 {
            if self.chance(40) {
                self.act_later(party, leg, 2_000, Action::Reinvite);
            }
        }
        if self.chance(60) {
            self.act_later(party, leg, 15_000, Action::Hangup);
        }
    }

    fn end(&mut self, party: usize, leg: SipLegId) {
        assert!(
            self.alive.remove(&(party, leg)),
            "seed {}: ended unborn",
            self.seed
        );
        assert!(
            self.ended.insert((party, leg)),
            "seed {}: ended twice",
            self.seed
        );
    }

    fn assert_over(&self) {
        let seed = self.seed;
        assert!(
            self.alive.is_empty(),
            "seed {seed}: never ended {:?}",
            self.alive
        );
        for (party, agent) in self.parties.iter().enumerate() {
            assert_eq!(
                agent.transactions_len(),
                0,
                "seed {seed}: transactions of {party}"
            );
            assert!(
                agent.is_idle(),
                "seed {seed}: leftovers of {party}: {agent:?}"
            );
        }
    }
}

fn carol() -> ReferRequest {
    ReferRequest {
        target: ReferTarget {
            uri: uri("sip:carol@example.com"),
            replaces: None,
        },
        referred_by: None,
        wants_notify: true,
    }
}

fn run_seeds(weather: Weather) -> Reached {
    let seeds = match std::env::var("TRUNKLINE_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("TRUNKLINE_SIM_SEED is a number")],
        Err(_) => (0..300).collect(),
    };
    let mut sum = Reached::default();
    for seed in seeds {
        let mut world = World::new(seed, weather);
        for call in 0..3 {
            world.call(call % 2);
        }
        world.run();
        world.assert_over();
        let reached = world.reached;
        sum.answered += reached.answered;
        sum.rejected += reached.rejected;
        sum.cancelled += reached.cancelled;
        sum.renegotiated += reached.renegotiated;
        sum.refused_offers += reached.refused_offers;
        sum.lost_glare += reached.lost_glare;
        sum.byes += reached.byes;
        sum.answered_late += reached.answered_late;
        sum.early_offers += reached.early_offers;
        sum.referred += reached.referred;
        sum.told += reached.told;
        for party in &world.parties {
            let sent = &party.counters().requests_sent;
            sum.pracks += sent.get(&Method::Prack);
            sum.updates += sent.get(&Method::Update);
        }
    }
    sum
}

fn assert_all_reached(reached: &Reached) {
    if std::env::var_os("TRUNKLINE_SIM_SEED").is_some() {
        return;
    }
    let Reached {
        answered,
        rejected,
        cancelled,
        renegotiated,
        refused_offers,
        lost_glare,
        byes,
        answered_late,
        early_offers,
        referred,
        told,
        pracks,
        updates,
    } = *reached;
    let counts = [
        answered,
        rejected,
        cancelled,
        renegotiated,
        refused_offers,
        lost_glare,
        byes,
        answered_late,
        early_offers,
        referred,
        told,
        pracks,
        updates,
    ];
    assert!(counts.iter().all(|&count| count > 0), "{reached:?}");
    assert!(answered > 400, "{reached:?}");
}

#[test]
fn every_call_ends_once_on_both_sides_over_a_good_network() {
    assert_all_reached(&run_seeds(Weather {
        loss: 0,
        duplication: 0,
        delay_max: 30,
    }));
}

#[test]
fn every_call_ends_once_on_both_sides_over_a_bad_network() {
    assert_all_reached(&run_seeds(Weather {
        loss: 20,
        duplication: 15,
        delay_max: 700,
    }));
}

#[test]
fn every_call_ends_once_even_when_most_of_it_is_lost() {
    run_seeds(Weather {
        loss: 60,
        duplication: 30,
        delay_max: 3_000,
    });
}
