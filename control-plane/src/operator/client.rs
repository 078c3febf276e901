//! The command line's side of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{REPLY_LEN_MAX, Reply, Request};

/// Longer than everything the server waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is nobody at the socket.
    #[error("no daemon is running: nobody answers at {0}")]
    NotRunning(String),
    /// The daemon has closed the connection without a word.
    #[error("trunkline-control does not speak to this user; run as root or as the owner of {0}")]
    NotSpokenTo(String),
    /// The daemon refused, or could not do it.
    #[error("{0}")]
    Refused(String),
    /// Reading or writing failed, or took too long.
    #[error("{path}: {error}")]
    Io {
        /// The socket.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

/// Asks the daemon at `path`.
///
/// # Errors
/// See [`AskError`]. [`Reply::Error`] comes as [`AskError::Refused`].
pub fn ask(path: &Path, request: Request) -> Result<Reply, AskError> {
    Conversation::begin(path, &request)?.reply()
}

/// Asks the daemon at `path` what happens in a call, and hands every reply to `each` until the call
/// is over, the daemon stops, or `each` says no.
///
/// # Errors
/// See [`AskError`].
pub fn follow(
    path: &Path,
    call_id: &str,
    mut each: impl FnMut(Reply) -> bool,
) -> Result<(), AskError> {
    let request = Request::Events {
        call_id: call_id.to_owned(),
        follow: true,
    };
    let mut conversation = Conversation::begin(path, &request)?;
    let first = conversation.reply()?;
    // From now on a reply comes when something happens.
    conversation.wait_for_ever()?;
    let mut reply = Some(first);
    while let Some(next) = reply.take() {
        let is_last = matches!(next, Reply::Over);
        if !each(next) || is_last {
            return Ok(());
        }
        reply = match conversation.reply() {
            Ok(next) => Some(next),
            Err(AskError::NotSpokenTo(_)) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// One connection to the daemon.
struct Conversation<'a> {
    path: &'a Path,
    stream: BufReader<UnixStream>,
}

impl<'a> Conversation<'a> {
    fn begin(path: &'a Path, request: &Request) -> Result<Self, AskError> {
        let failed = |error| failed(path, error);
        let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NotRunning(path.display().to_string())
            }
            _ => failed(error),
        })?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(failed)?;
        Ok(Self {
            path,
            stream: BufReader::new(stream),
        })
    }

    fn wait_for_ever(&self) -> Result<(), AskError> {
        let result = self.stream.get_ref().set_read_timeout(None);
        result.map_err(|error| failed(self.path, error))
    }

    fn reply(&mut self) -> Result<Reply, AskError> {
        let mut reply = String::new();
        let mut limited = (&mut self.stream).take(REPLY_LEN_MAX);
        let result = limited.read_line(&mut reply);
        result.map_err(|error| failed(self.path, error))?;
        if reply.is_empty() {
            return Err(AskError::NotSpokenTo(self.path.display().to_string()));
        }
        match serde_json::from_str(&reply) {
            Ok(Reply::Error { message }) => Err(AskError::Refused(message)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(failed(self.path, error.into())),
        }
    }
}

fn failed(path: &Path, error: io::Error) -> AskError {
    AskError::Io {
        path: path.display().to_string(),
        error,
    }
}
