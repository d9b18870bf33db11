//! Random text.

use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// Returns `N` random bytes of the kernel as hexadecimal digits. `N` is at most 256, so that the kernel gives all at once (getrandom(2)).
pub fn hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0u8; N];
    if getrandom(&mut bytes[..], GetRandomFlags::empty())? != N {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
