//! The counters page, written by its worker.

use std::sync::atomic::{AtomicU64, Ordering};

use trunkline_edge_api::{Counter, DropReason, Histogram, HistogramCell};

use crate::region::Region;

/// Index of a cell on the counters page, from a [`Counter`], a [`DropReason`] or a
/// [`HistogramCell`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellIndex(pub(crate) usize);

impl From<Counter> for CellIndex {
    fn from(counter: Counter) -> Self {
        Self(counter.cell())
    }
}

impl From<DropReason> for CellIndex {
    fn from(reason: DropReason) -> Self {
        Self(reason.cell())
    }
}

impl From<HistogramCell> for CellIndex {
    fn from(cell: HistogramCell) -> Self {
        Self(cell.cell())
    }
}

/// A worker's way to its counters. Plain loads and stores, no locked instruction: each cell has
/// one writing thread, the worker's. Were there two, counts would be lost and nothing worse.
#[derive(Debug, Clone)]
pub struct CounterCells(Region);

impl CounterCells {
    pub(crate) fn new(region: Region) -> Self {
        Self(region)
    }

    /// Adds `count`.
    #[inline]
    pub fn add(&self, cell: impl Into<CellIndex>, count: u64) {
        self.update(cell.into(), |value| value.wrapping_add(count));
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, cell: impl Into<CellIndex>, value: u64) {
        self.update(cell.into(), |_| value);
    }

    /// Raises a high-water mark to `value` if that is higher.
    #[inline]
    pub fn max(&self, cell: impl Into<CellIndex>, value: u64) {
        self.update(cell.into(), |old| old.max(value));
    }

    /// Counts `value` in its bucket and adds it to the sum.
    #[inline]
    pub fn observe(&self, histogram: Histogram, value: u64) {
        self.add(histogram.bucket_of(value), 1);
        self.add(HistogramCell::Sum(histogram), value);
    }

    /// What stands in a cell.
    #[must_use]
    pub fn get(&self, cell: impl Into<CellIndex>) -> u64 {
        let CellIndex(index) = cell.into();
        self.0
            .cells()
            .get(index)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// A region taken over from an edge that counted less has no such cell; then nothing happens.
    #[inline]
    fn update(&self, CellIndex(index): CellIndex, f: impl FnOnce(u64) -> u64) {
        if let Some(cell) = self.0.cells().get(index) {
            let cell: &AtomicU64 = cell;
            cell.store(f(cell.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}
