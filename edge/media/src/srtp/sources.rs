//! The SSRCs that a context has heard, and what of each.

use trunkline_edge_api::Ssrc;

use super::replay::ReplayWindow;

/// See [`super::OpenContext::SOURCES_MAX`].
pub(super) const LEN_MAX: usize = 16;

/// Indices of one SSRC. RTP and RTCP count apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    ssrc: Ssrc,
    pub(super) rtp: ReplayWindow,
    pub(super) rtcp: ReplayWindow,
}

impl Source {
    fn new(ssrc: Ssrc) -> Self {
        Self {
            ssrc,
            rtp: ReplayWindow::default(),
            rtcp: ReplayWindow::default(),
        }
    }
}

/// At most [`LEN_MAX`] sources, the most recently heard first.
#[derive(Debug)]
pub(super) struct Sources {
    sources: [Source; LEN_MAX],
    len: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            sources: [Source::new(Ssrc(0)); LEN_MAX],
            len: 0,
        }
    }
}

impl Sources {
    #[inline]
    pub(super) fn get(&self, ssrc: Ssrc) -> Option<&Source> {
        self.sources[..self.len]
            .iter()
            .find(|source| source.ssrc == ssrc)
    }

    /// The source with `ssrc`, moved to the front. A new one takes the place of the one that was
    /// heard least recently when all are taken. The caller has heard something authentic of it.
    #[inline]
    pub(super) fn entry(&mut self, ssrc: Ssrc) -> &mut Source {
        if self.len == 0 || self.sources[0].ssrc != ssrc {
            self.bring_to_front(ssrc);
        }
        &mut self.sources[0]
    }

    #[cold]
    fn bring_to_front(&mut self, ssrc: Ssrc) {
        let known = self.sources[..self.len]
            .iter()
            .position(|source| source.ssrc == ssrc);
        let at = known.unwrap_or_else(|| {
            self.len = (self.len + 1).min(LEN_MAX);
            self.sources[self.len - 1] = Source::new(ssrc);
            self.len - 1
        });
        self.sources[..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_heard_source_makes_room() {
        let mut sources = Sources::default();
        for ssrc in 0..LEN_MAX as u32 {
            sources.entry(Ssrc(ssrc)).rtp.mark(u64::from(ssrc));
        }
        // SSRC 0 is heard again, so 1 is now the oldest.
        assert_eq!(sources.entry(Ssrc(0)).rtp.newest(), Some(0));
        assert_eq!(sources.entry(Ssrc(99)).rtp.newest(), None);
        assert!(sources.get(Ssrc(1)).is_none());
        for ssrc in (2..LEN_MAX as u32).chain([0]) {
            let newest = sources
                .get(Ssrc(ssrc))
                .and_then(|source| source.rtp.newest());
            assert_eq!(newest, Some(u64::from(ssrc)), "SSRC {ssrc}");
        }
    }
}
