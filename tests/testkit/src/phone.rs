//! A SIP user agent with a thread and a socket of its own: what a member's phone or a carrier's
//! gateway does on the wire, in blocking calls with deadlines.
//!
//! It is the independent peer of the tests: it reads messages with `sipx-sip` and has its own,
//! small transactions and dialogs, none of Trunkline's.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use trunkline_testkit::{phone::{Phone, PhoneConfig}, rtp::MediaHub, sdp::AudioDescription};
//! # fn main() -> anyhow::Result<()> {
//! let hub = MediaHub::start()?;
//! let rtp = hub.endpoint("127.0.0.1".parse()?)?;
//! let phone = Phone::start(PhoneConfig::udp("anna", "127.0.0.1:5060".parse()?))?;
//! let call = phone.call("+15550100", AudioDescription::pcmu(rtp.local_addr()))?;
//! call.wait_answered(Duration::from_secs(5))?;
//! call.hang_up(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
pub use sipx_sip::auth::{Algorithm as DigestAlgorithm, Credentials};

use crate::sdp::AudioDescription;

mod agent;
mod call;
mod link;
mod message;

pub use call::{EndCause, Phase, Timings};

use agent::{Core, Outcome};
use call::CallRecord;
use link::{Link, Received};
use message::Draft;

/// What the phone speaks SIP over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams, retransmitted until answered.
    Udp,
    /// One connection to the server, over which the server's requests come too.
    Tcp,
}

/// Which of the offered digest algorithms a phone answers (RFC 8760 §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestChoice {
    /// The strongest it knows.
    Strongest,
    /// This one or none: an older phone.
    Only(DigestAlgorithm),
}

/// Who a phone is and whom it talks to.
#[derive(Debug, Clone)]
pub struct PhoneConfig {
    /// User part of its address of record and its Contact.
    pub user: String,
    /// Where all its requests outside dialogs go.
    pub server: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// Address to bind; with [`Transport::Tcp`] the kernel chooses.
    pub local: IpAddr,
    /// Port to bind, 0 for any; with [`Transport::Tcp`] the kernel chooses.
    pub port: u16,
    /// Answer to a digest challenge.
    pub credentials: Option<Credentials>,
    /// Which challenge it answers.
    pub digest: DigestChoice,
    /// The address that its Contact names, when that is not the one it sends from: it is behind a
    /// NAT and does not know better.
    pub private_address: Option<IpAddr>,
}

impl PhoneConfig {
    /// A phone over UDP on the server's own address, without credentials.
    #[must_use]
    pub fn udp(user: &str, server: SocketAddr) -> Self {
        Self {
            user: user.to_owned(),
            server,
            transport: Transport::Udp,
            local: server.ip(),
            port: 0,
            credentials: None,
            digest: DigestChoice::Strongest,
            private_address: None,
        }
    }

    /// The same with a password for digest authentication.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.credentials = Some(Credentials::new(self.user.clone(), password));
        self
    }

    /// The same over TCP.
    #[must_use]
    pub fn over_tcp(mut self) -> Self {
        self.transport = Transport::Tcp;
        self
    }

    /// The same behind a NAT, knowing itself by `address` alone.
    #[must_use]
    pub fn behind_nat(mut self, address: IpAddr) -> Self {
        self.private_address = Some(address);
        self
    }

    /// The same from another local address: a carrier is known by its source.
    #[must_use]
    pub fn from_address(mut self, local: IpAddr) -> Self {
        self.local = local;
        self
    }
}

/// A running phone. Dropping it closes the socket without a word to anybody, as pulling the
/// plug does.
pub struct Phone {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    local: SocketAddr,
}

struct Shared {
    link: Link,
    core: Mutex<Core>,
    changed: Condvar,
    stopping: std::sync::atomic::AtomicBool,
}

