//! From the configuration file to what each worker gets.

use std::path::PathBuf;
use std::thread::available_parallelism;

use trunkline_edge_api::config::{EdgeDocument, IoChoice};
use trunkline_edge_api::{PortRange, WorkerIndex};
use trunkline_media::prompt::PromptLimits;

use crate::prompts::PromptSettings;
use crate::recording::RecorderLimits;

/// Sockets of a session: RTP and RTCP on each of two legs.
const SOCKETS_PER_SESSION: u32 = 4;

/// File descriptors that are no media sockets: standard streams, rings, regions, eventfds, the
/// handshake socket and its clients. Generous.
const OTHER_FILES: u64 = 64;
const OTHER_FILES_PER_WORKER: u64 = 8;

/// The configuration, with everything resolved that the file leaves to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where control and observers connect.
    pub socket_path: PathBuf,
    /// Directory of the socket and of the generation file.
    pub run_dir: PathBuf,
    /// The media ports of each worker; as many as there are workers.
    pub slices: Vec<PortRange>,
    /// Sessions per worker.
    pub sessions_max: u32,
    /// Seconds.
    pub orphan_timeout_secs: u32,
    /// How workers do I/O.
    pub io: IoChoice,
    /// DSCP of media sockets, 0 … 63.
    pub dscp: u8,
    /// What prompts may take.
    pub prompts: PromptSettings,
    /// What each worker may use of the recorder.
    pub recorder: RecorderLimits,
}

/// The file is sound, but this machine cannot do what it says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Fewer port pairs than workers.
    #[error(
        "[edge] ports = \"{}-{}\" has no pair of ports for each of {workers} workers: widen it or \
         lower [edge] workers", ports.first(), ports.last()
    )]
    TooFewPorts {
        /// What the file says.
        ports: PortRange,
        /// How many workers there are to be.
        workers: u16,
    },
}

impl Settings {
    /// Resolves `document` for this machine.
    ///
    /// # Errors
    /// [`SettingsError`]; its text names the keys to change.
    pub fn resolve(document: &EdgeDocument) -> Result<Self, SettingsError> {
        let edge = &document.edge;
        let workers = match edge.workers {
            // Not known on some restricted systems; one worker serves there.
            0 => available_parallelism().map_or(1, |count| count.get().min(256) as u16),
            count => count,
        };
        let slices = (0..workers)
            .map(|index| edge.ports.slice(WorkerIndex(index), workers))
            .collect::<Option<Vec<_>>>()
            .ok_or(SettingsError::TooFewPorts {
                ports: edge.ports,
                workers,
            })?;
        Ok(Self {
            socket_path: document.node.edge_socket(),
            run_dir: document.node.run_dir.clone(),
            slices,
            sessions_max: edge.sessions_max,
            orphan_timeout_secs: edge.orphan_timeout_secs,
            io: edge.io,
            dscp: edge.dscp,
            prompts: PromptSettings {
                limits: PromptLimits {
                    duration_max_secs: edge.prompt_secs_max,
                    bytes_max: mebibytes(edge.prompt_memory_mb),
                },
                file_bytes_max: mebibytes(edge.prompt_file_mb),
                bytes_max: mebibytes(edge.prompt_memory_mb),
                prompts_max: edge.prompts_max as usize,
            },
            recorder: RecorderLimits::of_memory(
                edge.recordings_max,
                mebibytes(edge.recorder_memory_mb),
            ),
        })
    }

    /// Number of workers.
    #[must_use]
    pub fn worker_count(&self) -> u16 {
        self.slices.len() as u16
    }

    /// Media sockets per worker when all sessions are in use.
    #[must_use]
    pub fn sockets_wanted(&self) -> u32 {
        self.sessions_max.saturating_mul(SOCKETS_PER_SESSION)
    }

    /// File descriptors that all of that takes.
    #[must_use]
    pub fn files_wanted(&self) -> u64 {
        let workers = u64::from(self.worker_count());
        let per_worker = u64::from(self.sockets_wanted()) + OTHER_FILES_PER_WORKER;
        workers * per_worker + OTHER_FILES
    }

    /// Media sockets per worker, when the process may have `files_max` file descriptors.
    #[must_use]
    pub fn sockets_max(&self, files_max: u64) -> u32 {
        let workers = u64::from(self.worker_count());
        let others = OTHER_FILES + workers * OTHER_FILES_PER_WORKER;
        let each = files_max.saturating_sub(others) / workers.max(1);
        let each = u32::try_from(each).unwrap_or(u32::MAX);
        self.sockets_wanted().min(each).max(SOCKETS_PER_SESSION)
    }
}

fn mebibytes(count: u32) -> u64 {
    u64::from(count) << 20
}

#[cfg(test)]
mod tests {
    use trunkline_edge_api::config::parse_document;

    use super::*;

    fn settings(text: &str) -> Result<Settings, SettingsError> {
        let document: EdgeDocument = parse_document(text, "test").expect("sound");
        Settings::resolve(&document)
    }

    #[test]
    fn every_worker_gets_a_slice() {
        let settings = settings("[edge]\nworkers = 3\nports = \"30000-30019\"").expect("fits");
        assert_eq!(settings.worker_count(), 3);
        let firsts: Vec<_> = settings.slices.iter().map(|slice| slice.first()).collect();
        assert_eq!(firsts, [30_000, 30_006, 30_012]);
    }

    #[test]
    fn absent_worker_count_means_one_per_core() {
        let cores = available_parallelism().expect("known here").get();
        let settings = settings("").expect("the defaults fit");
        assert_eq!(usize::from(settings.worker_count()), cores);
    }

    #[test]
    fn too_few_ports_name_the_keys_to_change() {
        let error = settings("[edge]\nworkers = 4\nports = \"30000-30005\"").expect_err("3 pairs");
        let text = error.to_string();
        assert!(
            text.contains("[edge] ports") && text.contains("[edge] workers"),
            "{text}"
        );
    }

    #[test]
    fn prompts_and_the_recorder_may_take_what_the_file_says() {
        let settings = settings(
            "[edge]\nprompts_max = 7\nprompt_memory_mb = 20\nprompt_file_mb = 3\n\
             prompt_secs_max = 60\nrecordings_max = 9\nrecorder_memory_mb = 1",
        )
        .expect("fits");
        let prompts = settings.prompts;
        assert_eq!((prompts.prompts_max, prompts.bytes_max), (7, 20 << 20));
        assert_eq!(prompts.file_bytes_max, 3 << 20);
        assert_eq!(prompts.limits.duration_max_secs, 60);
        assert_eq!(settings.recorder.recordings_max, 9);
        // 27 KB each, and never none.
        assert!((30..=45).contains(&settings.recorder.blocks_max));
        assert!(RecorderLimits::of_memory(1, 0).blocks_max > 0);
    }

    #[test]
    fn sockets_fit_the_file_limit() {
        let settings = settings("[edge]\nworkers = 2\nsessions_max = 5000").expect("fits");
        assert_eq!(settings.sockets_max(settings.files_wanted()), 20_000);
        let scarce = settings.sockets_max(20_000);
        assert!(u64::from(scarce) * 2 < 20_000 && scarce > 9_000, "{scarce}");
        assert_eq!(settings.sockets_max(0), SOCKETS_PER_SESSION);
    }
}
