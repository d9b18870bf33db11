//! Starts commands through any login shell, as the login user or as root.
//!
//! The script reaches a POSIX shell without any character that a login shell (bash, fish, csh …) interprets. It first prints a marker: output
//! before the marker, such as a profile's or a menu's, does not belong to the command, and a login shell that never prints it is an error.
//! A password is sent only after sudo's own prompt, so that a command that needs no password never reads it as input.

use crate::pump::Pump;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use landfall_core::transport::RemoteChild;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit of sudo: it asks PAM, which may ask a directory server; two minutes is sshd's default LoginGraceTime.
const SUDO_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait for the end of standard error of a command that has ended; a background process may keep it open for ever.
const STDERR_TIMEOUT: Duration = Duration::from_secs(5);
/// Chunks of standard error, of up to 4 KiB, that are buffered for a slow reader; the command waits when the buffer is full.
const MAX_BUFFERED_CHUNKS: usize = 256;
/// Most output of a login shell that an error shows, in characters.
const MAX_OUTPUT_CHARS: usize = 2000;

/// Who runs a command.
pub enum RunAs<'a> {
    /// The login user.
    LoginUser,
    /// root, through sudo or doas, with the password for it.
    Root(Option<&'a Secret>),
}

/// Returns a command line that every login shell passes to `sh` unchanged: all but letters, digits and a few marks is written as `\0ooo`,
/// which the shell's printf decodes (POSIX, printf, `%b`). The command keeps its standard input.
pub fn encode(script: &str) -> String {
    let mut encoded = String::from("sh -c 'eval \"$(printf %b \"");
    for byte in script.bytes() {
        if byte.is_ascii_alphanumeric() || b" /._-=,:+".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "\\0{byte:03o}");
        }
    }
    encoded.push_str("\")\"'");
    encoded
}

/// Quotes a word for `sh`.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

enum ShellOutput {
    Line(String),
    Prompt,
    Words(String),
    OutputEnded,
    ErrorsEnded,
}

/// Markers that the script prints at known places. They are random, so that no other output contains them.
struct Markers {
    shell: String,
    ready: String,
    prompt: String,
    none: String,
}

impl Markers {
    fn new() -> Result<Self, Diagnosis> {
        let mut random = [0u8; 12];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Diagnosis::new(Code::Internal, "no random bytes can be had").because(&e))?;
        let word = URL_SAFE_NO_PAD.encode(random);
        let mark = |what: &str| format!("landfall-{what}-{word}");
        Ok(Self {
            shell: mark("shell"),
            ready: mark("ready"),
            prompt: mark("prompt"),
            none: mark("none"),
        })
    }

    fn script(&self, command: &str, who: &RunAs<'_>) -> String {
        let Self {
            shell,
            ready,
            prompt,
            none,
        } = self;
        match who {
            RunAs::LoginUser => format!("echo {ready}\n{command}"),
            RunAs::Root(_) => {
                let inner = quote(&format!("echo {ready}\n{command}"));
                // `-k`: a login that sudo remembers must not decide whether it asks for the password.
                format!(
                    "echo {shell}\nif command -v sudo >/dev/null 2>&1; then exec sudo -k -S -p {prompt} -- sh -c {inner}\n\
                     elif command -v doas >/dev/null 2>&1; then exec doas -n sh -c {inner}\nfi\necho {none}"
                )
            }
        }
    }
}

/// Something that starts command lines for a login shell.
pub trait Shell {
    /// Starts one. Blocks until the far end accepted it.
    fn spawn(&mut self, line: &str) -> Result<RemoteChild, Diagnosis>;
}

impl Shell for Pump {
    fn spawn(&mut self, line: &str) -> Result<RemoteChild, Diagnosis> {
        Pump::spawn(self, line)
    }
}

/// Starts `command` (a script for `sh`). Blocks until it runs: for `shell_timeout` until the login shell runs it, then for two minutes while
/// sudo asks.
pub fn start(
    shell: &mut dyn Shell,
    command: &str,
    who: &RunAs<'_>,
    shell_timeout: Duration,
) -> Result<RemoteChild, Diagnosis> {
    let markers = Markers::new()?;
    let mut child = shell.spawn(&encode(&markers.script(command, who)))?;
    let (sender, seen) = channel();
    let stdout = watch_stdout(child.stdout, markers.ready.clone(), sender.clone());
    let stderr = watch_stderr(child.stderr, markers.prompt.clone(), sender);
    let mut waiting = Startup {
        seen,
        markers,
        shell_timeout,
        shell_runs: false,
        asked: false,
        words: String::new(),
    };
    waiting.until_ready(&mut child.stdin, who)?;
    let stdout = stdout
        .join()
        .map_err(|_| Diagnosis::new(Code::Internal, "a watching thread panicked"))?;
    // The thread that watches standard error runs as long as the command and passes everything on.
    Ok(RemoteChild {
        stdin: child.stdin,
        stdout,
        stderr,
        exit: child.exit,
    })
}