impl Phone {
    /// Opens the socket and starts the thread that listens to it.
    pub fn start(config: PhoneConfig) -> Result<Self> {
        let (link, mut receiver, local) = Link::open(
            config.transport,
            SocketAddr::new(config.local, config.port),
            config.server,
        )
        .with_context(|| {
            format!(
                "phone {} cannot open {:?} from {} to {}",
                config.user, config.transport, config.local, config.server
            )
        })?;
        let (transport, suffix) = match config.transport {
            Transport::Udp => ("UDP", ""),
            Transport::Tcp => ("TCP", ";transport=tcp"),
        };
        let known_as = match config.private_address {
            Some(address) => SocketAddr::new(address, local.port()),
            None => local,
        };
        let core = Core::new(
            config.user.clone(),
            config.server.to_string(),
            format!("sip:{}@{known_as}{suffix}", config.user),
            format!("SIP/2.0/{transport} {local}"),
            config.server,
            config.transport == Transport::Tcp,
            config.credentials,
            config.digest,
        );
        let shared = Arc::new(Shared {
            link,
            core: Mutex::new(core),
            changed: Condvar::new(),
            stopping: std::sync::atomic::AtomicBool::new(false),
        });
        let listener = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("phone-{}", config.user))
            .spawn(move || {
                while !listener.stopping.load(std::sync::atomic::Ordering::Relaxed) {
                    let received = receiver.wait();
                    let now = Instant::now();
                    let mut core = listener.lock();
                    match received {
                        Received::Messages(from, messages) => {
                            for message in messages {
                                core.handle_message(now, from, message);
                            }
                        }
                        Received::Malformed => core.malformed += 1,
                        Received::Nothing => {}
                        Received::Closed => {
                            core.closed = true;
                            listener.changed.notify_all();
                            return;
                        }
                    }
                    core.handle_timeout(now);
                    listener.flush(&mut core);
                    listener.changed.notify_all();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            local,
        })
    }

    /// Its socket's own address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends REGISTER for `expires_secs` (0 removes the binding), answers a challenge once, and
    /// returns the status of the final response.
    pub fn register(&self, expires_secs: u32, limit: Duration) -> Result<u16> {
        let draft = {
            let core = self.shared.lock();
            let aor = core.address_of_record();
            Draft {
                method: "REGISTER",
                uri: format!("sip:{}", core.domain),
                from: format!("<{aor}>;tag={}", random_hex()),
                to: format!("<{aor}>"),
                call_id: random_hex(),
                cseq: 1,
                routes: Vec::new(),
                headers: vec![
                    ("Contact".to_owned(), format!("<{}>", core.contact)),
                    ("Expires".to_owned(), expires_secs.to_string()),
                ],
                sdp: None,
            }
        };
        self.request(draft, limit)
    }

    /// Sends OPTIONS and returns the status of the final response.
    pub fn options(&self, limit: Duration) -> Result<u16> {
        let draft = {
            let core = self.shared.lock();
            Draft {
                method: "OPTIONS",
                uri: format!("sip:{}", core.domain),
                from: format!("<{}>;tag={}", core.address_of_record(), random_hex()),
                to: format!("<sip:{}>", core.domain),
                call_id: random_hex(),
                cseq: 1,
                routes: Vec::new(),
                headers: Vec::new(),
                sdp: None,
            }
        };
        self.request(draft, limit)
    }

    fn request(&self, draft: Draft, limit: Duration) -> Result<u16> {
        let method = draft.method;
        let branch = self.shared.act(|core| {
            let server = core.server;
            core.start(Instant::now(), draft, server, None)
        });
        self.shared
            .wait_final(&branch, limit)
            .with_context(|| format!("{method} to the server"))
    }

