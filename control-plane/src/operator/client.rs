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
    let failed = |error: io::Error| AskError::Io {
        path: path.display().to_string(),
        error,
    };
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(path.display().to_string())
        }
        _ => failed(error),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_LEN_MAX))
        .read_line(&mut reply)
        .map_err(failed)?;
    if reply.is_empty() {
        return Err(AskError::Refused(format!(
            "trunkline-control does not speak to this user; run as root or as the owner of {}",
            path.display()
        )));
    }
    match serde_json::from_str(&reply).map_err(|error| failed(error.into()))? {
        Reply::Error { message } => Err(AskError::Refused(message)),
        reply => Ok(reply),
    }
}
