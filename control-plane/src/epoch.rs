//! This life's number: higher than any before, so that no session id is ever used twice.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use trunkline_edge_api::Epoch;

/// Name of the file in `state_dir`.
const FILE_NAME: &str = "epoch";

/// Takes the next epoch and makes it durable before it is used.
///
/// The clock's seconds serve where they are ahead of the file, so that a lost state directory does
/// not begin at 1 again while an edge still holds sessions of a higher epoch.
///
/// # Errors
/// The file cannot be read or replaced; the message names it.
pub fn take_next(state_dir: &Path, unix_secs: u64) -> io::Result<Epoch> {
    let path = state_dir.join(FILE_NAME);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let last: u32 = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(named(error)),
    };
    let clock = u32::try_from(unix_secs).unwrap_or(u32::MAX);
    let next = last.saturating_add(1).max(clock);
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(named)?;
    writeln!(file, "{next}")
        .and_then(|()| file.sync_all())
        .map_err(named)?;
    std::fs::rename(&fresh, &path).map_err(named)?;
    Ok(Epoch(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_even_when_the_clock_is_set_back() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(
            take_next(dir.path(), 1_000).expect("writable"),
            Epoch(1_000)
        );
        assert_eq!(take_next(dir.path(), 10).expect("writable"), Epoch(1_001));
        assert_eq!(
            take_next(dir.path(), 5_000).expect("writable"),
            Epoch(5_000)
        );
    }

    #[test]
    fn torn_file_counts_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE_NAME), "\0\0").expect("writable");
        assert_eq!(take_next(dir.path(), 7).expect("writable"), Epoch(7));
    }

    #[test]
    fn missing_state_dir_is_named() {
        let error = take_next(Path::new("/nonexistent/state"), 7).expect_err("no directory");
        assert!(
            error.to_string().starts_with("/nonexistent/state/epoch: "),
            "{error}"
        );
    }
}
