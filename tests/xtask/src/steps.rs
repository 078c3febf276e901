//! Steps of `cargo xtask test`: run a command, show its output, count its tests.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What a step came to.
pub(crate) struct Outcome {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) spent: Duration,
}

/// Runs `command`, echoing what it prints. Tests are counted from the `test result:` lines; a
/// command without such lines is one test by its exit status, and a failure that no test
/// accounts for (a crate that does not build) counts as one.
pub(crate) fn run(command: &mut Command) -> Result<Outcome> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (send, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| read(pipe, send.clone())),
        child.stderr.take().map(|pipe| read(pipe, send)),
    ];
    let (mut passed, mut failed) = (0, 0);
    for line in lines {
        println!("{line}");
        if let Some((line_passed, line_failed)) = parse_result(&line) {
            passed += line_passed;
            failed += line_failed;
        }
    }
    for reader in readers.into_iter().flatten() {
        // A reader only ends with its pipe; a panic there would have been printed.
        let _ = reader.join();
    }
    let success = child.wait()?.success();
    if passed + failed == 0 {
        passed = u32::from(success);
    }
    if !success && failed == 0 {
        failed = 1;
    }
    Ok(Outcome {
        passed,
        failed,
        spent: started.elapsed(),
    })
}

fn read(
    pipe: impl Read + Send + 'static,
    send: mpsc::Sender<String>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(text).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// `test result: ok. 31 passed; 1 failed; …` → (31, 1).
fn parse_result(line: &str) -> Option<(u32, u32)> {
    let counts = line.trim().strip_prefix("test result: ")?;
    let count = |what: &str| {
        counts
            .split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 31 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 2.00s";
        assert_eq!(parse_result(line), Some((31, 1)));
        assert_eq!(parse_result("running 3 tests"), None);
    }

    #[test]
    fn command_without_tests_counts_by_its_exit_status() {
        let outcome = run(&mut Command::new("true")).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (1, 0));
        let outcome = run(&mut Command::new("false")).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (0, 1));
    }

    #[test]
    fn failure_without_a_failed_test_is_counted() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 3 passed; 0 failed; x'; exit 101",
        ]);
        let outcome = run(&mut command).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (3, 1));
    }
}
