//! Control's end of a worker's two rings.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::layout::word;
use trunkline_edge_api::wire::{self, MESSAGE_LEN_MAX, MessageBuf};
use trunkline_edge_api::{Epoch, Event, MonoTime, PortRange, WorkerIndex};

use crate::counters::CellIndex;
use crate::doorbell::{self, Doorbells};
use crate::queue::{Consumer, Producer, RingFault};
use crate::region::Region;
use crate::view::RegionView;
use crate::{RecvError, SendError, sleep};

/// Control's end: sends commands, receives events, reads counters.
///
/// # Taking over
///
/// An end is made by attaching. Indices live in the region, so it continues where the last control
/// stopped, however that one ended:
///
/// - Commands that the last control sent and the worker has not read stay and will be carried
///   out. They are diffs about sessions of that control's epoch, which the new one adopts or closes
///   ([`trunkline_edge_api::Command::CloseOtherEpochs`]).
/// - Events that the last control has not read stay and are received first: a closed session's
///   last figures are worth billing. Answers among them carry correlations that the new control
///   did not give; those it ignores, so it must not give the same ones again (the epoch in the
///   high half keeps them apart).
/// - One event may have been in the last control's hands. [`Self::take_resync`] is therefore true
///   once after attaching: ask for all sessions, and nothing was missed.
/// - Where indices make no sense, or the worker refuses what stands in the command ring, the
///   rings start empty.
#[derive(Debug)]
pub struct ControlEnd {
    region: Region,
    doorbells: Doorbells,
    epoch: Epoch,
    commands: Producer,
    events: Consumer,
    /// Value of the word that this attachment gave.
    attach_count: u64,
    resync_seen: Option<u64>,
    /// Whether events were read since the worker was last offered the room.
    has_freed_room: bool,
    fault: Option<RingFault>,
    buf: Box<MessageBuf>,
    /// Keeps the edge from handing the region to another control while this end can write to it.
    _connection: Option<Arc<OwnedFd>>,
}

impl ControlEnd {
    /// Takes control of `region`. There may be one such end at a time; the edge sees to that.
    #[must_use]
    pub fn attach(region: Region, doorbells: Doorbells, epoch: Epoch, now: MonoTime) -> Self {
        Self::attach_over(region, doorbells, epoch, now, None)
    }

    pub(crate) fn attach_over(
        region: Region,
        doorbells: Doorbells,
        epoch: Epoch,
        now: MonoTime,
        connection: Option<Arc<OwnedFd>>,
    ) -> Self {
        let (commands, events) = take_rings(&region);
        let mut end = Self {
            region,
            doorbells,
            epoch,
            commands,
            events,
            attach_count: 0,
            resync_seen: None,
            has_freed_room: false,
            fault: None,
            buf: Box::new([0; MESSAGE_LEN_MAX]),
            _connection: connection,
        };
        end.beat(now);
        end.sign_in();
        end
    }

    /// Attaches anew after [`RecvError::Poisoned`] or [`SendError::Poisoned`], as a fresh control
    /// would: what made no sense is dropped, and a resync is due.
    pub fn reattach(&mut self) {
        (self.commands, self.events) = if self.fault.is_some() {
            let commands = Producer::attach_empty(&self.region.command_ring());
            (commands, Consumer::attach_empty(&self.region.event_ring()))
        } else {
            take_rings(&self.region)
        };
        self.fault = None;
        self.resync_seen = None;
        self.sign_in();
    }

    /// Sends a command and wakes the worker if it sleeps.
    ///
    /// # Errors
    /// [`SendError::Full`]: try again when the worker has read, or fail the call with 503.
    /// [`SendError::Poisoned`]: see [`Self::reattach`].
    pub fn send_command(&mut self, command: &CorrelatedCommand) -> Result<(), SendError> {
        if let Some(cause) = self.fault {
            return Err(SendError::Poisoned(cause));
        }
        let message = wire::encode_command(command, &mut self.buf);
        let result = self.commands.push(&self.region.command_ring(), message, 0);
        match result {
            Ok(()) => self.wake_worker(),
            Err(SendError::Full) => {}
            Err(SendError::Poisoned(cause)) => self.fault = Some(cause),
        }
        result
    }

