use super::*;

fn sample() -> RegionLayout {
    RegionLayout::new(
        WorkerIndex(3),
        7,
        PortRange::new(30_000, 30_999).expect("valid range"),
    )
}

/// The words with `index` replaced and the checksum made to fit, as a hostile writer would.
fn forged(index: usize, value: u64) -> [u64; word::FIXED_COUNT] {
    let mut words = sample().to_words();
    words[index] = value;
    if index != word::CHECKSUM {
        words[word::CHECKSUM] = checksum(&words);
    }
    words
}

#[test]
fn header_survives_the_round_trip() {
    let layout = sample();
    assert_eq!(
        RegionLayout::from_words(&layout.to_words(), layout.region_len),
        Ok(layout)
    );
}

#[test]
fn any_single_changed_word_is_noticed() {
    let layout = sample();
    for index in 0..word::FIXED_COUNT {
        for value in [0, 1, u64::MAX, layout.to_words()[index] ^ 1] {
            let mut words = layout.to_words();
            if words[index] == value {
                continue;
            }
            words[index] = value;
            let result = RegionLayout::from_words(&words, layout.region_len);
            assert!(result.is_err(), "word {index} = {value:#x} was accepted");
        }
    }
}

#[test]
fn impossible_fields_are_refused_even_with_a_fitting_checksum() {
    let rows: &[(usize, u64)] = &[
        (word::MAGIC, 0),
        (word::VERSION, 2 << 16),
        (word::VERSION, 1 << 32),
        (word::HEADER_LEN, 0),
        (word::HEADER_LEN, 8192),
        (word::REGION_LEN, 0),
        (word::REGION_LEN, u64::MAX),
        (word::REGION_LEN, 1 << 20),
        (word::GENERATION, 0),
        (word::WORKER, 1 << 16),
        (word::PORTS, 0),
        (word::PORTS, 5 | 4 << 16),
        (word::PORTS, 1 << 32 | 5 << 16 | 4),
        (word::COUNTERS_OFFSET, 0),
        (word::COUNTERS_OFFSET, 4104),
        (word::COUNTERS_OFFSET, u64::MAX - 127),
        (word::COUNTERS_COUNT, 0),
        (word::COUNTERS_COUNT, 513),
        (word::COUNTERS_COUNT, u64::MAX / 8),
        (word::COMMANDS_OFFSET, 4096),
        (word::COMMANDS_OFFSET, 8192 + 128),
        (word::COMMANDS_LEN, 0),
        (word::COMMANDS_LEN, 2048),
        (word::COMMANDS_LEN, (1 << 20) + 8),
        (word::COMMANDS_LEN, 1 << 21),
        (word::COMMANDS_LEN, u64::MAX),
        (word::EVENTS_OFFSET, 8192),
        (word::EVENTS_LEN, 1 << 22),
        (word::EVENTS_RESERVE_LEN, 1 << 21),
        (word::CHECKSUM, 0),
    ];
    let len = sample().region_len;
    for &(index, value) in rows {
        let result = RegionLayout::from_words(&forged(index, value), len);
        assert!(result.is_err(), "word {index} = {value:#x} was accepted");
    }
}

#[test]
fn file_shorter_or_longer_than_stated_is_refused() {
    let layout = sample();
    for len in [0, layout.region_len - 1, layout.region_len + 4096] {
        assert_eq!(
            RegionLayout::from_words(&layout.to_words(), len),
            Err(LayoutError::FileLength {
                stated: layout.region_len,
                found: len
            })
        );
    }
}

#[test]
fn other_minor_version_is_accepted_and_other_major_says_what_to_do() {
    let len = sample().region_len;
    let minor = ApiVersion {
        minor: 9,
        ..API_VERSION
    };
    let words = forged(word::VERSION, u64::from(minor.to_bits()));
    assert_eq!(
        RegionLayout::from_words(&words, len).map(|l| l.version),
        Ok(minor)
    );

    let major = ApiVersion {
        major: API_VERSION.major + 1,
        minor: 0,
    };
    let words = forged(word::VERSION, u64::from(major.to_bits()));
    let error = RegionLayout::from_words(&words, len).expect_err("another major");
    assert_eq!(error, LayoutError::VersionMismatch { found: major });
    assert!(error.to_string().contains("install the same release"));
}

#[test]
fn record_takes_a_length_word_and_whole_words() {
    assert_eq!(
        [record_len(0), record_len(1), record_len(8), record_len(9)],
        [8, 16, 16, 24]
    );
}
