//! Commands on their way: those that wait for room on a worker's ring, and those whose answer is
//! awaited.

use std::collections::{BTreeMap, HashMap, VecDeque};

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{Command, Correlation, Epoch, LegIndex, SessionId, WorkerIndex};

use super::functions::Asked;

/// Commands that may wait for room in one worker's ring. New sessions are refused beyond it; the
/// few commands that existing sessions still need are always taken.
const BACKLOG_MAX: usize = 4_096;

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The leg's sockets.
    Open(SessionId, LegIndex),
    /// The leg's configuration.
    Configure(SessionId, LegIndex),
    /// The session's figures; the report came before.
    Query(SessionId),
    /// Something beside relaying.
    Function(Asked),
    /// Something that only the counters want to know.
    Nothing,
}

/// How a worker answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandResult {
    /// The wanted condition holds.
    Done,
    /// It could not be brought about.
    Refused,
}

impl CommandResult {
    /// Value of the `result` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CommandResult::Done => "done",
            CommandResult::Refused => "refused",
        }
    }
}

/// What workers answered, by worker, command and result. All values rise only.
pub type CommandCounts = BTreeMap<(WorkerIndex, &'static str, CommandResult), u64>;

#[derive(Debug)]
struct Awaited {
    worker: usize,
    op: &'static str,
    subject: Subject,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Commands {
    epoch: Epoch,
    correlation_next: u32,
    /// In worker order.
    backlogs: Vec<VecDeque<CorrelatedCommand>>,
    awaited: HashMap<Correlation, Awaited>,
    counts: CommandCounts,
}

impl Commands {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            correlation_next: 0,
            backlogs: Vec::new(),
            awaited: HashMap::new(),
            counts: CommandCounts::new(),
        }
    }

    /// A new edge process: nothing that was said to the last one will be answered.
    pub(super) fn begin_anew(&mut self, worker_count: usize) {
        self.awaited.clear();
        self.backlogs.clear();
        self.backlogs.resize_with(worker_count, VecDeque::new);
    }

    /// Answers of this worker were lost; nobody waits for them any more.
    pub(super) fn forget_answers(&mut self, worker: usize) {
        self.awaited.retain(|_, awaited| awaited.worker != worker);
    }

    /// Queues a command. `worker` that the edge no longer has takes none.
    pub(super) fn push(
        &mut self,
        worker: usize,
        command: Command,
        subject: Subject,
    ) -> Correlation {
        // The epoch in the high half: answers to an earlier control may still be on the ring.
        let correlation =
            Correlation(u64::from(self.epoch.0) << 32 | u64::from(self.correlation_next));
        self.correlation_next = self.correlation_next.wrapping_add(1);
        if let Some(backlog) = self.backlogs.get_mut(worker) {
            let awaited = Awaited {
                worker,
                op: op(&command),
                subject,
            };
            self.awaited.insert(correlation, awaited);
            backlog.push_back(CorrelatedCommand {
                correlation,
                command,
            });
        }
        correlation
    }

    /// Whether the worker is too far behind for a new session.
    pub(super) fn is_full(&self, worker: usize) -> bool {
        let backlog = self.backlogs.get(worker);
        backlog.is_none_or(|backlog| backlog.len() >= BACKLOG_MAX)
    }

    /// The next one for `worker`, left in place until [`Self::sent`].
    pub(super) fn peek(&self, worker: WorkerIndex) -> Option<&CorrelatedCommand> {
        self.backlogs.get(usize::from(worker.0))?.front()
    }

    /// The ring took what [`Self::peek`] showed.
    pub(super) fn sent(&mut self, worker: WorkerIndex) {
        if let Some(backlog) = self.backlogs.get_mut(usize::from(worker.0)) {
            backlog.pop_front();
        }
    }

    /// Counts an answer and says what it is about; `None` for one that nobody waits for.
    pub(super) fn answered(
        &mut self,
        correlation: Correlation,
        result: CommandResult,
    ) -> Option<Subject> {
        let awaited = self.awaited.remove(&correlation)?;
        let worker = WorkerIndex(u16::try_from(awaited.worker).ok()?);
        *self.counts.entry((worker, awaited.op, result)).or_default() += 1;
        Some(awaited.subject)
    }

    pub(super) fn counts(&self) -> &CommandCounts {
        &self.counts
    }
}

/// Value of the `op` label.
fn op(command: &Command) -> &'static str {
    match command {
        Command::OpenLeg { .. } => "open_leg",
        Command::ConfigureLeg { .. } => "configure_leg",
        Command::CloseLeg { .. } => "close_leg",
        Command::CloseSession { .. } => "close_session",
        Command::QuerySession { .. } => "query_session",
        Command::QueryAllSessions => "query_all_sessions",
        Command::CloseOtherEpochs { .. } => "close_other_epochs",
        Command::SetLegAudio { .. } => "set_leg_audio",
        Command::SetLegFunctions { .. } => "set_leg_functions",
        Command::LoadPrompt { .. } => "load_prompt",
        Command::UnloadPrompt { .. } => "unload_prompt",
        Command::Play { .. } => "play",
        Command::StopPlaying { .. } => "stop_playing",
        Command::StartRecording { .. } => "start_recording",
        Command::StopRecording { .. } => "stop_recording",
        Command::SendDigits { .. } => "send_digits",
        Command::SetFork { .. } => "set_fork",
        Command::JoinConference { .. } => "join_conference",
        Command::LeaveConference { .. } => "leave_conference",
        Command::SetConference { .. } => "set_conference",
        Command::CloseConference { .. } => "close_conference",
    }
}
