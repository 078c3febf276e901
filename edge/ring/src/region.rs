//! A worker's region: a sealed memfd, checked before a word of it is used.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io;
use trunkline_edge_api::layout::{
    HEADER_LEN, LINE_WORDS, LayoutError, REGION_LEN_MAX, RegionLayout, Section, WORD_LEN, word,
};
use trunkline_edge_api::{PortRange, WorkerIndex};

use crate::mapping::{Access, Mapping};
use crate::queue::Ring;
use crate::view::RegionView;

// The lines of the layout keep the two sides apart at least as far as this target needs.
const _: () = assert!(LINE_WORDS * WORD_LEN >= size_of::<CachePadded<AtomicU64>>());

/// A region never changes its length: a mapping of it cannot fault, and the seals cannot be
/// changed either.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// What a new region is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// Whose region it is.
    pub worker: WorkerIndex,
    /// This life of the edge, higher than any before it and never 0.
    pub generation: u64,
    /// The worker's slice of media ports.
    pub ports: PortRange,
    /// PID of the edge.
    pub edge_pid: u32,
}

/// A region mapped for reading and writing.
#[derive(Debug, Clone)]
pub struct Region {
    mapping: Arc<Mapping>,
    layout: RegionLayout,
}

impl Region {
    /// Makes a new region. The descriptor is what control is given; keeping it keeps the region.
    ///
    /// # Errors
    /// The kernel's, and [`LayoutError`] for generation 0.
    pub fn create(spec: &RegionSpec) -> Result<(Region, OwnedFd), RegionError> {
        let layout = RegionLayout::new(spec.worker, spec.generation, spec.ports);
        Self::create_with_layout(layout, spec.edge_pid)
    }

    /// The same with rings of other lengths.
    ///
    /// # Errors
    /// The kernel's, and [`LayoutError`] for a layout that [`Self::open`] would refuse.
    pub fn create_with_layout(
        layout: RegionLayout,
        edge_pid: u32,
    ) -> Result<(Region, OwnedFd), RegionError> {
        let header = layout.to_words();
        RegionLayout::from_words(&header, layout.region_len)?;
        let fd = memfd().map_err(RegionError::io("create the region's memfd"))?;
        rustix::fs::ftruncate(&fd, layout.region_len as u64)
            .map_err(RegionError::io("size the region"))?;
        rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(RegionError::io("seal the region"))?;
        let mapping = Mapping::new(fd.as_fd(), layout.region_len, Access::ReadWrite)
            .map_err(RegionError::io("map the region"))?;
        for (cell, value) in mapping.words().iter().zip(header) {
            cell.store(value, Ordering::Relaxed);
        }
        let region = Region {
            mapping: Arc::new(mapping),
            layout,
        };
        region
            .word(word::EDGE_PID)
            .store(u64::from(edge_pid), Ordering::Relaxed);
        // Until a side says otherwise it wants to be woken.
        region
            .word(word::WORKER_SLEEPING)
            .store(1, Ordering::Relaxed);
        region
            .word(word::CONTROL_SLEEPING)
            .store(1, Ordering::Relaxed);
        Ok((region, fd))
    }

    /// Maps a region that another process made.
    ///
    /// # Errors
    /// [`RegionError`] unless the file is sealed, as long as its header says, of our major
    /// version, and every section lies where one may.
    pub fn open(fd: impl AsFd) -> Result<Region, RegionError> {
        let (mapping, layout) = open(fd.as_fd(), Access::ReadWrite)?;
        Ok(Region { mapping, layout })
    }

