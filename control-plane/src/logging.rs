//! Log lines to standard error, as text or JSON, without waiting for whoever reads them.
//!
//! A line is put together where it arises and written by a thread of its own: a full pipe must
//! not stop a call. When that thread falls behind by `LINES_WAITING_MAX` lines, further ones
//! are dropped, and it says how many.
//!
//! Lines of one call carry its `call_id`: log inside [`call_span`].

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use trunkline_edge_api::config::{LogFormat, NodeConfig};

/// About 200 bytes each.
const LINES_WAITING_MAX: usize = 8192;

/// Writes what is waiting when it is dropped. Kept until the end of `main`.
#[derive(Debug)]
pub struct LogGuard {
    lines: Option<SyncSender<Message>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    End,
}

/// Starts logging as `[node] log` and `log_format` say.
///
/// # Errors
/// Logging was started before, the filter is not understood, or there is no thread to be had.
pub fn init(config: &NodeConfig) -> anyhow::Result<LogGuard> {
    let filter = EnvFilter::try_new(&config.log)?;
    let (writer, guard) = spawn_writer(io::stderr())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    let result = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    match result {
        Ok(()) => Ok(guard),
        Err(error) => Err(anyhow::anyhow!("logging cannot start: {error}")),
    }
}

/// The span of one call; whatever is logged inside it carries `call_id`.
#[must_use]
pub fn call_span(call_id: &str) -> tracing::Span {
    tracing::info_span!("call", call_id)
}

fn spawn_writer(out: impl Write + Send + 'static) -> io::Result<(LineWriter, LogGuard)> {
    let (lines, receiver) = sync_channel(LINES_WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(out, &receiver, &counted))?;
    let writer = LineWriter {
        lines: lines.clone(),
        dropped,
    };
    let guard = LogGuard {
        lines: Some(lines),
        thread: Some(thread),
    };
    Ok((writer, guard))
}

/// A log that cannot be written has nowhere to say so.
fn write_lines(mut out: impl Write, lines: &Receiver<Message>, dropped: &AtomicU64) {
    while let Ok(Message::Line(line)) = lines.recv() {
        let _ = out.write_all(&line);
        let count = dropped.swap(0, Relaxed);
        if count > 0 {
            let _ = writeln!(out, "{count} log lines were dropped");
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            // Waits for room, so the lines before it are written; the subscriber keeps its own
            // sender for ever, so hanging up alone would not end the thread.
            let _ = lines.send(Message::End);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone)]
struct LineWriter {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            writer: self,
            bytes: Vec::with_capacity(256),
        }
    }
}

/// One line while it is put together; on its way when dropped.
struct Line<'a> {
    writer: &'a LineWriter,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.bytes));
        if self.writer.lines.try_send(line).is_err() {
            self.writer.dropped.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let out = Shared::default();
        let (writer, guard) = spawn_writer(out.clone()).expect("started");
        let builder = tracing_subscriber::fmt()
            .with_writer(writer)
            .with_ansi(false);
        let log = || {
            let _span = call_span("c-42").entered();
            tracing::info!(status = 486, "refused");
        };
        if json {
            let subscriber = builder.json().flatten_event(true).finish();
            tracing::subscriber::with_default(subscriber, log);
        } else {
            tracing::subscriber::with_default(builder.finish(), log);
        }
        drop(guard);
        let bytes = out.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn lines_of_a_call_carry_its_call_id() {
        let text = logged(false);
        assert!(
            text.contains("call{call_id=\"c-42\"}") && text.contains("status=486"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&logged(true)).expect("one JSON line");
        assert_eq!(json["span"]["call_id"], "c-42");
        assert_eq!(json["message"], "refused");
        assert_eq!(json["status"], 486);
    }

    #[test]
    fn writer_that_stands_still_costs_lines_and_not_time() {
        struct Stuck(Receiver<()>, Shared);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (free, stuck) = sync_channel(0);
        let out = Shared::default();
        let (writer, guard) = spawn_writer(Stuck(stuck, out.clone())).expect("started");
        for _ in 0..LINES_WAITING_MAX + 100 {
            let _ = writer.make_writer().write_all(b"x\n");
        }
        assert!(writer.dropped.load(Relaxed) >= 98);
        drop(free);
        drop(guard);
        let bytes = out.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains("log lines were dropped"), "{}", text.len());
    }
}
