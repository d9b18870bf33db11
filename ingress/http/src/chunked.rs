//! Bodies of HTTP/1 requests and answers, taken from the bytes that follow a head. Pure; made for hostile input.
//!
//! A chunk's size is hex digits, at most sixteen; extensions are skipped, bounded, and hold neither CR nor LF nor NUL; every line ends
//! with CR LF; trailers are a few fields.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Longest chunk line: a size and its extensions. Nobody uses extensions; some proxies pad sizes with zeros and blanks.
const LINE: usize = 256;
/// Largest trailer section.
const TRAILERS: usize = 8 * 1024;
/// Most trailer fields.
const TRAILER_FIELDS: usize = 32;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; also none at all.
    Length(u64),
    /// In chunks, which say their end themselves.
    Chunked,
}

/// Finds the end of a body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So much is left of a body of known length.
    Length(u64),
    /// A chunk's line comes next.
    Size,
    /// So much is left of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailers,
    Done,
}

/// What a body yields.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// Fields that follow it.
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    /// The body was taken whole before.
    End,
}

/// The bytes are no body; the connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Decoder {
    /// Starts before the first byte of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        };
        Self { state }
    }

    /// The whole body was taken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece from the front of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                State::Length(left) => {
                    let Some((data, left)) = take(buffer, left) else {
                        return Ok(Piece::More);
                    };
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let Some((data, left)) = take(buffer, left) else {
                        return Ok(Piece::More);
                    };
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => {
                    match (buffer.first(), buffer.get(1)) {
                        (None | Some(b'\r'), None) => return Ok(Piece::More),
                        (Some(b'\r'), Some(b'\n')) => {}
                        _ => return Err(Malformed),
                    }
                    let _ = buffer.split_to(2);
                    self.state = State::Size;
                }
                State::Size => {
                    let Some(line) = line(buffer, LINE)? else {
                        return Ok(Piece::More);
                    };
                    let size = size(&line)?;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::Trailers => return self.trailers(buffer),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        if buffer.starts_with(b"\r\n") {
            let _ = buffer.split_to(2);
            self.state = State::Done;
            return Ok(Piece::End);
        }
        let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
        let (length, fields) = match httparse::parse_headers(buffer, &mut fields) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) if buffer.len() <= TRAILERS => return Ok(Piece::More),
            _ => return Err(Malformed),
        };
        let mut map = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
            map.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
        }
        let section = buffer.split_to(length);
        // httparse takes a bare LF for a line's end, and one in front for the end of all.
        if section.starts_with(b"\n") || section.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') {
            return Err(Malformed);
        }
        self.state = State::Done;
        Ok(Piece::Trailers(map))
    }
}

/// At most `left` bytes from the front, and what is left after them. `None` when there is none.
fn take(buffer: &mut BytesMut, left: u64) -> Option<(Bytes, u64)> {
    let available = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (available > 0).then(|| (buffer.split_to(available).freeze(), left - available as u64))
}

/// A line without its CR LF. `None` when it is not whole yet.
fn line(buffer: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, Malformed> {
    let seen = &buffer[..buffer.len().min(longest)];
    let Some(end) = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) else {
        return if buffer.len() < longest {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    match (buffer[end], buffer.get(end + 1)) {
        (b'\r', None) => Ok(None),
        (b'\r', Some(b'\n')) => {
            let line = buffer.split_to(end);
            let _ = buffer.split_to(2);
            Ok(Some(line))
        }
        _ => Err(Malformed),
    }
}

fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let mut rest = line[digits..].iter().skip_while(|byte| matches!(byte, b' ' | b'\t'));
    if !(1..=16).contains(&digits) || !matches!(rest.next(), None | Some(b';')) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data and trailer count of a chunked body, fed in pieces of `step`; what follows it must stay.
    fn read(text: &[u8], step: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
        let mut parts = text.chunks(step);
        loop {
            match decoder.next(&mut buffer)? {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::Trailers(map) => trailers = map.len(),
                Piece::End => break,
                Piece::More => match parts.next() {
                    Some(part) => buffer.extend_from_slice(part),
                    None => return Err(Malformed),
                },
            }
        }
        assert!(decoder.is_done());
        Ok((data, trailers))
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let text = b"5\r\nhello\r\n006;ext=\"1\" \r\n world\r\n0\r\nA: b\r\nC: d\r\n\r\n";
        for step in 1..text.len() {
            assert_eq!(read(text, step).unwrap(), (b"hello world".to_vec(), 2), "{step}");
        }
        assert_eq!(read(b"0\r\n\r\n", 1).unwrap(), (vec![], 0));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let texts: [&[u8]; 18] = [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\na\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1\na\r\n0\r\n\r\n",
            b"1\r\naX\r\n0\r\n\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1;\0\r\na\r\n0\r\n\r\n",
            b"1;a\nb\r\na\r\n0\r\n\r\n",
            b"1;a\rb\r\na\r\n0\r\n\r\n",
            b"00000000000000001\r\na\r\n0\r\n\r\n",
            b"1 1\r\na\r\n0\r\n\r\n",
            b"1\x0c\r\na\r\n0\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\n",
            b"0\r\nA : b\r\n\r\n",
        ];
        for text in texts {
            for step in [1, text.len()] {
                assert_eq!(read(text, step), Err(Malformed), "{:?}", String::from_utf8_lossy(text));
            }
        }
        let long = [b"1;".as_slice(), &[b'a'; LINE]].concat();
        assert_eq!(read(&long, 7), Err(Malformed));
    }

    #[test]
    fn a_known_length_ends_by_count() {
        let mut decoder = Decoder::new(Framing::Length(3));
        let mut buffer = BytesMut::from(&b"abcGET"[..]);
        assert_eq!(decoder.next(&mut buffer), Ok(Piece::Data(Bytes::from_static(b"abc"))));
        assert!(decoder.is_done() && buffer == b"GET"[..]);
        assert_eq!(decoder.next(&mut buffer), Ok(Piece::End));
        assert!(Decoder::new(Framing::Length(0)).is_done());
    }
}
