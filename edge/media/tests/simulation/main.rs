//! Two calls at once through loss, jitter, reordering, duplication, restarts, holds, moved ports
//! and strangers, in simulated time. What must be true is checked at every packet.
//!
//! `TRUNKLINE_SIM_SEED=<seed>` plays one run again.

mod ledger;
mod party;
mod random;
mod world;

use world::World;

const SEEDS: u64 = 300;
/// Eight seconds of media.
const TICKS: u64 = 400;

/// Names the seed when its run fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("play it again with TRUNKLINE_SIM_SEED={}", self.0);
        }
    }
}

fn play(seed: u64) {
    let _announce = Announce(seed);
    let mut world = World::new(seed);
    world.run(TICKS);
    assert!(world.forwarded() > TICKS / 4, "hardly anything was relayed");
}

#[test]
fn two_calls_stay_apart_and_whole_whatever_the_network_does() {
    match std::env::var("TRUNKLINE_SIM_SEED") {
        Ok(seed) => play(seed.parse().expect("TRUNKLINE_SIM_SEED is a number")),
        Err(_) => (0..SEEDS).for_each(play),
    }
}
