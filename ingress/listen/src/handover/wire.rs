//! What two processes say to each other: a length of four bytes, then one JSON message; listeners travel beside theirs (SCM_RIGHTS).
//!
//! INVARIANT: a message of version 1 is understood by every later build. Unknown fields are passed over, so a field may come; one that
//! changes its meaning needs another version.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, Error, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Versions that this build speaks.
pub const VERSIONS: [u32; 1] = [1];
/// Longest wait for one message of the other process, which sits on the same machine.
const STEP: Duration = Duration::from_secs(5);
/// Longest message; a listener takes under 100 bytes.
const MESSAGE_BYTES: u32 = 64 * 1024;
/// Most that is handed on of the last good versions of objects: 10,000 large Ingresses are 40 MB.
const STATE_BYTES: u64 = 64 * 1024 * 1024;
/// Most listeners; there are three.
const LISTENERS: usize = 16;

/// One listener by name and address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// `http`, `https` or `admin`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Everything that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// New to old, first of all.
    Hello {
        /// Versions of this protocol that it speaks.
        versions: Vec<u32>,
        /// What its build is called, for the log.
        build: String,
    },
    /// Old to new: the version that is spoken from here on, and what there is. The state's bytes follow.
    Welcome {
        /// The largest version that both speak.
        version: u32,
        /// What its build is called.
        build: String,
        /// What would be handed over.
        listeners: Vec<Named>,
        /// Length of the state.
        state_bytes: u64,
    },
    /// Old to new: there is no version that both speak.
    Refused {
        /// Versions that the old one speaks.
        versions: Vec<u32>,
        /// What its build is called.
        build: String,
    },
    /// New to old: the table is built, the listeners may come.
    Take,
    /// Old to new: here they are, in this order.
    Listeners {
        /// One for each that travels beside the message.
        listeners: Vec<Named>,
    },
    /// Old to new: not now.
    Busy {
        /// Why, for the log.
        why: String,
    },
    /// New to old: connections are taken here.
    Serving,
    /// Old to new: and no longer here.
    Closed,
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidData, text)
}

/// Every step has an end.
async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Error::new(ErrorKind::TimedOut, "the other process does not answer");
    timeout(STEP, step).await.map_err(late)?
}

fn frame(message: &Message) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MESSAGE_BYTES);
    let length = length.ok_or_else(|| invalid("the message is too long"))?;
    Ok([&length.to_be_bytes(), text.as_slice()].concat())
}

/// Sends one message.
pub async fn send(stream: &mut UnixStream, message: &Message) -> io::Result<()> {
    let bytes = frame(message)?;
    within(stream.write_all(&bytes)).await
}

/// Receives one message.
pub async fn receive(stream: &mut UnixStream) -> io::Result<Message> {
    within(async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        rest(stream, length).await
    })
    .await
}

async fn rest(stream: &mut UnixStream, length: [u8; 4]) -> io::Result<Message> {
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES {
        return Err(invalid("the message is too long"));
    }
    // 64 KiB fit any usize.
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// Sends the state behind a [`Message::Welcome`].
pub async fn send_state(stream: &mut UnixStream, state: &[u8]) -> io::Result<()> {
    within(stream.write_all(state)).await
}

/// Receives the state behind a [`Message::Welcome`].
pub async fn receive_state(stream: &mut UnixStream, length: u64) -> io::Result<Vec<u8>> {
    if length > STATE_BYTES {
        return Err(invalid("the state is too long"));
    }
    within(async {
        let mut state = Vec::new();
        let read = stream.take(length).read_to_end(&mut state).await?;
        if read as u64 == length {
            Ok(state)
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    })
    .await
}

/// Whether a state is short enough to be handed on.
pub fn state_fits(state: &[u8]) -> bool {
    state.len() as u64 <= STATE_BYTES
}

/// Sends a message with listeners beside its first byte.
pub async fn send_listeners(stream: &mut UnixStream, listeners: &[(Named, OwnedFd)]) -> io::Result<()> {
    let names = listeners.iter().map(|(named, _)| named.clone()).collect();
    let bytes = frame(&Message::Listeners { listeners: names })?;
    let borrowed: Vec<_> = listeners.iter().map(|(_, fd)| fd.as_fd()).collect();
    within(async {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS))];
                let mut beside = SendAncillaryBuffer::new(&mut space);
                if !beside.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                    return Err(invalid("too many listeners"));
                }
                Ok(sendmsg(
                    &*stream,
                    &[IoSlice::new(&bytes)],
                    &mut beside,
                    SendFlags::NOSIGNAL,
                )?)
            })
            .await?;
        stream.write_all(bytes.get(sent..).unwrap_or_default()).await
    })
    .await
}

/// Receives a message and what travels beside it; anything but [`Message::Listeners`] brings nothing.
pub async fn receive_listeners(stream: &mut UnixStream) -> io::Result<(Message, Vec<OwnedFd>)> {
    within(async {
        let mut length = [0; 4];
        let mut fds = Vec::new();
        // The listeners come with the first byte, which plain reading would take without them.
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS))];
                let mut beside = RecvAncillaryBuffer::new(&mut space);
                let mut into = [IoSliceMut::new(&mut length)];
                let received = recvmsg(&*stream, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
                for message in beside.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                if received.flags.contains(ReturnFlags::CTRUNC) {
                    return Err(invalid("listeners were cut off"));
                }
                Ok(received.bytes)
            })
            .await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        stream.read_exact(length.get_mut(read..).unwrap_or_default()).await?;
        Ok((rest(stream, length).await?, fds))
    })
    .await
}
