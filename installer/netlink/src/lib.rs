//! Netlink: requests to the kernel and lists of it, as messages of attributes. What an attribute means is known by who uses this crate.
//!
//! INVARIANT: a message that is cut off or has a wrong length ends what is read of it; no byte of it is taken for another.

#![forbid(unsafe_code)]

mod uapi;

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as protocols, recv, send, socket_with,
};
use std::io;
use std::time::Duration;
use uapi::{NLA_HDRLEN, NLA_TYPE_MASK, NLMSG_DONE, NLMSG_ERROR, NLMSG_HDRLEN};
pub use uapi::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy)]
pub enum Subsystem {
    /// Links, addresses and routes (`NETLINK_ROUTE`).
    Route,
    /// nftables (`NETLINK_NETFILTER`).
    Netfilter,
    /// Families by name (`NETLINK_GENERIC`).
    Generic,
}

/// A netlink socket.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One message from the kernel.
#[derive(Debug)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Netlink {
    /// Opens a socket. Answers are awaited 5 s at most: the kernel answers at once or never.
    pub fn open(subsystem: Subsystem) -> io::Result<Self> {
        let protocol = match subsystem {
            Subsystem::Route => None,
            Subsystem::Netfilter => Some(protocols::NETFILTER),
            Subsystem::Generic => Some(protocols::GENERIC),
        };
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        let limit = Some(Duration::from_secs(5));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request that changes or asks for one thing; returns the answer, if there is one beside the acknowledgement.
    pub fn request(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<Option<Message>> {
        self.sequence += 1;
        send(
            &self.socket,
            &frame(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence, body),
            SendFlags::empty(),
        )?;
        let mut answer = None;
        loop {
            for (sequence, message) in self.receive()? {
                if sequence != self.sequence {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    return error_of(&message).map(|()| answer);
                }
                answer = Some(message);
            }
        }
    }

    /// Asks for a list.
    pub fn dump(&mut self, kind: u16, body: &Body) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        send(
            &self.socket,
            &frame(kind, NLM_F_REQUEST | NLM_F_DUMP, self.sequence, body),
            SendFlags::empty(),
        )?;
        let mut list = Vec::new();
        loop {
            for (sequence, message) in self.receive()? {
                match message.kind {
                    _ if sequence != self.sequence => {}
                    NLMSG_DONE => return Ok(list),
                    NLMSG_ERROR => error_of(&message)?,
                    _ => list.push(message),
                }
            }
        }
    }

    /// Sends several messages as one transaction between two marks, and returns the first error.
    pub fn transaction(
        &mut self,
        begin: (u16, &Body),
        messages: &[(u16, u16, Body)],
        end: (u16, &Body),
    ) -> io::Result<()> {
        let first = self.sequence + 1;
        let mut bytes = frame(begin.0, NLM_F_REQUEST, first, begin.1);
        for (offset, (kind, flags, body)) in messages.iter().enumerate() {
            let sequence = first + 1 + offset as u32;
            bytes.extend(frame(*kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, body));
        }
        self.sequence = first + 1 + messages.len() as u32;
        bytes.extend(frame(end.0, NLM_F_REQUEST, self.sequence, end.1));
        send(&self.socket, &bytes, SendFlags::empty())?;
        // The kernel works inside `send`: every acknowledgement is queued by now, and a failed transaction has at least one error.
        let mut acknowledged = 0;
        while acknowledged < messages.len() {
            for (sequence, message) in self.receive()? {
                if sequence >= first && message.kind == NLMSG_ERROR {
                    error_of(&message)?;
                    acknowledged += 1;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<(u32, Message)>> {
        // A dump's datagrams are at most 32 KiB; one that does not fit would be cut off.
        let mut buffer = vec![0u8; 128 * 1024];
        let (_, length) = recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC)?;
        if length > buffer.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a kernel message is longer than expected",
            ));
        }
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while rest.len() >= NLMSG_HDRLEN {
            let size = u32_at(rest, 0).unwrap_or(0) as usize;
            if size < NLMSG_HDRLEN || size > rest.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a kernel message has a wrong length",
                ));
            }
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let sequence = u32_at(rest, 8).unwrap_or(0);
            messages.push((
                sequence,
                Message {
                    kind,
                    body: rest[NLMSG_HDRLEN..size].to_vec(),
                },
            ));
            rest = &rest[align(size).min(rest.len())..];
        }
        Ok(messages)
    }
}

fn frame(kind: u16, flags: u16, sequence: u32, body: &Body) -> Vec<u8> {
    let length = NLMSG_HDRLEN + body.0.len();
    let mut bytes = Vec::with_capacity(align(length));
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(&body.0);
    bytes.resize(align(length), 0);
    bytes
}

fn error_of(message: &Message) -> io::Result<()> {
    match u32_at(&message.body, 0).unwrap_or(0) as i32 {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(-negative)),
    }
}

fn align(length: usize) -> usize {
    length.div_ceil(4) * 4
}

/// Reads a number in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What follows a message's header: a fixed part, then attributes.
#[derive(Debug, Default, Clone)]
pub struct Body(Vec<u8>);

impl Body {
    /// Starts with the fixed part.
    pub fn new(fixed: &[u8]) -> Self {
        let mut bytes = fixed.to_vec();
        bytes.resize(align(bytes.len()), 0);
        Self(bytes)
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((NLA_HDRLEN + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    /// Adds a text attribute, ended by a zero byte as the kernel wants it.
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds an attribute that holds attributes.
    pub fn with_nested(self, kind: u16, inner: Body) -> Self {
        self.with(kind | uapi::NLA_F_NESTED, &inner.0)
    }
}

/// Walks attributes; stops at the first that is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = bytes.get(NLA_HDRLEN..length)?;
        bytes = bytes.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// Finds one attribute.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// Reads a text attribute.
pub fn text_of(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attribute(bytes, kind)?;
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip_and_damage_ends_the_walk() {
        let body = Body::new(&[1, 2, 3])
            .with_text(1, "eth0")
            .with(2, &[9; 5])
            .with_nested(3, Body::default().with(7, &[1]));
        let bytes = &body.0[4..];
        assert_eq!(text_of(bytes, 1).as_deref(), Some("eth0"));
        assert_eq!(attribute(bytes, 2), Some(&[9u8; 5][..]));
        assert_eq!(attribute(attribute(bytes, 3).unwrap(), 7), Some(&[1u8][..]));
        for cut in 0..bytes.len() {
            assert!(attributes(&bytes[..cut]).count() <= 3);
        }
        assert_eq!(attributes(&[3, 0, 1, 0, 0]).count(), 0, "a length below four is damage");
    }
}
