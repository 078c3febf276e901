//! The name of the edge's socket: who may have it, and what a dead edge leaves behind.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{self, Errno};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 16;

/// Mode of the socket file: the edge's user and group.
const SOCKET_MODE: Mode = Mode::RUSR
    .union(Mode::WUSR)
    .union(Mode::RGRP)
    .union(Mode::WGRP);

/// Why the edge cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There is an edge already.
    #[error(
        "another process (PID {pid}) listens at {}: stop it, or give this edge another [node] \
         run_dir", path.display()
    )]
    InUse {
        /// The socket's path.
        path: PathBuf,
        /// Who listens there.
        pid: u32,
    },
    /// Something else has the socket's name.
    #[error("{} exists and is no socket: move it away", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot listen at {}: {errno} ({action})", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// The socket's name. Removed when the edge stops, if it still is this socket's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Ok(Some(self.identity)) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Listens at `path` as [`super::EdgeListener::bind`] promises.
pub(super) fn listen_at(path: &Path) -> Result<(OwnedFd, SocketFile), BindError> {
    let failed = |action| {
        move |errno| BindError::Io {
            path: path.to_owned(),
            action,
            errno,
        }
    };
    let address = SocketAddrUnix::new(path).map_err(failed("the path is too long for a socket"))?;
    // Two edges that start at once must not both find the same stale file.
    let _lock = lock_parent(path).map_err(failed("lock the directory"))?;
    remove_stale(path, &address)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(failed("socket"))?;
    // The file takes the socket's mode when it is bound: there is no moment in which others may
    // connect. The umask may have taken bits from it; they are given back before anyone listens.
    rustix::fs::fchmod(&socket, SOCKET_MODE).map_err(failed("set the mode"))?;
    bind(&socket, &address).map_err(failed("bind"))?;
    rustix::fs::chmod(path, SOCKET_MODE).map_err(failed("set the mode"))?;
    let identity = identity(path)
        .and_then(|identity| identity.ok_or(Errno::NOENT))
        .map_err(failed("find the socket"))?;
    let file = SocketFile {
        path: path.to_owned(),
        identity,
    };
    listen(&socket, BACKLOG).map_err(failed("listen"))?;
    Ok((socket, file))
}

/// Held while a stale file is looked for and replaced, which takes no longer than the one second
/// that others try.
fn lock_parent(path: &Path) -> io::Result<OwnedFd> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let mut tries = 100;
    loop {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if tries > 0 => tries -= 1,
            Err(Errno::INTR) => {}
            result => return result.map(|()| directory),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let failed = |action| {
        move |errno| BindError::Io {
            path: path.to_owned(),
            action,
            errno,
        }
    };
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        result => result.map_err(failed("look for a stale socket"))?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(failed("socket"))?;
    let pid = match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {
            return rustix::fs::unlink(path).map_err(failed("remove the stale socket"));
        }
        Err(Errno::NOENT) => return Ok(()),
        // A full backlog or a socket of another type is somebody's, too.
        Err(_) => 0,
        Ok(()) => socket_peercred(&probe).map_or(0, |peer| peer.pid.as_raw_nonzero().get() as u32),
    };
    Err(BindError::InUse {
        path: path.to_owned(),
        pid,
    })
}

fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
