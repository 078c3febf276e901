//! The mapped memory, seen as atomic words. All `unsafe` of this crate lives here.

use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use trunkline_edge_api::layout::WORD_LEN;

/// What may be done to the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Loads with relaxed ordering only: the standard library promises no others on memory that
    /// is mapped read-only.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A shared mapping of a file that cannot shrink. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    word_count: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of `fd`. The caller has checked that the file is at least that
    /// long and sealed against shrinking; otherwise accesses may raise SIGBUS.
    ///
    /// # Errors
    /// The kernel's: `EACCES` when `fd` does not allow the access, `ENOMEM`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<Self> {
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choosing overlaps nothing that
        // Rust knows of. Other processes may write to it at any time, which is why it is only
        // ever used as atomics.
        let start = unsafe { mmap(null_mut(), len, prot, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self {
            start,
            word_count: len / WORD_LEN,
        })
    }

    /// All words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` points to `word_count` words that stay mapped as long as `self` lives;
        // a mapping is page-aligned, any bit pattern is a u64, and atomics may be written through
        // shared references and by other processes. Of a read-only mapping `ObservedRegion` and
        // `RegionView` do relaxed loads only, which the standard library allows there for 64-bit
        // atomics on 64-bit targets.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.word_count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no borrow of it outlives `self`.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.word_count * WORD_LEN) };
        debug_assert!(result.is_ok());
    }
}

// SAFETY: the mapping is plain memory without affinity to a thread, and all access to it is
// through `&[AtomicU64]`, which is Send and Sync itself.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}