struct Startup {
    seen: Receiver<ShellOutput>,
    markers: Markers,
    shell_timeout: Duration,
    shell_runs: bool,
    asked: bool,
    words: String,
}

impl Startup {
    fn until_ready(&mut self, stdin: &mut Box<dyn Write + Send>, who: &RunAs<'_>) -> Result<(), Diagnosis> {
        let mut until = Instant::now() + self.shell_timeout;
        loop {
            match self.seen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.ready) => return Ok(()),
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.shell) => {
                    self.shell_runs = true;
                    self.words.clear();
                    until = Instant::now() + SUDO_TIMEOUT;
                }
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.none) => {
                    return Err(Diagnosis::new(
                        Code::SudoRefused,
                        "the machine has neither sudo nor doas, and the login user is not root",
                    )
                    .next("install sudo, or log in as root"));
                }
                Ok(ShellOutput::Line(line)) => self.collect(&(line + "\n")),
                Ok(ShellOutput::Words(text)) => self.collect(&text),
                Ok(ShellOutput::Prompt) => self.answer(stdin, who)?,
                Ok(ShellOutput::ErrorsEnded) => {}
                Ok(ShellOutput::OutputEnded) | Err(RecvTimeoutError::Disconnected) => {
                    self.collect_rest();
                    return Err(if self.shell_runs {
                        refused_root(&self.words)
                    } else {
                        self.no_shell()
                    });
                }
                Err(RecvTimeoutError::Timeout) if self.shell_runs => {
                    return Err(
                        Diagnosis::new(Code::SudoRefused, "sudo did not answer within 2 minutes")
                            .saw(self.words.trim().to_owned()),
                    );
                }
                Err(RecvTimeoutError::Timeout) => return Err(self.stuck_shell()),
            }
        }
    }

    /// Reads the rest of standard error, which may arrive after standard output has ended.
    fn collect_rest(&mut self) {
        let until = Instant::now() + STDERR_TIMEOUT;
        loop {
            match self.seen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(ShellOutput::Words(text)) => self.collect(&text),
                Ok(ShellOutput::ErrorsEnded) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn collect(&mut self, text: &str) {
        self.words.push_str(text);
        let surplus = self.words.chars().count().saturating_sub(MAX_OUTPUT_CHARS);
        if surplus > 0 {
            self.words = self.words.chars().skip(surplus).collect();
        }
    }

    fn answer(&mut self, stdin: &mut Box<dyn Write + Send>, who: &RunAs<'_>) -> Result<(), Diagnosis> {
        const GIVE: &str =
            "as becomePassword or becomePasswordFile in cluster.yaml, or as ansible_become_password in the inventory";
        let refused = |what: &str| Diagnosis::new(Code::SudoRefused, what);
        if self.asked {
            return Err(refused("the sudo password is wrong").next(format!("give the right one {GIVE}")));
        }
        self.asked = true;
        let RunAs::Root(Some(password)) = who else {
            return Err(refused("sudo asks for a password and none was given").next(format!("give it {GIVE}")));
        };
        let line = zeroize::Zeroizing::new([password.expose(), b"\n"].concat());
        stdin
            .write_all(&line)
            .and_then(|()| stdin.flush())
            .map_err(|e| refused("sudo does not read").because(&e))
    }

    fn no_shell(&self) -> Diagnosis {
        Diagnosis::new(Code::AgentStart, "the login shell ran no command and ended")
            .saw(self.words.trim().to_owned())
            .next("give the login user a shell that runs commands (chsh -s /bin/sh USER, on the node): a menu or nologin does not")
    }

    fn stuck_shell(&self) -> Diagnosis {
        let what = format!(
            "the login shell started no command within {} s",
            self.shell_timeout.as_secs()
        );
        Diagnosis::new(Code::AgentStart, what)
            .saw(self.words.trim().to_owned())
            .next("log in by hand: a home directory that hangs, a profile that waits, or a menu does this; --connect-timeout waits longer")
    }
}

/// Returns the error for a refusal of sudo or doas, with its cause when the message is a known one.
fn refused_root(words: &str) -> Diagnosis {
    let known: [(&str, &str, &str); 7] = [
        (
            "must have a tty",
            "sudo wants a terminal (requiretty)",
            "Defaults:USER !requiretty, in a file of /etc/sudoers.d on the node",
        ),
        (
            "not in the sudoers",
            "the login user may not use sudo",
            "add it to the group sudo or wheel, or to /etc/sudoers.d, on the node",
        ),
        (
            "not allowed to",
            "sudo does not let the login user run sh as root",
            "landfall needs all commands: USER ALL=(ALL) ALL, in /etc/sudoers.d",
        ),
        (
            "may not run",
            "sudo does not let the login user run sh as root",
            "landfall needs all commands: USER ALL=(ALL) ALL, in /etc/sudoers.d",
        ),
        (
            "doas: Authentication",
            "doas asks for a password, which it reads from a terminal only",
            "permit nopass USER as root, in /etc/doas.conf on the node",
        ),
        (
            "doas:",
            "doas refused",
            "permit nopass USER as root, in /etc/doas.conf on the node",
        ),
        (
            "unable to allocate pty",
            "sudo can make no terminal (use_pty)",
            "look whether /dev/pts is mounted on the node",
        ),
    ];
    let seen = words.trim().to_owned();
    for (sign, what, next) in known {
        if words.contains(sign) {
            return Diagnosis::new(Code::SudoRefused, what).saw(seen).next(next);
        }
    }
    Diagnosis::new(Code::SudoRefused, "sudo refused")
        .saw(seen)
        .next("sudo -l, on the node")
}

/// Sends the lines of standard output up to the marker that says that the command runs, and returns the rest as a reader.
fn watch_stdout(
    mut stdout: Box<dyn Read + Send>,
    ready: String,
    seen: Sender<ShellOutput>,
) -> thread::JoinHandle<Box<dyn Read + Send>> {
    thread::spawn(move || {
        // Reads single bytes, because everything after the line belongs to the caller.
        let (mut line, mut byte) = (Vec::new(), [0u8; 1]);
        loop {
            match stdout.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    line.clear();
                    let is_ready = text.ends_with(&ready);
                    let _ = seen.send(ShellOutput::Line(text));
                    if is_ready {
                        return stdout;
                    }
                }
                // A marker is short, so a longer line need not be kept.
                Ok(1) if line.len() < MAX_OUTPUT_CHARS => line.push(byte[0]),
                Ok(1) => line = vec![byte[0]],
                _ => break,
            }
        }
        let _ = seen.send(ShellOutput::Words(String::from_utf8_lossy(&line).into_owned()));
        let _ = seen.send(ShellOutput::OutputEnded);
        stdout
    })
}
/// Looks for prompts on standard error, and passes the rest on through the returned reader.
fn watch_stderr(mut stderr: Box<dyn Read + Send>, prompt: String, seen: Sender<ShellOutput>) -> Box<dyn Read + Send> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(MAX_BUFFERED_CHUNKS);
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
                let _ = seen.send(ShellOutput::Prompt);
            }
            // The tail may be the beginning of a prompt.
            let keep = (1..prompt.len().min(held.len() + 1))
                .rev()
                .find(|n| held.is_char_boundary(held.len() - n) && prompt.starts_with(&held[held.len() - n..]));
            let ready = held.drain(..held.len() - keep.unwrap_or(0)).collect::<String>();
            if !ready.is_empty() {
                let _ = seen.send(ShellOutput::Words(ready.clone()));
                // The reader was dropped: the command sees a closed pipe.
                if sender.send(ready.into_bytes()).is_err() {
                    break;
                }
            }
        }
        let _ = seen.send(ShellOutput::ErrorsEnded);
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

    /// Passes the characters that bash, fish or csh interpret through each shell.
    #[test]
    fn every_login_shell_passes_the_script_unchanged() {
        let text = "a 'b' \"c\" \\' \\\\ $HOME `id` !! !1 # % ^x^ {a,b} ~ * ? [a] ; & | < > ( )\n\tä \\0101 \\c x";
        let script = format!("printf %s {}; cat; exit 3", quote(text));
        for shell in ["bash", "dash", "fish", "tcsh", "csh"] {
            let mut child = std::process::Command::new(shell)
                .args(["-c", &encode(&script)])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap_or_else(|e| panic!("{shell} is installed by the test command: {e}"));
            child.stdin.take().unwrap().write_all(b"|input").unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                format!("{text}|input"),
                "{shell}"
            );
            assert_eq!(output.status.code(), Some(3), "{shell}");
        }
    }

    #[test]
    fn prompts_are_found_across_chunks_and_removed() {
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
        assert_eq!(seen.iter().filter(|s| matches!(s, ShellOutput::Prompt)).count(), 1);
    }
}
