//! The worker's end of its two rings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::io;
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::layout::{WORD_LEN, word};
use trunkline_edge_api::wire::{self, MESSAGE_LEN_MAX, MessageBuf};
use trunkline_edge_api::{Counter, Event, IoTier, MonoTime, PortRange, WorkerIndex};

use crate::counters::CounterCells;
use crate::doorbell::{self, Doorbells};
use crate::queue::{Consumer, Producer, RingFault};
use crate::region::{Region, RegionError, RegionSpec};
use crate::view::RegionView;
use crate::{RecvError, SendError, sleep};

/// Free words in the event ring without which no command is taken: enough for its
/// [`Event::CommandDone`] and one [`Event::SessionClosed`] (23 words), and for both to grow.
const ANSWER_WORDS: usize = 64;

/// What control is given of one worker; the edge keeps it to hand it to the next control.
#[derive(Debug)]
pub struct WorkerFds {
    /// Whose they are.
    pub worker: WorkerIndex,
    /// The region.
    pub region: OwnedFd,
    /// Its eventfds.
    pub doorbells: Doorbells,
}

/// The worker's end: receives commands, sends events, counts.
///
/// It belongs to the worker's thread. A command is taken off its ring only while the event ring
/// has room for the answer, so a control that does not read its answers finds the command ring
/// full, and no [`Event::CommandDone`] is ever lost to a control that lives.
#[derive(Debug)]
pub struct WorkerEnd {
    region: Region,
    commands: Consumer,
    events: Producer,
    event_reserve_words: usize,
    doorbells: Doorbells,
    counters: CounterCells,
    fault: Option<Fault>,
    buf: Box<MessageBuf>,
}

/// A fault and the number of controls that had attached when the worker looked.
#[derive(Debug, Clone, Copy)]
struct Fault {
    cause: RingFault,
    attach_count: u64,
}

impl WorkerEnd {
    /// Makes a region with its eventfds and this end of it.
    ///
    /// # Errors
    /// The kernel's, and generation 0.
    pub fn create(spec: &RegionSpec) -> Result<(WorkerEnd, WorkerFds), RegionError> {
        let (region, region_fd) = Region::create(spec)?;
        let make = || -> io::Result<(Doorbells, Doorbells)> {
            let ours = Doorbells::create()?;
            let theirs = Doorbells {
                to_worker: dup(&ours.to_worker)?,
                to_control: dup(&ours.to_control)?,
            };
            Ok((ours, theirs))
        };
        let (ours, theirs) = make().map_err(|errno| RegionError::Io {
            action: "create eventfds",
            errno,
        })?;
        let fds = WorkerFds {
            worker: spec.worker,
            region: region_fd,
            doorbells: theirs,
        };
        Ok((WorkerEnd::new(region, ours), fds))
    }

    /// The worker's end of `region`, continuing where an earlier one stopped. Words that make no
    /// sense are replaced: commands and events not yet read are then lost, and control is told to
    /// resync.
    #[must_use]
    pub fn new(region: Region, doorbells: Doorbells) -> Self {
        let commands = Consumer::attach(&region.command_ring());
        let events = Producer::attach(&region.event_ring());
        let is_damaged = commands.is_err() || events.is_err();
        let commands = commands.unwrap_or_else(|_| Consumer::attach_empty(&region.command_ring()));
        let events = events.unwrap_or_else(|_| Producer::attach_empty(&region.event_ring()));
        let end = Self {
            commands,
            events,
            event_reserve_words: region.layout().event_reserve_len / WORD_LEN,
            doorbells,
            counters: CounterCells::new(region.clone()),
            fault: None,
            buf: Box::new([0; MESSAGE_LEN_MAX]),
            region,
        };
        end.region
            .word(word::WORKER_FAULT)
            .store(0, Ordering::Relaxed);
        sleep::announce(end.region.word(word::WORKER_SLEEPING));
        if is_damaged {
            end.request_resync();
        }
        end
    }

    /// The next command, `None` when there is none or when there is no room for its answer.
    /// Counts [`Counter::Commands`] and [`Counter::CommandsUndecodable`].
    ///
    /// # Errors
    /// [`RecvError::Undecodable`]: the command was skipped; answer it with
    /// [`trunkline_edge_api::Refusal::Undecodable`] if the error knows its correlation.
    /// [`RecvError::Poisoned`], once: control has gone wrong. From then on there are no commands
    /// until a fresh control attaches; then the end works again by itself.
    pub fn recv_command(&mut self) -> Result<Option<CorrelatedCommand>, RecvError> {
        let attach_count = self.attach_count();
        if self.heal(attach_count).is_err() {
            return Ok(None);
        }
        let has_room = self
            .events
            .has_room(&self.region.event_ring(), ANSWER_WORDS);
        let popped = match has_room {
            Ok(true) => self
                .commands
                .pop(&self.region.command_ring(), &mut self.buf),
            Ok(false) => Ok(None),
            Err(cause) => Err(cause),
        };
        let len = match popped {
            Ok(Some(len)) => len,
            Ok(None) => return Ok(None),
            Err(cause) => {
                self.poison(cause, attach_count);
                return Err(RecvError::Poisoned(cause));
            }
        };
        match wire::decode_command(&self.buf[..len]) {
            Ok(command) => {
                self.counters.add(Counter::Commands, 1);
                Ok(Some(command))
            }
            Err(error) => {
                self.counters.add(Counter::CommandsUndecodable, 1);
                Err(error.into())
            }
        }
    }

