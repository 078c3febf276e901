//! The daemon's side of the socket, on a thread of its own.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{
    ActFailed, CALL_THREAD_PATIENCE, CALLS_LIMIT_MAX, CallThreadStatus, DirectoryStatus, Following,
    OperatorRequest, REQUEST_LEN_MAX, Reply, Request, StatusReport,
};
use crate::cdr::CdrStatus;
use crate::store::StoreHandle;
use crate::trace::TracedMessage;
use crate::transport::tls::TlsKeeper;

/// Connections at one time; the next waits.
const CONNECTION_COUNT_MAX: usize = 16;

/// How long a connection may be silent between requests, or refuse a reply.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How long the store is waited for: longer than it waits for a lock itself.
const STORE_PATIENCE: Duration = Duration::from_secs(7);

/// How long accepting rests after an error that will not pass at once, such as EMFILE.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What the answers are made of.
#[derive(Debug, Clone)]
pub struct OperatorSources {
    /// `[node] name`.
    pub node: String,
    /// To the call thread. Bounded; when it is full the answer is an error.
    pub calls: mpsc::Sender<OperatorRequest>,
    /// Asked for `status` and `reload`. It keeps the store open until the server has stopped.
    pub store: StoreHandle,
    /// The CDR writer's word.
    pub cdr: Arc<CdrStatus>,
    /// Reads certificates again, on request and on SIGHUP.
    pub tls: Arc<TlsKeeper>,
}

/// A running server.
#[derive(Debug)]
pub struct OperatorServer {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl OperatorServer {
    /// Stops it, cutting open connections, and removes the socket.
    pub fn stop(self) {
        // A server that has ended by itself has nothing left to stop.
        let _ = self.stop.send(());
        let _ = self.thread.join();
        // Left behind, it would be replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds the socket at `path` and starts the thread. A socket file that nobody listens on any
/// more is replaced.
///
/// # Errors
/// Another daemon listens there, or the directory does not let us.
pub fn spawn(path: &Path, sources: OperatorSources) -> io::Result<OperatorServer> {
    let socket = bind(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("operator".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let tls = Arc::clone(&sources.tls);
                tokio::select! {
                    () = reload_on_hangup(&tls) => {}
                    // A dropped sender means the same.
                    _ = stopped => {}
                    result = serve(socket, sources) => {
                        if let Err(error) = result {
                            tracing::error!(%error, "the operator socket has ended");
                        }
                    }
                }
            });
        })?;
    Ok(OperatorServer {
        path: path.to_owned(),
        stop,
        thread,
    })
}

fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net;

    match net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another trunkline-control listens here; stop that one first",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let socket = net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn serve(
    socket: std::os::unix::net::UnixListener,
    sources: OperatorSources,
) -> io::Result<()> {
    let listener = UnixListener::from_std(socket)?;
    let places = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    let own_uid = rustix::process::geteuid().as_raw();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the operator socket cannot accept");
                tokio::time::sleep(REST_AFTER_ERROR).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == own_uid => {
                let sources = sources.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // A client that hangs up, lingers or talks nonsense is no fault of ours.
                    let _ = converse(stream, &sources).await;
                });
            }
            Ok(peer) => tracing::warn!(uid = peer.uid(), "refused at the operator socket"),
            Err(error) => tracing::warn!(%error, "the operator socket's peer is unknown"),
        }
    }
}

/// SIGHUP: read the certificates again. What came of it is in the log and in `status`.
async fn reload_on_hangup(tls: &TlsKeeper) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be heard");
            return std::future::pending().await;
        }
    };
    while hangup.recv().await.is_some() {
        // The keeper has said why, where it failed.
        let _ = tls.reload();
    }
}

async fn converse(stream: UnixStream, sources: &OperatorSources) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(REQUEST_LEN_MAX);
        let length = timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let reply = if line.ends_with(b"\n") {
            match serde_json::from_slice(&line) {
                Ok(Request::Events {
                    call_id,
                    follow: true,
                }) => match follow(call_id, sources).await {
                    Ok(following) => return tell(following, read, write).await,
                    Err(refused) => refused,
                },
                Ok(request) => answer(request, sources).await,
                Err(error) => refused(format!("not a request of this release: {error}")),
            }
        } else {
            refused(format!(
                "a request is one line of at most {REQUEST_LEN_MAX} bytes"
            ))
        };
        write_reply(&mut write, &reply).await?;
        if !line.ends_with(b"\n") {
            return Ok(());
        }
    }
}

async fn write_reply(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(reply)?;
    bytes.push(b'\n');
    timeout(IDLE_MAX, write.write_all(&bytes)).await??;
    Ok(())
}