    /// The next event, `None` when there is none.
    ///
    /// # Errors
    /// [`RecvError::Undecodable`]: the event was skipped. If the error knows a correlation, that
    /// command was answered, in words of a later release.
    /// [`RecvError::Poisoned`], once: the worker's words make no sense, or ours make none to the
    /// worker ([`RingFault::RefusedByWorker`]). See [`Self::reattach`].
    pub fn recv_event(&mut self) -> Result<Option<Event>, RecvError> {
        if self.fault.is_some() {
            return Ok(None);
        }
        let result = match self.events.pop(&self.region.event_ring(), &mut self.buf) {
            Ok(None) if self.is_refused() => Err(RingFault::RefusedByWorker),
            result => result,
        };
        match result {
            Ok(Some(len)) => {
                self.has_freed_room = true;
                Ok(Some(wire::decode_event(&self.buf[..len])?))
            }
            Ok(None) => {
                // A worker that had no room for answers may sleep before commands it left alone.
                if std::mem::take(&mut self.has_freed_room)
                    && self.region.view().commands_waiting_len() > 0
                {
                    self.wake_worker();
                }
                Ok(None)
            }
            Err(cause) => {
                self.fault = Some(cause);
                Err(RecvError::Poisoned(cause))
            }
        }
    }

    /// Whether an event that must arrive was lost since this was last asked. Then ask for all
    /// sessions. True the first time after attaching.
    #[must_use]
    pub fn take_resync(&mut self) -> bool {
        let count = self.region.word(word::RESYNC_COUNT).load(Ordering::Acquire);
        self.resync_seen.replace(count) != Some(count)
    }

    /// Says that control lives; at least once a second.
    pub fn beat(&self, now: MonoTime) {
        self.region
            .word(word::CONTROL_HEARTBEAT)
            .store(now.0, Ordering::Relaxed);
    }

    /// To be called before waiting for [`Self::doorbell`] among others. `false`: there is an event
    /// to read already, do not wait.
    ///
    /// A control that never calls this or [`Self::after_wait`] is woken for every event.
    #[must_use]
    pub fn before_wait(&self) -> bool {
        sleep::announce(self.region.word(word::CONTROL_SLEEPING));
        let may_wait = self.fault.is_some()
            || !(self.events.has_records(&self.region.event_ring()) || self.is_refused());
        if !may_wait {
            self.after_wait();
        }
        may_wait
    }

    /// To be called after waiting, for whatever reason it ended.
    pub fn after_wait(&self) {
        sleep::retract(self.region.word(word::CONTROL_SLEEPING));
    }

    /// The eventfd that the worker writes when it has sent an event to a sleeping control.
    #[must_use]
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbells.to_control.as_fd()
    }

    /// Makes [`Self::doorbell`] unreadable; to be called when it was found readable, before the
    /// events are read. One system call.
    pub fn silence_doorbell(&self) {
        doorbell::silence(&self.doorbells.to_control);
    }

    /// When the worker last went through its duty cycle.
    #[must_use]
    pub fn edge_heartbeat(&self) -> MonoTime {
        self.view().edge_heartbeat()
    }

    /// A counter of the worker's.
    #[must_use]
    pub fn counter(&self, cell: impl Into<CellIndex>) -> u64 {
        self.view().counter(cell)
    }

    /// Why the end is out of use; `None` when it is not.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// Whose region it is.
    #[must_use]
    pub fn worker(&self) -> WorkerIndex {
        self.region.layout().worker
    }

    /// Which life of the edge made it.
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

    /// Tells the worker who is in control now. The attach count goes last: a worker that sees it
    /// sees the indices that [`take_rings`] put right.
    fn sign_in(&mut self) {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.region
            .word(word::CONTROL_PID)
            .store(pid as u64, Ordering::Relaxed);
        self.region
            .word(word::CONTROL_EPOCH)
            .store(self.epoch.0.into(), Ordering::Relaxed);
        self.region
            .word(word::CONTROL_SLEEPING)
            .store(1, Ordering::Relaxed);
        let attach_count = self.region.word(word::CONTROL_ATTACH_COUNT);
        self.attach_count = attach_count.load(Ordering::Relaxed).wrapping_add(1);
        attach_count.store(self.attach_count, Ordering::Release);
        self.wake_worker();
    }

    /// Whether the worker refuses the rings for what was there after we attached.
    fn is_refused(&self) -> bool {
        let fault = self.region.word(word::WORKER_FAULT).load(Ordering::Acquire);
        fault != 0 && fault == self.attach_count.wrapping_add(1)
    }

    fn wake_worker(&self) {
        if sleep::peer_sleeps(self.region.word(word::WORKER_SLEEPING)) {
            doorbell::ring(&self.doorbells.to_worker);
        }
    }
}

impl AsFd for ControlEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell()
    }
}

impl AsRawFd for ControlEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell().as_raw_fd()
    }
}

fn take_rings(region: &Region) -> (Producer, Consumer) {
    let ring = region.command_ring();
    let is_refused = region.word(word::WORKER_FAULT).load(Ordering::Acquire) != 0;
    let commands = match Producer::attach(&ring) {
        Ok(producer) if !is_refused => producer,
        _ => Producer::attach_empty(&ring),
    };
    let ring = region.event_ring();
    let events = Consumer::attach(&ring).unwrap_or_else(|_| Consumer::attach_empty(&ring));
    (commands, events)
}
