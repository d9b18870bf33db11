//! Chunks that are written, hostile: see [`crate::fuzz`].

use super::answer::{GATHERED, chunk};
use crate::fuzz::fuzz;
use bytes::{Bytes, BytesMut};
use landfall_ingress_http::chunked::{Decoder, Framing, Malformed, Piece};

/// Data, trailers and what follows of a chunked body that arrives in pieces.
fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(Vec<u8>, usize, usize)>, Malformed> {
    let (mut decoder, mut buffer) = (Decoder::new(Framing::Chunked), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), 0);
    loop {
        match decoder.next(&mut buffer)? {
            Piece::Data(bytes) => data.extend_from_slice(&bytes),
            Piece::Trailers(fields) => trailers = fields.len(),
            Piece::End => break,
            Piece::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    }
    assert!(decoder.is_done());
    Ok(Some((
        data,
        trailers,
        buffer.len() + pieces.map(<[u8]>::len).sum::<usize>(),
    )))
}

#[test]
fn chunks_that_are_written_are_read_as_what_they_were() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    fuzz("chunks-written", |input| {
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let (_, mut writer) = tokio::io::split(ours);
            let mut out = Vec::new();
            let mut data = Vec::new();
            // Each line is a piece; some are larger than what is copied.
            for line in input.split(|byte| *byte == b'\n').take(16) {
                let piece = line.repeat(1 + line.len() % 5 * 16);
                data.extend_from_slice(&piece);
                chunk(&mut writer, &mut out, Bytes::from(piece), true, GATHERED)
                    .await
                    .unwrap();
            }
            out.extend_from_slice(b"0\r\n\r\n");
            super::answer::flush(&mut writer, &mut out).await.unwrap();
            drop(writer);
            let mut written = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut written)
                .await
                .unwrap();
            assert_eq!(decode(std::iter::once(&written[..])), Ok(Some((data, 0, 0))));
        });
    });
}
