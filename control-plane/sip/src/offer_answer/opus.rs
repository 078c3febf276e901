//! `a=fmtp` of Opus: RFC 7587 §6.1. What stands in a peer's description is what it would receive.
//!
//! `stereo` is passed over: what we send is mono, and every decoder plays that.

use trunkline_edge_api::OpusOptions;

/// Rates that `maxplaybackrate` distinguishes, Hz.
const PLAYBACK_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// What `maxaveragebitrate` may be, bit/s.
const BITRATES: std::ops::RangeInclusive<u32> = 6_000..=510_000;

/// What we say where Opus becomes audio of `rate_hz`: no more bandwidth than that either way, so
/// that the peer codes no more than we make use of, and redundancy, which costs the sender alone.
pub(super) fn ours(rate_hz: u32) -> String {
    let rate_hz = playback_rate(rate_hz);
    let mut fmtp = to_fmtp(&OpusOptions {
        in_band_fec: true,
        playback_rate_max_hz: rate_hz,
        ..OpusOptions::default()
    });
    if rate_hz < OpusOptions::default().playback_rate_max_hz {
        fmtp.push_str(&format!(";sprop-maxcapturerate={rate_hz}"));
    }
    fmtp
}

/// Reads what it knows and passes over the rest. Values outside their range count as absent.
pub(super) fn parse(fmtp: &str) -> OpusOptions {
    let mut options = OpusOptions::default();
    for parameter in fmtp.split(';') {
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let is_one = value == "1";
        match (name.as_str(), value.parse::<u32>()) {
            ("useinbandfec", _) => options.in_band_fec = is_one,
            ("usedtx", _) => options.dtx = is_one,
            ("cbr", _) => options.constant_bitrate = is_one,
            ("maxplaybackrate", Ok(hz)) if hz >= PLAYBACK_RATES[0] => {
                options.playback_rate_max_hz = playback_rate(hz);
            }
            ("maxaveragebitrate", Ok(bitrate)) if BITRATES.contains(&bitrate) => {
                options.bitrate_max = bitrate;
            }
            _ => {}
        }
    }
    options
}

/// As `a=fmtp` has it; parameters at their default are left out.
fn to_fmtp(options: &OpusOptions) -> String {
    let mut fmtp = "minptime=10".to_owned();
    let flags = [
        ("useinbandfec", options.in_band_fec),
        ("usedtx", options.dtx),
        ("cbr", options.constant_bitrate),
    ];
    for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        fmtp.push_str(&format!(";{name}=1"));
    }
    let rate_hz = options.playback_rate_max_hz;
    if rate_hz < OpusOptions::default().playback_rate_max_hz {
        fmtp.push_str(&format!(";maxplaybackrate={rate_hz}"));
    }
    if options.bitrate_max > 0 {
        fmtp.push_str(&format!(";maxaveragebitrate={}", options.bitrate_max));
    }
    fmtp
}

/// The highest rate that does not exceed `hz`; the lowest of all below that.
fn playback_rate(hz: u32) -> u32 {
    let mut rates = PLAYBACK_RATES.into_iter().rev();
    rates.find(|rate| *rate <= hz).unwrap_or(PLAYBACK_RATES[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(fec: bool, dtx: bool, cbr: bool, rate: u32, bitrate: u32) -> OpusOptions {
        OpusOptions {
            in_band_fec: fec,
            dtx,
            constant_bitrate: cbr,
            playback_rate_max_hz: rate,
            bitrate_max: bitrate,
        }
    }

    #[test]
    fn parameters_of_real_endpoints_are_read() {
        let rows = [
            ("", options(false, false, false, 48_000, 0)),
            (
                "minptime=10;useinbandfec=1",
                options(true, false, false, 48_000, 0),
            ),
            (
                "maxplaybackrate=16000; sprop-maxcapturerate=16000; maxaveragebitrate=20000; \
                 stereo=1; useinbandfec=1; usedtx=0",
                options(true, false, false, 16_000, 20_000),
            ),
            (
                "useinbandfec=1;usedtx=1;cbr=1",
                options(true, true, true, 48_000, 0),
            ),
            (
                "MaxPlaybackRate=44100",
                options(false, false, false, 24_000, 0),
            ),
            (
                "maxplaybackrate=96000",
                options(false, false, false, 48_000, 0),
            ),
            (
                "maxplaybackrate=0;maxaveragebitrate=4294967296;stereo=yes;;=;x",
                options(false, false, false, 48_000, 0),
            ),
            (
                "maxaveragebitrate=5999",
                options(false, false, false, 48_000, 0),
            ),
        ];
        for (fmtp, expected) in rows {
            assert_eq!(parse(fmtp), expected, "{fmtp:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let rows = [
            options(true, false, false, 8_000, 0),
            options(false, true, true, 16_000, 24_000),
            options(true, true, false, 48_000, 510_000),
        ];
        for row in rows {
            assert_eq!(parse(&to_fmtp(&row)), row);
        }
        assert_eq!(
            ours(8_000),
            "minptime=10;useinbandfec=1;maxplaybackrate=8000;sprop-maxcapturerate=8000"
        );
        assert_eq!(parse(&ours(16_000)).playback_rate_max_hz, 16_000);
        assert_eq!(ours(48_000), "minptime=10;useinbandfec=1");
    }
}
