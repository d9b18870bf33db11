//! Answers of HTTP/1.1, read as far as probes and health questions need them. httparse reads heads and chunk sizes.

use std::io::{self, Read};

/// Headers of one head; our targets send some ten.
const MAX_HEADERS: usize = 64;
/// Bytes of a head, or of the line before a chunk.
const MAX_HEAD: usize = 64 * 1024;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
    /// Whether the connection can take another question.
    pub reusable: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    /// It ends with the connection.
    ToEnd,
}

struct Head {
    status: u16,
    framing: Framing,
    keeps_open: bool,
}

/// Reads one answer to a GET, and of its body up to `most_body` bytes. Interim answers are passed over. Blocks as long as the stream does.
///
/// `InvalidData`: it is not HTTP/1.1. `UnexpectedEof`: it ended too early. Others come from the stream.
pub fn read_answer(stream: &mut impl Read, most_body: usize) -> io::Result<Answer> {
    let mut input = Input { stream, bytes: vec![] };
    let head = loop {
        let head = input.head()?;
        if head.status >= 200 {
            break head;
        }
    };
    let (body, whole) = match head.framing {
        Framing::Length(length) => (input.exactly(length.min(most_body))?, length <= most_body),
        Framing::Chunked => (input.chunks(most_body)?, false),
        Framing::ToEnd => (input.until_end(most_body)?, false),
    };
    Ok(Answer {
        status: head.status,
        body,
        reusable: whole && head.keeps_open && input.bytes.is_empty(),
    })
}

/// A stream and what was read of it ahead.
struct Input<'a, R> {
    stream: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Input<'_, R> {
    /// Reads more; an end is an error.
    fn more(&mut self) -> io::Result<()> {
        match self.read()? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the answer ended too early",
            )),
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0u8; 4096];
        let read = self.stream.read(&mut buffer)?;
        self.bytes.extend(&buffer[..read]);
        Ok(read)
    }

    fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((length, head)) = parse_head(&self.bytes)? {
                self.bytes.drain(..length);
                return Ok(head);
            }
            if self.bytes.len() > MAX_HEAD {
                return Err(not_http());
            }
            self.more()?;
        }
    }

    /// Takes `length` bytes.
    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < length {
            self.more()?;
        }
        Ok(self.bytes.drain(..length).collect())
    }

    fn until_end(&mut self, most: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < most && self.read()? > 0 {}
        self.bytes.truncate(most);
        Ok(std::mem::take(&mut self.bytes))
    }

    fn chunks(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.chunk_size()?;
            let left = most - body.len();
            if size == 0 || left == 0 {
                return Ok(body);
            }
            if size > left {
                body.extend(self.exactly(left)?);
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(not_http());
            }
        }
    }

    fn chunk_size(&mut self) -> io::Result<usize> {
        loop {
            match httparse::parse_chunk_size(&self.bytes) {
                Ok(httparse::Status::Complete((length, size))) => {
                    self.bytes.drain(..length);
                    return Ok(usize::try_from(size).unwrap_or(usize::MAX));
                }
                Ok(httparse::Status::Partial) if self.bytes.len() <= MAX_HEAD => self.more()?,
                _ => return Err(not_http()),
            }
        }
    }
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1")
}

/// Returns a head that is there as a whole, with its length.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Head)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| not_http())? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        header.map(|h| String::from_utf8_lossy(h.value).trim().to_ascii_lowercase())
    };
    let status = response.code.ok_or_else(not_http)?;
    let framing = if matches!(status, 100..200 | 204 | 304) {
        // RFC 9112, 6.3: these have no body.
        Framing::Length(0)
    } else if value("transfer-encoding").is_some_and(|v| v == "chunked") {
        Framing::Chunked
    } else {
        match value("content-length") {
            Some(text) => Framing::Length(text.parse().map_err(|_| not_http())?),
            None => Framing::ToEnd,
        }
    };
    let keeps_open = response.version == Some(1) && value("connection").is_none_or(|v| v != "close");
    let head = Head {
        status,
        framing,
        keeps_open,
    };
    Ok(Some((length, head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out the text in pieces of `step` bytes.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(self.1).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn read(text: &str, step: usize) -> Result<(u16, String, bool), io::ErrorKind> {
        let answer = read_answer(&mut Drops(text.as_bytes(), step), 10).map_err(|error| error.kind())?;
        Ok((answer.status, String::from_utf8(answer.body).unwrap(), answer.reusable))
    }

    #[test]
    fn answers_are_read_in_whatever_pieces_they_come() {
        let ok = |body: &str, reusable| Ok((200, body.to_owned(), reusable));
        for (text, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok("hello", true)),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close\r\n\r\n",
                ok("", false),
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", ok("hi", false)),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", ok("until the ", false)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nlonger than.",
                ok("longer tha", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
                ok("hello", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n0123456789abcdef",
                ok("0123456789", false),
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                ok("x", true),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, String::new(), true))),
        ] {
            for step in [1, 3, 4096] {
                assert_eq!(read(text, step), wanted, "{text} in pieces of {step}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_no_answer_is_an_error() {
        let cut = Err(io::ErrorKind::UnexpectedEof);
        let not_http = Err(io::ErrorKind::InvalidData);
        for (text, wanted) in [
            ("", &cut),
            ("HTTP/1.1 200 OK\r\nContent-", &cut),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", &cut),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", &cut),
            ("SSH-2.0-OpenSSH_9.2p1\r\n", &not_http),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", &not_http),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                &not_http,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                &not_http,
            ),
        ] {
            for step in [1, 4096] {
                assert_eq!(&read(text, step), wanted, "{text} in pieces of {step}");
            }
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD + 1));
        assert_eq!(read(&endless, 4096), not_http);
    }
}