    /// Calls `user` at the server with `media` as the offer. Returns as soon as the INVITE is out.
    pub fn call(&self, user: &str, media: AudioDescription) -> Result<Call> {
        let id = random_hex();
        self.shared.act(|core| {
            let now = Instant::now();
            let tag = random_hex();
            let target = format!("sip:{user}@{}", core.domain);
            let mut call = CallRecord::new(now, tag.clone(), media.clone());
            call.local_party = format!("<{}>;tag={tag}", core.address_of_record());
            call.remote_party = format!("<{target}>");
            call.remote_target = target.clone();
            let draft = Draft {
                method: "INVITE",
                uri: target,
                from: call.local_party.clone(),
                to: call.remote_party.clone(),
                call_id: id.clone(),
                cseq: 1,
                routes: Vec::new(),
                headers: vec![
                    ("Contact".to_owned(), format!("<{}>", core.contact)),
                    (
                        "Allow".to_owned(),
                        "INVITE, ACK, BYE, CANCEL, OPTIONS".to_owned(),
                    ),
                ],
                sdp: Some(media.to_sdp()),
            };
            core.calls.insert(id.clone(), call);
            let server = core.server;
            let branch = core.start(now, draft, server, Some(id.clone()));
            if let Some(call) = core.calls.get_mut(&id) {
                call.invite_branch = branch;
            }
        });
        Ok(Call {
            shared: Arc::clone(&self.shared),
            id,
        })
    }

    /// The next call that comes in. It has got 100 Trying and nothing else.
    pub fn wait_call(&self, limit: Duration) -> Result<Call> {
        let id = self
            .shared
            .wait_for(limit, |core| core.arrived.pop_front())
            .context("no call came in")?;
        Ok(Call {
            shared: Arc::clone(&self.shared),
            id,
        })
    }

    /// Calls that came in and were not taken with [`Self::wait_call`].
    #[must_use]
    pub fn waiting_call_count(&self) -> usize {
        self.shared.lock().arrived.len()
    }

    /// Sends these octets as they are: for what no honest phone would send.
    pub fn send_raw(&self, octets: &[u8]) -> Result<()> {
        let server = self.shared.lock().server;
        self.shared.link.send(server, octets)?;
        Ok(())
    }

    /// Whether the server closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Requests that came in more than once.
    #[must_use]
    pub fn repeated_request_count(&self) -> usize {
        self.shared.lock().repeated_requests
    }

    /// Every message sent and received, for the artefacts of a failed test.
    #[must_use]
    pub fn trace(&self) -> String {
        let core = self.shared.lock();
        core.trace
            .iter()
            .map(|entry| format!("{entry}\n"))
            .collect()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.shared
            .stopping
            .store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed already; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}

/// One call of a [`Phone`]. It goes on after this handle is dropped.
pub struct Call {
    shared: Arc<Shared>,
    id: String,
}

impl Call {
    /// Its Call-ID on this phone's side of Trunkline.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.read(|call| call.phase)
    }

    /// Provisional statuses heard so far, in order, repeats included.
    #[must_use]
    pub fn provisionals(&self) -> Vec<u16> {
        self.read(|call| call.provisionals.clone())
    }