    /// Maps a region for reading only; `fd` need not be writable.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read_only(fd: impl AsFd) -> Result<ObservedRegion, RegionError> {
        let (mapping, layout) = open(fd.as_fd(), Access::ReadOnly)?;
        Ok(ObservedRegion { mapping, layout })
    }

    /// The checked header.
    #[must_use]
    pub fn layout(&self) -> &RegionLayout {
        &self.layout
    }

    /// What anybody may read in it.
    #[must_use]
    pub fn view(&self) -> RegionView<'_> {
        RegionView::new(self.mapping.words(), &self.layout)
    }

    /// A word of the header page.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < word::COUNT);
        &self.mapping.words()[index]
    }

    /// The cells of the counters page.
    pub(crate) fn cells(&self) -> &[AtomicU64] {
        self.section(self.layout.counters)
    }

    pub(crate) fn command_ring(&self) -> Ring<'_> {
        Ring {
            head: self.word(word::COMMANDS_HEAD),
            tail: self.word(word::COMMANDS_TAIL),
            full_count: self.word(word::COMMANDS_FULL_COUNT),
            data: self.section(self.layout.commands),
        }
    }

    pub(crate) fn event_ring(&self) -> Ring<'_> {
        Ring {
            head: self.word(word::EVENTS_HEAD),
            tail: self.word(word::EVENTS_TAIL),
            full_count: self.word(word::EVENTS_FULL_COUNT),
            data: self.section(self.layout.events),
        }
    }

    fn section(&self, section: Section) -> &[AtomicU64] {
        &self.mapping.words()[section.first_word()..][..section.word_count()]
    }
}

/// A region mapped for reading only: counters and heartbeats, as `status` shows them.
#[derive(Debug)]
pub struct ObservedRegion {
    mapping: Arc<Mapping>,
    layout: RegionLayout,
}

impl ObservedRegion {
    /// The checked header.
    #[must_use]
    pub fn layout(&self) -> &RegionLayout {
        &self.layout
    }

    /// What there is to read.
    #[must_use]
    pub fn view(&self) -> RegionView<'_> {
        RegionView::new(self.mapping.words(), &self.layout)
    }
}

/// A second descriptor of the same region, through which it cannot be written.
///
/// It keeps an observer from harm by accident. One that runs under the edge's own user could open
/// the region for writing again; nobody else is let in.
pub(crate) fn reopen_read_only(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn memfd() -> io::Result<OwnedFd> {
    let name = c"trunkline-region";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 want to be told that the file is not for execution (vm.memfd_noexec),
    // those before do not know the flag.
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(io::Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    }
}

fn open(fd: BorrowedFd<'_>, access: Access) -> Result<(Arc<Mapping>, RegionLayout), RegionError> {
    // Only memfds and files on tmpfs know seals; others answer EINVAL.
    let seals = rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    if !seals.contains(SEALS) {
        return Err(RegionError::Unsealed);
    }
    let size = rustix::fs::fstat(fd)
        .map_err(RegionError::io("read the region's length"))?
        .st_size;
    let len = usize::try_from(size)
        .ok()
        .filter(|len| (HEADER_LEN..=REGION_LEN_MAX).contains(len))
        .ok_or(RegionError::Size { found: size as u64 })?;
    let mapping = Mapping::new(fd, len, access).map_err(RegionError::io("map the region"))?;
    let mut header = [0; word::FIXED_COUNT];
    for (value, cell) in header.iter_mut().zip(mapping.words()) {
        *value = cell.load(Ordering::Relaxed);
    }
    let layout = RegionLayout::from_words(&header, len)?;
    Ok((Arc::new(mapping), layout))
}

/// Why a region cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// A system call failed.
    #[error("cannot {action}: {errno}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        errno: io::Errno,
    },
    /// The file could still be resized, so a mapping of it could fault.
    #[error("the file is no sealed memfd: it was not made by trunkline-edge")]
    Unsealed,
    /// Too short for a header or longer than any region.
    #[error("a file of {found} bytes is no region")]
    Size {
        /// The file's length.
        found: u64,
    },
    /// The header does not add up.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl RegionError {
    fn io(action: &'static str) -> impl FnOnce(io::Errno) -> Self {
        move |errno| Self::Io { action, errno }
    }
}
