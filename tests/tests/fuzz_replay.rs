//! Every fuzz target on its seeds, on its named regressions, and on a fixed number of mutations
//! made from a fixed seed: what `cargo xtask fuzz` finds once is asked again at every test run.
//! `TRUNKLINE_FUZZ_MUTATIONS=<count>` makes more of them.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use trunkline_fuzz::{TARGETS, Target};

/// Inputs made per target.
const MUTATIONS: usize = 10_000;
/// An input grows no further: a datagram or a small file.
const INPUT_LEN_MAX: usize = 4_096;

fn directory(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(kind)
        .join(target)
}

/// The files of a directory by name; none when there is no such directory.
fn inputs(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

/// Runs `target`; a failure leaves the input in a file and says what to do with it.
fn run(target: Target, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return;
    }
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.input", target.name));
    fs::write(&found, input).unwrap();
    panic!(
        "target {} fails on {origin}; the input is {}: keep it as \
         tests/fuzz/regressions/{}/<what-was-wrong>",
        target.name,
        found.display(),
        target.name
    );
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four changes of the kinds that break parsers: bits, boundary values, cuts, repeats and
/// pieces of another input.
fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    const BOUNDARIES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b':', b'9'];
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(6) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = BOUNDARIES[random.below(BOUNDARIES.len())],
            2 => input.truncate(at),
            3 if !input.is_empty() => {
                let end = at + random.below(input.len() - at) + 1;
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            4 => {
                let from = random.below(other.len());
                let end = from + random.below(other.len() - from + 1);
                input.splice(at..at, other[from..end].iter().copied());
            }
            _ if !input.is_empty() => {
                let end = (at + 1 + random.below(8)).min(input.len());
                input.drain(at..end);
            }
            _ => input.push(random.next() as u8),
        }
    }
    input.truncate(INPUT_LEN_MAX);
}

#[test]
fn every_target_has_seeds_and_every_directory_a_target() {
    for target in TARGETS {
        let seeds = inputs(&directory("seeds", target.name));
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    }
    for kind in ["seeds", "regressions"] {
        for entry in fs::read_dir(directory(kind, "")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_known = TARGETS.iter().any(|target| target.name == name);
            assert!(
                is_known || !entry.path().is_dir(),
                "{kind}/{name} is played by nobody"
            );
        }
    }
}

#[test]
fn seeds_and_regressions_pass() {
    for target in TARGETS {
        for kind in ["seeds", "regressions"] {
            for (path, input) in inputs(&directory(kind, target.name)) {
                run(target, &input, &path.display().to_string());
            }
        }
    }
}

#[test]
fn mutations_of_the_seeds_pass() {
    let count = match std::env::var("TRUNKLINE_FUZZ_MUTATIONS") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => MUTATIONS,
    };
    for target in TARGETS {
        let mut random = Random(0x7472_756e_6b6c_696e);
        let mut known = inputs(&directory("seeds", target.name));
        known.extend(inputs(&directory("regressions", target.name)));
        for number in 0..count {
            let mut input = known[random.below(known.len())].1.clone();
            let other = &known[random.below(known.len())].1;
            mutate(&mut random, &mut input, other);
            run(target, &input, &format!("mutation {number}"));
        }
    }
}
