//! How a pod's own kubelet asks after it: over a Unix socket of the pod's own, by `landfall-ingress probe`. On the host's network a port
//! would be answered by whichever of two pods has it at that moment.

use landfall_ingress_listen::Lifecycle;
use landfall_ingress_telemetry::files;
use landfall_ingress_telemetry::log;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Where the socket is in our pods: an emptyDir.
pub const SOCKET: &str = "/run/landfall-probe/probe.sock";
/// Longest wait for the answer; the kubelet waits 1 s for the whole probe unless told otherwise.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest question; both are five letters.
const QUESTION_BYTES: u64 = 16;
/// Questions at once; the kubelet asks one at a time of each kind.
const QUESTIONS: usize = 8;
/// Pause after accept fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// Requests are wanted here.
    Ready,
    /// The event loop turns.
    Live,
}

/// Asks, and says the answer by exit status. Blocks for 2 s per step at most.
pub fn ask(socket: &Path, question: Question) -> ExitCode {
    let word = match question {
        Question::Ready => "ready",
        Question::Live => "live",
    };
    let answer = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        stream.write_all(word.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        stream.take(QUESTION_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    match answer() {
        Ok(text) if text == "yes" => ExitCode::SUCCESS,
        Ok(_) => {
            log(&format!("not {word}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            log(&format!("no answer on {}: {error}", socket.display()));
            ExitCode::FAILURE
        }
    }
}

/// Takes the socket's name; one that an earlier container of this pod left is in the way.
pub fn listen(socket: &Path) -> Result<UnixListener, String> {
    let wrong = |error: std::io::Error| format!("cannot listen on {}: {error}", socket.display());
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
        _ => {}
    }
    UnixListener::bind(socket).map_err(wrong)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, lifecycle: Arc<Lifecycle>) {
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await.ok();
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                files::ran_out(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let lifecycle = Arc::clone(&lifecycle);
        tokio::spawn(async move {
            let answer = async {
                let mut question = String::new();
                let (reader, mut writer) = stream.split();
                reader.take(QUESTION_BYTES).read_to_string(&mut question).await?;
                let yes = match question.as_str() {
                    "ready" => lifecycle.ready(),
                    "live" => true,
                    _ => false,
                };
                writer.write_all(if yes { b"yes" } else { b"no" }).await
            };
            // Whoever asked went away, or asked too slowly.
            drop(timeout(ANSWER, answer).await);
            drop(slot);
        });
    }
}