    /// When things happened.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.read(|call| call.timings)
    }

    /// What the far side last described: its offer, its answer, or its early answer.
    #[must_use]
    pub fn remote_media(&self) -> Option<AudioDescription> {
        self.read(|call| call.remote_media.clone())
    }

    /// Offers that came in re-INVITEs. Each was answered as [`AudioDescription::answer_to`] says.
    #[must_use]
    pub fn reoffers(&self) -> Vec<AudioDescription> {
        self.read(|call| call.reoffers.clone())
    }

    /// A header of the INVITE that came in, or of the final response to ours.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.read(|call| {
            let headers = match (&call.invite, &call.final_headers) {
                (Some((invite, _)), _) => &invite.headers,
                (None, Some(headers)) => headers,
                (None, None) => return None,
            };
            agent::header_text(headers, name)
        })
    }

    /// Answers 180.
    pub fn ring(&self) -> Result<()> {
        self.respond(180, None)
    }

    /// Answers 183 with media: early media (RFC 3960).
    pub fn progress(&self, media: &AudioDescription) -> Result<()> {
        self.respond(183, Some(media))
    }

    /// Answers 200; [`Self::wait_established`] tells when the ACK came.
    pub fn answer(&self, media: &AudioDescription) -> Result<()> {
        self.respond(200, Some(media))
    }

    /// Answers 300 … 699.
    pub fn reject(&self, status: u16) -> Result<()> {
        self.respond(status, None)
    }

    fn respond(&self, status: u16, media: Option<&AudioDescription>) -> Result<()> {
        self.shared.act(|core| {
            let now = Instant::now();
            let call = core.calls.get_mut(&self.id).context("the call is gone")?;
            if call.phase != Phase::Setup {
                bail!("cannot answer {status}: the call is {:?}", call.phase);
            }
            let (invite, from) = call.invite.clone().context("this phone is the caller")?;
            let sdp = media.map(|media| {
                call.local_media = media.clone();
                match &call.remote_media {
                    Some(offer) => media.answer_to(offer).to_sdp(),
                    None => media.to_sdp(),
                }
            });
            match status {
                200..300 => {
                    call.phase = Phase::Unconfirmed;
                    call.timings.answered = Some(now);
                }
                300.. => call.end(now, EndCause::LocalReject(status)),
                _ => {
                    call.timings.ringing.get_or_insert(now);
                }
            }
            core.respond(now, from, &invite, status, None, sdp);
            Ok(())
        })
    }

    /// Waits until a provisional response with this status came.
    pub fn wait_provisional(&self, status: u16, limit: Duration) -> Result<()> {
        self.wait(limit, |call| {
            call.provisionals.contains(&status).then_some(())
        })
        .with_context(|| self.failure(&format!("a {status}")))
    }

    /// Waits until the far side answered 2xx; any other end is an error.
    pub fn wait_answered(&self, limit: Duration) -> Result<()> {
        self.wait_established(limit)
    }

    /// Waits until both sides know that the call stands; its end is an error.
    pub fn wait_established(&self, limit: Duration) -> Result<()> {
        let phase = self.wait(limit, |call| match call.phase {
            Phase::Setup | Phase::Unconfirmed => None,
            phase => Some(phase),
        });
        match phase {
            Some(Phase::Established) => Ok(()),
            _ => bail!(self.failure("an established call")),
        }
    }

    /// Waits for the end and returns its cause.
    pub fn wait_ended(&self, limit: Duration) -> Result<EndCause> {
        self.wait(limit, |call| match call.phase {
            Phase::Ended(cause) => Some(cause),
            _ => None,
        })
        .with_context(|| self.failure("the end of the call"))
    }

    /// Sends CANCEL, as soon as a provisional response permits it (RFC 3261 §9.1).
    pub fn cancel(&self) {
        self.shared.act(|core| {
            let now = Instant::now();
            let Some(call) = core.calls.get_mut(&self.id) else {
                return;
            };
            call.cancel_wanted = true;
            if !call.provisionals.is_empty() && call.phase == Phase::Setup {
                core.send_cancel(now, &self.id);
            }
        });
    }

    /// Sends BYE and waits for its final response, which must be 200.
    pub fn hang_up(&self, limit: Duration) -> Result<()> {
        let branch = self
            .shared
            .act(|core| core.send_bye(Instant::now(), &self.id))
            .context("the call is gone")?;
        match self.shared.wait_final(&branch, limit)? {
            200 => Ok(()),
            status => bail!("BYE was answered {status}"),
        }
    }

    /// Sends re-INVITE with `media` and returns the answer; a refusal is an error.
    pub fn reinvite(
        &self,
        mut media: AudioDescription,
        limit: Duration,
    ) -> Result<AudioDescription> {
        let branch = self.shared.act(|core| {
            let call = core.calls.get_mut(&self.id).context("the call is gone")?;
            media.origin.1 = call.local_media.origin.1 + 1;
            call.local_media = media.clone();
            let to = call.next_hop().unwrap_or(core.server);
            let draft = core
                .in_dialog(&self.id, "INVITE", Some(media.to_sdp()))
                .context("the call is gone")?;
            anyhow::Ok(core.start(Instant::now(), draft, to, Some(self.id.clone())))
        })?;
        match self.shared.wait_final(&branch, limit)? {
            200..300 => self.remote_media().context("the answer has no SDP"),
            status => bail!("re-INVITE was answered {status}"),
        }
    }

    /// Sends INFO with `body` and returns the status of the final response.
    pub fn info(&self, content_type: &str, body: &str, limit: Duration) -> Result<u16> {
        let branch = self.shared.act(|core| {
            let call = core.calls.get(&self.id).context("the call is gone")?;
            let to = call.next_hop().unwrap_or(core.server);
            let mut draft = core
                .in_dialog(&self.id, "INFO", Some(body.to_owned()))
                .context("the call is gone")?;
            draft
                .headers
                .push(("Content-Type".to_owned(), content_type.to_owned()));
            anyhow::Ok(core.start(Instant::now(), draft, to, Some(self.id.clone())))
        })?;
        self.shared.wait_final(&branch, limit)
    }

    /// Waits for INFO requests and returns the bodies of all that have come, `count` at least.
    pub fn wait_infos(&self, count: usize, limit: Duration) -> Result<Vec<String>> {
        self.wait(limit, |call| {
            (call.infos.len() >= count).then(|| call.infos.clone())
        })
        .with_context(|| format!("fewer than {count} INFO requests came"))
    }

    fn failure(&self, wanted: &str) -> String {
        format!(
            "waited for {wanted}; the call is {:?} after provisional responses {:?}",
            self.phase(),
            self.provisionals()
        )
    }

    fn read<T>(&self, read: impl FnOnce(&CallRecord) -> T) -> T {
        let core = self.shared.lock();
        read(core.calls.get(&self.id).expect("calls are never removed"))
    }

    fn wait<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut(&CallRecord) -> Option<T>,
    ) -> Option<T> {
        self.shared
            .wait_for(limit, |core| core.calls.get(&self.id).and_then(&mut check))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on the core and sends what came of it.
    fn act<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let result = act(&mut core);
        self.flush(&mut core);
        self.changed.notify_all();
        result
    }

    fn flush(&self, core: &mut Core) {
        for (to, bytes) in core.outbox.drain(..) {
            // An unreachable peer shows as a missing answer, which is what the tests look at.
            let _ = self.link.send(to, &bytes);
        }
    }

    fn wait_for<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut core = self.lock();
        loop {
            if let Some(found) = check(&mut core) {
                return Some(found);
            }
            let now = Instant::now();
            if now >= deadline {
                return None;
            }
            core = self
                .changed
                .wait_timeout(core, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Status of the final response to the request with `branch`, or to the one that took its
    /// place after a challenge.
    fn wait_final(&self, branch: &str, limit: Duration) -> Result<u16> {
        let outcome = self.wait_for(limit, |core| {
            let mut branch = branch.to_owned();
            loop {
                let transaction = core.clients.get(&branch)?;
                match &transaction.successor {
                    Some(successor) => branch = successor.clone(),
                    None => return transaction.outcome.clone(),
                }
            }
        });
        match outcome {
            Some(Outcome::Final(response)) => Ok(response.status.code()),
            Some(Outcome::TimedOut) => bail!("no final response in 64·T1"),
            None => bail!("no final response in {limit:?}"),
        }
    }
}

/// Sixteen hexadecimal digits: tags, Call-IDs, branches, cnonces.
fn random_hex() -> String {
    let mut octets = [0u8; 8];
    getrandom::fill(&mut octets).expect("the kernel has entropy");
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests;
