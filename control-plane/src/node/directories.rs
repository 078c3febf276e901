//! The directories of `[media]`, made on the first start.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::switch::MediaPolicy;

/// Of prompts: control's own, and the edge reads them as one of its group.
const PROMPTS_MODE: u32 = 0o750;
/// Of recordings: the edge, which may be another user of the group, writes there.
const RECORDINGS_MODE: u32 = 0o770;

/// Makes what is missing. What cannot be made is told: without it files are neither played nor
/// recorded, and everything else goes on.
pub(super) fn make(media: &MediaPolicy) {
    for (key, directory, mode) in [
        ("prompts_dir", &media.prompts_dir, PROMPTS_MODE),
        ("recordings_dir", &media.recordings_dir, RECORDINGS_MODE),
    ] {
        if let Err(error) = make_one(directory, mode) {
            let path = directory.display();
            tracing::warn!(
                %error,
                "[media] {key} {path} cannot be made: make it, or name another"
            );
        }
    }
}

/// Only the last part of the path is made: a mistyped one should not become a tree.
fn make_one(directory: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn missing_directory_is_made_and_one_that_is_there_is_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("prompts");
        make_one(&directory, PROMPTS_MODE).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // The umask may take away from what others may do.
        assert_eq!(mode(&directory) & !PROMPTS_MODE, 0);
        assert_eq!(mode(&directory) & 0o700, 0o700);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.join("a.wav"), b"kept").unwrap();
        make_one(&directory, PROMPTS_MODE).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert!(directory.join("a.wav").exists());
        assert!(make_one(&place.path().join("no/such"), PROMPTS_MODE).is_err());
    }
}
