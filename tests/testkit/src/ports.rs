//! Blocks of loopback ports that no other test on the machine uses at the same time.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// First port of the first block.
const FIRST: u16 = 10_000;
/// Ports in a block: 400 for listeners and helpers, 600 for media (150 calls).
const BLOCK_LEN: u16 = 1_000;
/// Blocks end below 30,000, where the default media range begins, and below the kernel's
/// ephemeral ports at 32,768.
const BLOCK_COUNT: u16 = 20;
/// Offset of the edge's media range in a block.
const MEDIA_OFFSET: u16 = 400;

/// A claimed block; free again when dropped.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    next: u16,
    _claim: File,
}

impl PortBlock {
    /// Claims a block by locking its file in the machine's temporary directory. The kernel
    /// releases the lock of a killed test.
    pub fn claim() -> Result<Self> {
        let directory = claim_directory()?;
        // Tests that start together should not all begin with the same block.
        let offset = u16::try_from(std::process::id() % u32::from(BLOCK_COUNT))?;
        for step in 0..BLOCK_COUNT {
            let index = (offset + step) % BLOCK_COUNT;
            let claim = File::options()
                .create(true)
                .write(true)
                .truncate(false)
                .open(directory.join(index.to_string()))?;
            if claim.try_lock().is_err() {
                continue;
            }
            return Ok(Self {
                first: FIRST + index * BLOCK_LEN,
                next: 0,
                _claim: claim,
            });
        }
        bail!("all {BLOCK_COUNT} port blocks are in use by other tests")
    }

    /// The next port of the block that is free for UDP and TCP on loopback.
    pub fn next_port(&mut self) -> Result<u16> {
        while self.next < MEDIA_OFFSET {
            let port = self.first + self.next;
            self.next += 1;
            let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if free {
                return Ok(port);
            }
        }
        bail!("the port block at {} has no free port left", self.first)
    }

    /// `first-last` of the edge's media ports, as the configuration writes it.
    #[must_use]
    pub fn media_range(&self) -> String {
        format!(
            "{}-{}",
            self.first + MEDIA_OFFSET,
            self.first + BLOCK_LEN - 1
        )
    }
}

fn claim_directory() -> Result<PathBuf> {
    let directory = std::env::temp_dir().join("trunkline-test-ports");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_never_share_a_port() {
        let one = PortBlock::claim().unwrap();
        let other = PortBlock::claim().unwrap();
        assert!(one.first.abs_diff(other.first) >= BLOCK_LEN);
    }

    #[test]
    fn ports_of_a_block_are_handed_out_once_and_below_the_media_range() {
        let mut block = PortBlock::claim().unwrap();
        let one = block.next_port().unwrap();
        let other = block.next_port().unwrap();
        assert_ne!(one, other);
        assert!(other < block.first + MEDIA_OFFSET);
    }
}
