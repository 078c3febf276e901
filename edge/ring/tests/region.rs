//! What is mapped, and what is refused.

mod common;

use std::io::Write;
use std::os::fd::AsFd;

use common::{Random, dup, layout, region_and_raw, spec};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use trunkline_edge_api::layout::{LayoutError, word};
use trunkline_edge_api::{API_VERSION, ApiVersion, Counter};
use trunkline_ring::{Doorbells, Region, RegionError, WorkerEnd};

/// A file of these bytes with these seals.
fn file_of(bytes: &[u8], seals: SealFlags) -> std::os::fd::OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    std::fs::File::from(dup(&fd))
        .write_all(bytes)
        .expect("written");
    fcntl_add_seals(&fd, seals).expect("sealed");
    fd
}

fn all_seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

fn header_bytes() -> Vec<u8> {
    layout()
        .to_words()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

#[test]
fn region_made_here_opens_there_with_the_same_layout() {
    let (region, fd) = Region::create(&spec()).expect("created");
    let opened = Region::open(&fd).expect("opened");
    assert_eq!(opened.layout(), region.layout());
    assert_eq!(opened.layout(), &layout());
    assert_eq!(opened.view().edge_pid(), std::process::id());
}

#[test]
fn region_cannot_be_resized_or_unsealed() {
    let (_region, fd) = Region::create(&spec()).expect("created");
    let len = layout().region_len as u64;
    assert!(ftruncate(&fd, len - 4096).is_err());
    assert!(ftruncate(&fd, len + 4096).is_err());
    assert!(fcntl_add_seals(&fd, SealFlags::WRITE).is_err());
}

#[test]
fn file_without_all_seals_is_refused() {
    let mut bytes = header_bytes();
    bytes.resize(layout().region_len, 0);
    let partial = [
        SealFlags::empty(),
        SealFlags::SHRINK | SealFlags::GROW,
        SealFlags::SHRINK | SealFlags::SEAL,
        SealFlags::GROW | SealFlags::SEAL,
    ];
    for seals in partial {
        assert_eq!(
            Region::open(file_of(&bytes, seals)).err(),
            Some(RegionError::Unsealed)
        );
    }
    assert!(Region::open(file_of(&bytes, all_seals())).is_ok());
    let plain = tempfile::tempfile().expect("a file");
    assert_eq!(Region::open(plain).err(), Some(RegionError::Unsealed));
    let (pipe, _) = std::io::pipe().expect("a pipe");
    assert_eq!(Region::open(pipe).err(), Some(RegionError::Unsealed));
}

#[test]
fn files_of_impossible_length_are_refused() {
    for len in [0, 8, 4095] {
        let fd = file_of(&vec![0; len], all_seals());
        assert_eq!(
            Region::open(fd).err(),
            Some(RegionError::Size { found: len as u64 })
        );
    }
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    ftruncate(&fd, 1 << 40).expect("sparse");
    fcntl_add_seals(&fd, all_seals()).expect("sealed");
    assert_eq!(
        Region::open(fd).err(),
        Some(RegionError::Size { found: 1 << 40 })
    );
}

#[test]
fn region_cut_to_its_header_is_refused() {
    let mut bytes = header_bytes();
    bytes.resize(4096, 0);
    let error = Region::open(file_of(&bytes, all_seals())).expect_err("cut");
    assert!(matches!(
        error,
        RegionError::Layout(LayoutError::FileLength { found: 4096, .. })
    ));
}

#[test]
fn every_changed_header_word_is_refused_with_a_message() {
    for index in 0..word::FIXED_COUNT {
        for change in [1, 1 << 16, u64::MAX] {
            let (_region, fd, raw) = region_and_raw(layout());
            raw.set_word(index, raw.word(index) ^ change);
            let error = Region::open(&fd).expect_err("changed");
            assert!(error.to_string().len() > 20, "word {index}: {error}");
            assert!(Region::open_read_only(&fd).is_err());
        }
    }
}

#[test]
fn region_of_another_major_version_is_refused_saying_what_to_do() {
    let (_region, fd, raw) = region_and_raw(layout());
    let found = ApiVersion {
        major: API_VERSION.major + 1,
        minor: 0,
    };
    raw.set_word(word::VERSION, found.to_bits().into());
    let error = Region::open(&fd).expect_err("another major");
    assert_eq!(
        error,
        RegionError::Layout(LayoutError::VersionMismatch { found })
    );
    assert!(
        error.to_string().contains("install the same release"),
        "{error}"
    );
}

#[test]
fn random_bytes_are_never_a_region() {
    let mut random = Random(0x7472_756e_6b6c_696e);
    for _ in 0..200 {
        let words = 512 + random.below(512);
        let bytes: Vec<u8> = (0..words)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        let error = Region::open(file_of(&bytes, all_seals())).expect_err("random");
        assert!(matches!(
            error,
            RegionError::Layout(LayoutError::NotARegion { .. })
        ));
    }
}

#[test]
fn generation_zero_is_not_created() {
    let spec = trunkline_ring::RegionSpec {
        generation: 0,
        ..spec()
    };
    assert!(matches!(
        Region::create(&spec).err(),
        Some(RegionError::Layout(LayoutError::BadField {
            field: "generation",
            ..
        }))
    ));
}

#[test]
fn descriptor_opened_for_reading_shows_counters_and_maps_no_other_way() {
    let (region, fd) = Region::create(&spec()).expect("created");
    let worker = WorkerEnd::new(region, Doorbells::create().expect("eventfds"));
    worker.counters().add(Counter::RxRtpPackets, 7);

    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd())
    );
    let fd = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).expect("opened again");
    let observed = Region::open_read_only(&fd).expect("mapped");
    assert_eq!(observed.view().counter(Counter::RxRtpPackets), 7);
    assert_eq!(observed.view().generation(), 1);
    assert!(matches!(
        Region::open(&fd).err(),
        Some(RegionError::Io { .. })
    ));
}