    /// Sends an event and wakes control if it sleeps. Counts [`Counter::Events`] and
    /// [`Counter::EventsDropped`]. Allocates nothing.
    ///
    /// # Errors
    /// [`SendError::Full`]: there is no room; what only informs leaves the reserve alone. When the
    /// event was one that must arrive, control is told to resync. [`SendError::Poisoned`] as for
    /// [`Self::recv_command`], but every time.
    pub fn send_event(&mut self, event: &Event) -> Result<(), SendError> {
        let attach_count = self.attach_count();
        let result = self
            .heal(attach_count)
            .map_err(SendError::Poisoned)
            .and_then(|()| {
                let reserve = if event.must_arrive() {
                    0
                } else {
                    self.event_reserve_words
                };
                let message = wire::encode_event(event, &mut self.buf);
                self.events
                    .push(&self.region.event_ring(), message, reserve)
            });
        match result {
            Ok(()) => {
                self.counters.add(Counter::Events, 1);
                self.wake_control();
            }
            Err(error) => {
                self.counters.add(Counter::EventsDropped, 1);
                if event.must_arrive() {
                    self.request_resync();
                }
                if let SendError::Poisoned(cause) = error
                    && self.fault.is_none()
                {
                    self.poison(cause, attach_count);
                }
            }
        }
        result
    }

    /// The counters page.
    #[must_use]
    pub fn counters(&self) -> &CounterCells {
        &self.counters
    }

    /// Says how the worker does I/O; once, when that stands.
    pub fn set_io_tier(&self, tier: IoTier) {
        self.region
            .word(word::IO_TIER)
            .store(tier.to_word(), Ordering::Relaxed);
    }

    /// Says that the worker lives; once per duty cycle.
    pub fn beat(&self, now: MonoTime) {
        self.region
            .word(word::EDGE_HEARTBEAT)
            .store(now.0, Ordering::Relaxed);
    }

    /// To be called before waiting in the kernel for [`Self::doorbell`] among others. `false`:
    /// there is something to do already, do not wait.
    #[must_use]
    pub fn before_wait(&mut self) -> bool {
        sleep::announce(self.region.word(word::WORKER_SLEEPING));
        let may_wait = match self.fault {
            Some(fault) => fault.attach_count == self.attach_count(),
            None => !self.can_take_command(),
        };
        if !may_wait {
            self.after_wait();
        }
        may_wait
    }

    /// To be called after waiting, for whatever reason it ended.
    pub fn after_wait(&self) {
        sleep::retract(self.region.word(word::WORKER_SLEEPING));
    }

    /// The eventfd that control writes when it has sent a command to a sleeping worker.
    #[must_use]
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbells.to_worker.as_fd()
    }

    /// Makes [`Self::doorbell`] unreadable; to be called when it was found readable, before the
    /// commands are read. One system call.
    pub fn silence_doorbell(&self) {
        doorbell::silence(&self.doorbells.to_worker);
    }

    /// When the attached control last said that it lives; `None` when there never was one.
    #[must_use]
    pub fn control_heartbeat(&self) -> Option<MonoTime> {
        self.view().control_heartbeat()
    }

    /// Why the end is out of use; `None` when it is not.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        self.fault.map(|fault| fault.cause)
    }

    /// Whose end it is.
    #[must_use]
    pub fn worker(&self) -> WorkerIndex {
        self.region.layout().worker
    }

    /// This life of the edge.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.region.layout().generation
    }

    /// The worker's slice of media ports.
    #[must_use]
    pub fn ports(&self) -> PortRange {
        self.region.layout().ports
    }

    /// Everything else that stands in the region.
    #[must_use]
    pub fn view(&self) -> RegionView<'_> {
        self.region.view()
    }

    /// Acquire, and read before any index: who sees a control's number sees the indices that this
    /// control put right.
    fn attach_count(&self) -> u64 {
        self.region
            .word(word::CONTROL_ATTACH_COUNT)
            .load(Ordering::Acquire)
    }

    /// Says why the end cannot be used, unless a control has come since it could not.
    fn heal(&mut self, attach_count: u64) -> Result<(), RingFault> {
        if let Some(fault) = self.fault {
            if fault.attach_count == attach_count {
                return Err(fault.cause);
            }
            self.fault = None;
            self.region
                .word(word::WORKER_FAULT)
                .store(0, Ordering::Relaxed);
            self.commands.forget_peer();
            self.events.forget_peer(&self.region.event_ring());
        }
        Ok(())
    }

    /// Puts the end out of use. Who made the peer's words impossible may have written to ours,
    /// too; the next control finds them right.
    fn poison(&mut self, cause: RingFault, attach_count: u64) {
        self.commands.restate(&self.region.command_ring());
        self.events.restate(&self.region.event_ring());
        let told = attach_count.wrapping_add(1);
        self.region
            .word(word::WORKER_FAULT)
            .store(told, Ordering::Release);
        self.fault = Some(Fault {
            cause,
            attach_count,
        });
        self.request_resync();
    }

    fn can_take_command(&mut self) -> bool {
        self.commands.has_records(&self.region.command_ring())
            && self
                .events
                .has_room(&self.region.event_ring(), ANSWER_WORDS)
                .unwrap_or(true)
    }

    fn request_resync(&self) {
        let count = self.region.word(word::RESYNC_COUNT);
        count.store(
            count.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Release,
        );
        self.wake_control();
    }

    fn wake_control(&self) {
        if sleep::peer_sleeps(self.region.word(word::CONTROL_SLEEPING)) {
            doorbell::ring(&self.doorbells.to_control);
        }
    }
}

fn dup(fd: &OwnedFd) -> io::Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, 0)
}
