use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::tempdir;

use super::*;
use crate::recording::deck::BUFFER_LEN;

const KEY: Key = Key { worker: 0, slot: 0 };

fn run(disk: &mut PlainDisk, task: Task) -> Outcome {
    disk.run(Job { key: KEY, task }).outcome
}

#[test]
fn a_new_file_is_for_owner_and_group() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.wav");
    let (_, opened) = create(&path).unwrap();
    assert!(matches!(opened, Opened::New));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn what_exists_is_looked_at_and_never_truncated() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.wav");
    std::fs::write(&path, [7; 500]).unwrap();
    let (_, opened) = create(&path).unwrap();
    let Opened::Existing(file) = opened else {
        panic!("it was there");
    };
    assert_eq!((file.len, file.head.len()), (500, Tape::resume_head_len()));
    assert_eq!(std::fs::read(&path).unwrap(), [7; 500]);
}

#[test]
fn links_directories_devices_and_missing_directories_are_refused() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    let link = dir.path().join("link.wav");
    symlink(&target, &link).unwrap();
    let dangling = dir.path().join("dangling.wav");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    let missing = dir.path().join("missing").join("a.wav");
    let rows = [
        link,
        dangling,
        missing,
        dir.path().to_owned(),
        PathBuf::from("/dev/full"),
    ];
    for path in rows {
        assert!(create(&path).is_err(), "{}", path.display());
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn a_disk_without_room_says_how_much_it_took() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut disk = PlainDisk::default();
    disk.files.insert(KEY, full);
    let buffer = vec![1; 1_000];
    let Outcome::Written { buffer, len, error } = run(&mut disk, Task::Write { offset: 0, buffer })
    else {
        panic!("it was written");
    };
    assert_eq!((buffer.len(), len), (1_000, 0));
    assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.wav");
    let mut disk = PlainDisk::default();
    assert!(matches!(
        run(&mut disk, Task::Create { path }),
        Outcome::Created(Ok(_))
    ));
    let buffer = vec![3; 100_000];
    let written = run(&mut disk, Task::Write { offset: 50, buffer });
    assert!(matches!(
        written,
        Outcome::Written {
            len: 100_000,
            error: None,
            ..
        }
    ));
    assert!(matches!(
        run(&mut disk, Task::Sync),
        Outcome::Synced(Ok(()))
    ));
    let mut lens = Vec::new();
    let mut offset = 0;
    loop {
        let buffer = Vec::with_capacity(BUFFER_LEN);
        let Outcome::Read {
            buffer,
            error: None,
        } = run(&mut disk, Task::Read { offset, buffer })
        else {
            panic!("it was read");
        };
        lens.push(buffer.len());
        offset += buffer.len() as u64;
        if buffer.is_empty() {
            break;
        }
    }
    assert_eq!(offset, 100_050, "{lens:?}");
    assert!(matches!(run(&mut disk, Task::Close), Outcome::Closed));
    let buffer = Vec::new();
    let lost = run(&mut disk, Task::Write { offset: 0, buffer });
    assert!(
        matches!(lost, Outcome::Written { error: Some(_), .. }),
        "it is closed"
    );
}
