//! Finding out at start whether this kernel lets the io_uring tier run, and saying what to change
//! when it does not.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Why the tier cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// A sysctl switches io_uring off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {value}): set it to 0, or to 1 and \
         name the edge's group in kernel.io_uring_group"
    )]
    Disabled {
        /// What the sysctl says.
        value: u8,
    },
    /// A security module or seccomp filter forbids it.
    #[error(
        "io_uring is forbidden to this process ({0}): allow io_uring_setup, io_uring_enter and \
         io_uring_register in the container's or unit's system call filter"
    )]
    Forbidden(io::Error),
    /// The kernel does not know what the tier needs.
    #[error("this kernel lacks {missing}: Linux 6.1 or later is needed")]
    KernelTooOld {
        /// What is missing.
        missing: &'static str,
    },
    /// Not enough memory may be locked, or there is none.
    #[error("no memory for io_uring ({0}): raise LimitMEMLOCK of the unit")]
    NoMemory(io::Error),
    /// More sockets than file descriptors.
    #[error(
        "cannot register {sockets} sockets ({error}): raise LimitNOFILE of the unit or lower \
         [edge] sessions_max"
    )]
    TooManyFiles {
        /// How many were asked for.
        sockets: u32,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Anything else.
    #[error("cannot {action}: {error}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// Reads the kernel's answer to `io_uring_setup`.
pub(super) fn explain_setup(error: io::Error) -> UringError {
    explain(error, disabled_sysctl())
}

/// `None` where the sysctl does not exist (before Linux 6.6).
fn disabled_sysctl() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

fn explain(error: io::Error, disabled_sysctl: Option<u8>) -> UringError {
    match (error.raw_os_error(), disabled_sysctl) {
        (Some(libc::EPERM | libc::EACCES), Some(value @ 1..)) => UringError::Disabled { value },
        (Some(libc::EPERM | libc::EACCES), _) => UringError::Forbidden(error),
        (Some(libc::ENOSYS), _) => UringError::KernelTooOld {
            missing: "io_uring",
        },
        (Some(libc::EINVAL), _) => UringError::KernelTooOld {
            missing: "io_uring's SINGLE_ISSUER and DEFER_TASKRUN",
        },
        (Some(libc::ENOMEM), _) => UringError::NoMemory(error),
        _ => UringError::Other {
            action: "set up io_uring",
            error,
        },
    }
}

/// Checks that the kernel knows every operation that the tier submits. Multishot receive (6.0)
/// and sends with an address (6.1) have no bit of their own; [`explain_setup`] has found a kernel
/// with DEFER_TASKRUN, which is 6.1.
pub(super) fn check_operations(ring: &IoUring) -> Result<(), UringError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| UringError::Other {
            action: "probe io_uring",
            error,
        })?;
    let needed = [
        (opcode::RecvMsgMulti::CODE, "io_uring recvmsg"),
        (opcode::Send::CODE, "io_uring send"),
        (opcode::PollAdd::CODE, "io_uring poll"),
        (opcode::AsyncCancel2::CODE, "io_uring cancel"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, missing)) => Err(UringError::KernelTooOld { missing }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_kernel_says_what_to_change() {
        let rows = [
            (libc::EPERM, Some(2), "kernel.io_uring_disabled = 2"),
            (libc::EPERM, Some(0), "system call filter"),
            (libc::EPERM, None, "system call filter"),
            (libc::ENOSYS, None, "Linux 6.1"),
            (libc::EINVAL, Some(0), "Linux 6.1"),
            (libc::ENOMEM, Some(0), "LimitMEMLOCK"),
            (libc::EMFILE, Some(0), "set up io_uring"),
        ];
        for (errno, sysctl, expected) in rows {
            let text = explain(io::Error::from_raw_os_error(errno), sysctl).to_string();
            assert!(text.contains(expected), "{errno}: {text}");
        }
    }
}
