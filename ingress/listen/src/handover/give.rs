//! The old process's side: answers at the restart_socket place, gives its listeners to one that asks, and takes them back when that one dies.

use super::wire::{Message, receive, send, send_listeners, send_state, state_fits};
use super::{Listeners, RestartSocket, check_user};
use crate::lifecycle::Lifecycle;
use landfall_ingress_telemetry::files;
use landfall_ingress_telemetry::log;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// Processes that are answered at once; one is usual, two are a mistake of somebody.
const VISITORS: usize = 8;
/// Start of the names that sockets have for the moment until they take the real one.
const TEMPORARY: &str = "handover.new.";
/// Pause after accept fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a successor is given beside the listeners.
type LastGood = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

struct Giver {
    restart_socket: RestartSocket,
    listeners: Arc<Listeners>,
    lifecycle: Arc<Lifecycle>,
    last_good: LastGood,
    /// One successor at a time.
    place: Semaphore,
    /// A successor died that may have had our name.
    returned: Notify,
}

/// Answers at the restart_socket place for ever. Without the name, which is logged, nobody can take over: the next process binds by itself.
/// `last_good` packs the last good versions of objects.
pub async fn serve(
    restart_socket: RestartSocket,
    listeners: Arc<Listeners>,
    lifecycle: Arc<Lifecycle>,
    last_good: impl Fn() -> Vec<u8> + Send + Sync + 'static,
) {
    let giver = Arc::new(Giver {
        restart_socket,
        listeners,
        lifecycle,
        last_good: Box::new(last_good),
        place: Semaphore::new(1),
        returned: Notify::new(),
    });
    let visitors = Arc::new(Semaphore::new(VISITORS));
    loop {
        let listener = match publish(&giver.restart_socket) {
            Ok(listener) => listener,
            Err(error) => {
                log(&format!(
                    "hand-over: {} cannot be used: {error}",
                    giver.restart_socket.socket().display()
                ));
                giver.returned.notified().await;
                continue;
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = giver.returned.notified() => {
                    // A successor that died may have left its own name, at which nobody answers.
                    if answers(&giver.restart_socket.socket()).await { continue } else { break }
                }
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    files::ran_out(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the bound they are turned away at once, and ask again.
            let Ok(visitor) = Arc::clone(&visitors).try_acquire_owned() else {
                continue;
            };
            let giver = Arc::clone(&giver);
            tokio::spawn(async move {
                if let Err(error) = giver.receive(stream).await {
                    log(&format!("hand-over: {error}"));
                }
                drop(visitor);
            });
        }
    }
}

async fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

/// Takes the name from whoever has it, in one step.
fn publish(restart_socket: &RestartSocket) -> io::Result<UnixListener> {
    sweep(&restart_socket.directory)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Processes in containers all have the same number.
    let temporary: PathBuf =
        restart_socket
            .directory
            .join(format!("{TEMPORARY}{}.{}", std::process::id(), now.as_nanos()));
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, restart_socket.socket())?;
    Ok(listener)
}

/// Removes what processes left that died in [`publish`].
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let dead = || {
            let refused = std::os::unix::net::UnixStream::connect(entry.path()).err();
            refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) && dead() {
            // Another may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl Giver {
    /// One visitor, from its greeting to its end.
    async fn receive(&self, mut stream: UnixStream) -> io::Result<()> {
        check_user(&stream)?;
        let (versions, build) = match receive(&mut stream).await {
            Ok(Message::Hello { versions, build }) => (versions, build),
            Ok(other) => return Err(unexpected(&other)),
            // Somebody only looked whether we answer.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(version) = self.restart_socket.version(&versions) else {
            log(&format!(
                "hand-over: build {build} speaks versions {versions:?} and listens beside us"
            ));
            let refused = Message::Refused {
                versions: self.restart_socket.versions.clone(),
                build: self.restart_socket.build.clone(),
            };
            return send(&mut stream, &refused).await;
        };
        let mut state = (self.last_good)();
        if !state_fits(&state) {
            log("hand-over: the last good versions of objects are too large to be handed on");
            state = Vec::new();
        }
        let welcome = Message::Welcome {
            version,
            build: self.restart_socket.build.clone(),
            listeners: self.listeners.names(),
            state_bytes: state.len() as u64,
        };
        send(&mut stream, &welcome).await?;
        send_state(&mut stream, &state).await?;
        match receive(&mut stream).await {
            Ok(Message::Take) => {}
            Ok(other) => return Err(unexpected(&other)),
            // It builds its table first.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let busy = |why: &str| Message::Busy { why: why.to_owned() };
        let Ok(_place) = self.place.try_acquire() else {
            return send(&mut stream, &busy("another process is taking the listeners")).await;
        };
        if !self.listeners.are_open() {
            return send(&mut stream, &busy("the old process is ending")).await;
        }
        self.give(stream, &build).await
    }

    async fn give(&self, mut stream: UnixStream, build: &str) -> io::Result<()> {
        // Copies go as soon as they are sent.
        send_listeners(&mut stream, &self.listeners.copies()?).await?;
        match receive(&mut stream).await? {
            Message::Serving => {}
            other => return Err(unexpected(&other)),
        }
        if !self.listeners.hand_over() {
            // The end came in between; the other one serves already.
            return send(&mut stream, &Message::Closed).await;
        }
        self.lifecycle.set_handed_over(true);
        log(&format!("hand-over: build {build} takes connections from now on"));
        let told = send(&mut stream, &Message::Closed).await;
        // Nothing more is said; the other's end is seen here.
        let ended = async { stream.read_u8().await.map(drop) };
        if told.is_ok() {
            drop(ended.await);
        }
        if self.listeners.take_back() {
            self.lifecycle.set_handed_over(false);
            log("hand-over: the new process ended; connections are taken here again");
        }
        self.returned.notify_one();
        Ok(())
    }
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("unexpected message {message:?}"))
}