async fn follow(call_id: String, sources: &OperatorSources) -> Result<Following, Reply> {
    let request = |reply| OperatorRequest::Follow { call_id, reply };
    match ask_call_thread(sources, request).await {
        Some(Ok(following)) => Ok(following),
        Some(Err(failed)) => Err(refused(failed.to_string())),
        None => Err(no_answer()),
    }
}

/// Tells what has happened and what happens, until the call is over or the client has gone.
async fn tell(
    mut following: Following,
    mut read: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    write_reply(&mut write, &Reply::Events(following.report)).await?;
    let mut ignored = [0; 256];
    loop {
        tokio::select! {
            event = following.events.recv() => match event {
                Some(happened) => write_reply(&mut write, &Reply::Event { happened }).await?,
                None => return write_reply(&mut write, &Reply::Over).await,
            },
            read = read.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

async fn answer(request: Request, sources: &OperatorSources) -> Reply {
    match request {
        Request::Status => Reply::Status(Box::new(status(sources).await)),
        Request::Calls { limit } => {
            let limit = limit.min(CALLS_LIMIT_MAX);
            match ask_call_thread(sources, |reply| OperatorRequest::Calls { limit, reply }).await {
                Some(report) => Reply::Calls(report),
                None => no_answer(),
            }
        }
        Request::Act { call_id, action } => {
            let asked = ask_call_thread(sources, |reply| OperatorRequest::Act {
                call_id,
                action,
                reply,
            });
            done(asked.await)
        }
        Request::Trace { id } => {
            match ask_call_thread(sources, |reply| OperatorRequest::Trace { id, reply }).await {
                Some(traced) => Reply::Trace {
                    messages: traced.iter().map(TracedMessage::from).collect(),
                },
                None => no_answer(),
            }
        }
        Request::Trunks => match ask_call_thread(sources, OperatorRequest::Trunks).await {
            Some(trunks) => Reply::Trunks { trunks },
            None => no_answer(),
        },
        Request::Conferences => {
            match ask_call_thread(sources, OperatorRequest::Conferences).await {
                Some(conferences) => Reply::Conferences { conferences },
                None => no_answer(),
            }
        }
        Request::Confer {
            tenant,
            name,
            action,
        } => {
            let asked = ask_call_thread(sources, |reply| OperatorRequest::Confer {
                tenant,
                name,
                action,
                reply,
            });
            done(asked.await)
        }
        Request::Events { call_id, .. } => {
            let request = |reply| OperatorRequest::Events { call_id, reply };
            match ask_call_thread(sources, request).await {
                Some(Ok(report)) => Reply::Events(report),
                Some(Err(failed)) => refused(failed.to_string()),
                None => no_answer(),
            }
        }
        Request::ReloadTls => match sources.tls.reload() {
            Ok(_) => Reply::Done,
            Err(problem) => refused(format!("the certificates stay as they were: {problem}")),
        },
        Request::Reload => match timeout(STORE_PATIENCE, sources.store.reload()).await {
            Ok(Ok(())) => Reply::Done,
            Ok(Err(error)) => refused(error.to_string()),
            Err(_) => refused("the store does not answer".to_owned()),
        },
    }
}

fn refused(message: String) -> Reply {
    Reply::Error { message }
}

fn no_answer() -> Reply {
    refused(format!(
        "the call thread did not answer within {} s; `trunkline-control status` tells of it and of the \
         edge",
        CALL_THREAD_PATIENCE.as_secs()
    ))
}

fn done(result: Option<Result<(), ActFailed>>) -> Reply {
    match result {
        Some(Ok(())) => Reply::Done,
        Some(Err(failed)) => refused(failed.to_string()),
        None => no_answer(),
    }
}

async fn ask_call_thread<T>(
    sources: &OperatorSources,
    request: impl FnOnce(oneshot::Sender<T>) -> OperatorRequest,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    sources.calls.try_send(request(reply)).ok()?;
    timeout(CALL_THREAD_PATIENCE, answer).await.ok()?.ok()
}

async fn status(sources: &OperatorSources) -> StatusReport {
    let (call_thread, store) = tokio::join!(
        ask_call_thread::<CallThreadStatus>(sources, OperatorRequest::Status),
        timeout(CALL_THREAD_PATIENCE, sources.store.ping()),
    );
    let (trunks, members, dids) = sources.store.routing().borrow().counts();
    StatusReport {
        node: sources.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        call_thread,
        directory: DirectoryStatus {
            trunks,
            members,
            dids,
        },
        store_problem: match store {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the store does not answer".to_owned()),
        },
        cdr_problem: sources.cdr.problem(),
        cdr_spool_bytes: sources.cdr.spool_bytes(),
        tls: sources.tls.status(),
    }
}
