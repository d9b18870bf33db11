//! Commands as root through sudo, with or without a password.
//!
//! The password goes out only after sudo's own prompt was seen, so that a command which needs none never reads it as its input.

use crate::pump::Pump;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use landfall_core::transport::RemoteChild;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// sudo asks PAM, which may ask a directory server; two minutes is sshd's default LoginGraceTime.
const PATIENCE: Duration = Duration::from_secs(120);

/// Quotes a command for `sh -c`, whatever the login shell is.
pub fn shell(command: &str) -> String {
    format!("sh -c {}", quote(command))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

enum Seen {
    Ready,
    Prompt,
    Words(String),
    End(&'static str),
}

/// Starts `command` as root. Blocks until it runs or sudo refused.
pub fn spawn(pump: &mut Pump, command: &str, password: Option<&Secret>) -> Result<RemoteChild, Diagnosis> {
    let mut random = [0u8; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Diagnosis::new(Code::Internal, "no random bytes can be had").because(&e))?;
    let word = URL_SAFE_NO_PAD.encode(random);
    let (ready, prompt) = (format!("landfall-ready-{word}"), format!("landfall-prompt-{word}"));
    // `-k`: a remembered login must not decide whether the password is asked for.
    let line = format!(
        "sudo -k -S -p {} -- sh -c {}",
        quote(&prompt),
        quote(&format!("echo {ready}; {command}"))
    );
    let mut child = pump.spawn(&shell(&line))?;
    let (sender, seen) = channel();
    let stdout = watch_stdout(child.stdout, ready, sender.clone());
    let stderr = watch_stderr(child.stderr, prompt, sender);
    await_ready(&seen, &mut child.stdin, password)?;
    // The watcher of standard error goes on for as long as the command runs, and hands everything on.
    let stdout = stdout
        .join()
        .map_err(|_| Diagnosis::new(Code::Internal, "a watching thread panicked"))?;
    Ok(RemoteChild {
        stdin: child.stdin,
        stdout,
        stderr,
        exit: child.exit,
    })
}

fn await_ready(
    seen: &Receiver<Seen>,
    stdin: &mut Box<dyn Write + Send>,
    password: Option<&Secret>,
) -> Result<(), Diagnosis> {
    let refused = |what: &str| Diagnosis::new(Code::SudoRefused, what);
    let began = Instant::now();
    let (mut asked, mut words) = (false, String::new());
    loop {
        match seen.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
            Ok(Seen::Ready) => return Ok(()),
            Ok(Seen::Prompt) if asked => {
                return Err(refused("the sudo password is wrong")
                    .next("give the right one as becomePassword or becomePasswordFile in cluster.yaml, or as ansible_become_password in the inventory"));
            }
            Ok(Seen::Prompt) => {
                asked = true;
                let Some(password) = password else {
                    return Err(refused("sudo asks for a password and none was given")
                        .next("give it as becomePassword or becomePasswordFile in cluster.yaml, or as ansible_become_password in the inventory"));
                };
                let line = [password.expose(), b"\n"].concat();
                stdin
                    .write_all(&line)
                    .and_then(|()| stdin.flush())
                    .map_err(|e| refused("sudo does not read").because(&e))?;
            }
            Ok(Seen::Words(text)) => words.push_str(&text),
            Ok(Seen::End("stderr")) => {}
            Ok(Seen::End(_)) | Err(RecvTimeoutError::Disconnected) => {
                // Standard error may arrive after standard output has ended.
                while let Ok(Seen::Words(text)) = seen.recv_timeout(Duration::from_millis(300)) {
                    words.push_str(&text);
                }
                return Err(refused("sudo refused")
                    .saw(words.trim().to_owned())
                    .next("sudo -l, on the node"));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(refused("sudo did not answer within 2 minutes").saw(words.trim().to_owned()));
            }
        }
    }
}

/// Takes the ready line off standard output and gives the rest back.
fn watch_stdout(
    mut stdout: Box<dyn Read + Send>,
    ready: String,
    seen: Sender<Seen>,
) -> thread::JoinHandle<Box<dyn Read + Send>> {
    thread::spawn(move || {
        // Byte by byte: what follows the line belongs to the caller.
        let (mut line, mut byte) = (Vec::new(), [0u8; 1]);
        let result = loop {
            match stdout.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    if line.ends_with(ready.as_bytes()) {
                        break Seen::Ready;
                    }
                    line.clear();
                }
                Ok(1) => line.push(byte[0]),
                _ => break Seen::End("stdout"),
            }
        };
        let _ = seen.send(result);
        stdout
    })
}

/// Looks for prompts on standard error, and hands the rest on through a pipe of its own.
fn watch_stderr(mut stderr: Box<dyn Read + Send>, prompt: String, seen: Sender<Seen>) -> Box<dyn Read + Send> {
    let (sender, receiver) = channel::<Vec<u8>>();
    thread::spawn(move || {
        let (mut held, mut buffer) = (String::new(), [0u8; 4096]);
        loop {
            let read = match stderr.read(&mut buffer) {
                Ok(read) if read > 0 => read,
                _ => break,
            };
            held.push_str(&String::from_utf8_lossy(&buffer[..read]));
            while let Some(at) = held.find(&prompt) {
                held.replace_range(at..at + prompt.len(), "");
                let _ = seen.send(Seen::Prompt);
            }
            // The tail may be the beginning of a prompt.
            let keep = (1..prompt.len().min(held.len() + 1))
                .rev()
                .find(|n| held.is_char_boundary(held.len() - n) && prompt.starts_with(&held[held.len() - n..]));
            let ready = held.drain(..held.len() - keep.unwrap_or(0)).collect::<String>();
            if !ready.is_empty() {
                let _ = seen.send(Seen::Words(ready.clone()));
                let _ = sender.send(ready.into_bytes());
            }
        }
        let _ = seen.send(Seen::End("stderr"));
    });
    Box::new(ChannelReader {
        receiver,
        rest: Vec::new(),
    })
}

struct ChannelReader {
    receiver: Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.recv() {
                Ok(bytes) => self.rest = bytes,
                Err(_) => return Ok(0),
            }
        }
        let take = buffer.len().min(self.rest.len());
        buffer[..take].copy_from_slice(&self.rest[..take]);
        self.rest.drain(..take);
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_commands_reach_the_shell_whole() {
        for text in ["echo 'a b'", "printf '%s' \"$HOME\" 'x'\\''y'", "true; false"] {
            let script = format!("printf '%s' {}", quote(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn prompts_are_seen_across_pieces_and_kept_from_the_caller() {
        struct Pieces(Vec<&'static [u8]>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() {
                    return Ok(0);
                }
                let piece = self.0.remove(0);
                buffer[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            }
        }
        let (sender, seen) = channel();
        let mut rest = watch_stderr(
            Box::new(Pieces(vec![b"warn\nPRO", b"MPT:tail"])),
            "PROMPT:".to_owned(),
            sender,
        );
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "warn\ntail");
        assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Prompt)).count(), 1);
    }
}
