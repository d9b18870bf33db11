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

/// sudo and doas run with `LC_ALL=C`, because their refusals are known by their English sentences. The command gets the login's own value back,
/// which is its first argument; sudo passes `LC_ALL` on, also where it resets the environment (sudoers(5), env_check).
const RESTORE_LOCALE: &str = "if [ -n \"$1\" ]; then LC_ALL=$1; export LC_ALL; else unset LC_ALL; fi\nset --";

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

/// What is seen on the two outputs of a shell. They are read apart, so events of one may arrive before older events of the other.
#[derive(Debug, Clone)]
enum ShellOutput {
    /// A line of standard output.
    Line(String),
    /// The last words of standard output, without a line's end.
    Words(String),
    OutputEnded,
    /// Text on standard error.
    Errors(String),
    /// The shell's marker on standard error: what came before it is a profile's.
    ErrorsOfSudo,
    /// sudo's prompt, on standard error.
    Prompt,
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
                let inner = quote(&format!("{RESTORE_LOCALE}\necho {ready}\n{command}"));
                // `-k`: a login that sudo remembers must not decide whether it asks for the password.
                format!(
                    "echo {shell}\nprintf %s {shell} >&2\nlocale=${{LC_ALL-}}\nLC_ALL=C\nexport LC_ALL\n\
                     if command -v sudo >/dev/null 2>&1; then exec sudo -k -S -p {prompt} -- sh -c {inner} sh \"$locale\"\n\
                     elif command -v doas >/dev/null 2>&1; then exec doas -n sh -c {inner} sh \"$locale\"\nfi\necho {none}"
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
    let stderr = watch_stderr(
        child.stderr,
        [
            (markers.shell.clone(), ShellOutput::ErrorsOfSudo),
            (markers.prompt.clone(), ShellOutput::Prompt),
        ],
        sender,
    );
    let mut waiting = Startup {
        seen,
        markers,
        shell_timeout,
        shell_runs: false,
        asked: false,
        output: String::new(),
        errors: String::new(),
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
    output: String,
    errors: String,
}

impl Startup {
    fn until_ready(&mut self, stdin: &mut Box<dyn Write + Send>, who: &RunAs<'_>) -> Result<(), Diagnosis> {
        let mut until = Instant::now() + self.shell_timeout;
        loop {
            match self.seen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.ready) => return Ok(()),
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.shell) => {
                    self.shell_runs = true;
                    self.output.clear();
                    until = Instant::now() + SUDO_TIMEOUT;
                }
                Ok(ShellOutput::Line(line)) if line.ends_with(&self.markers.none) => {
                    return Err(Diagnosis::new(
                        Code::SudoRefused,
                        "the machine has neither sudo nor doas, and the login user is not root",
                    )
                    .next("install sudo, or log in as root"));
                }
                Ok(ShellOutput::Line(line)) => collect(&mut self.output, &(line + "\n")),
                Ok(ShellOutput::Words(text)) => collect(&mut self.output, &text),
                Ok(ShellOutput::Errors(text)) => collect(&mut self.errors, &text),
                Ok(ShellOutput::ErrorsOfSudo) => self.errors.clear(),
                Ok(ShellOutput::Prompt) => self.answer(stdin, who)?,
                Ok(ShellOutput::ErrorsEnded) => {}
                Ok(ShellOutput::OutputEnded) | Err(RecvTimeoutError::Disconnected) => {
                    self.collect_rest();
                    return Err(if self.shell_runs {
                        refused_root(&self.words())
                    } else {
                        self.no_shell()
                    });
                }
                Err(RecvTimeoutError::Timeout) if self.shell_runs => {
                    return Err(
                        Diagnosis::new(Code::SudoRefused, "sudo did not answer within 2 minutes").saw(self.words()),
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
                Ok(ShellOutput::Errors(text)) => collect(&mut self.errors, &text),
                Ok(ShellOutput::ErrorsOfSudo) => self.errors.clear(),
                Ok(ShellOutput::ErrorsEnded) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Returns what the shell, and then sudo, said on both outputs.
    fn words(&self) -> String {
        format!("{}{}", self.output, self.errors).trim().to_owned()
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
            .saw(self.words())
            .next("give the login user a shell that runs commands (chsh -s /bin/sh USER, on the node): a menu or nologin does not")
    }

    fn stuck_shell(&self) -> Diagnosis {
        let what = format!(
            "the login shell started no command within {} s",
            self.shell_timeout.as_secs()
        );
        Diagnosis::new(Code::AgentStart, what)
            .saw(self.words())
            .next("log in by hand: a home directory that hangs, a profile that waits, or a menu does this; --connect-timeout waits longer")
    }
}

/// Appends to text of which only the end is kept.
fn collect(kept: &mut String, text: &str) {
    kept.push_str(text);
    let surplus = kept.chars().count().saturating_sub(MAX_OUTPUT_CHARS);
    if surplus > 0 {
        *kept = kept.chars().skip(surplus).collect();
    }
}

/// Returns the error for a refusal of sudo or doas, with its cause when the message is a known one.
fn refused_root(words: &str) -> Diagnosis {
    let known: [(&str, &str, &str); 8] = [
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
            // sudo-rs, src/common/error.rs; it says so to users of other commands, too.
            "I'm afraid I can't do that",
            "sudo does not let the login user run sh as root",
            "landfall needs all commands: USER ALL=(ALL) ALL, in /etc/sudoers.d",
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
    for (sign, what, next) in known {
        if words.contains(sign) {
            return Diagnosis::new(Code::SudoRefused, what).saw(words).next(next);
        }
    }
    Diagnosis::new(Code::SudoRefused, "sudo refused")
        .saw(words)
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

/// Looks for markers on standard error and sends each one's event, and passes the rest on through the returned reader.
fn watch_stderr(
    mut stderr: Box<dyn Read + Send>,
    markers: [(String, ShellOutput); 2],
    seen: Sender<ShellOutput>,
) -> Box<dyn Read + Send> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(MAX_BUFFERED_CHUNKS);
    thread::spawn(move || {
        let pass = |text: String| {
            let bytes = text.clone().into_bytes();
            let _ = seen.send(ShellOutput::Errors(text));
            bytes.is_empty() || sender.send(bytes).is_ok()
        };
        let (mut held, mut buffer) = (String::new(), [0u8; 4096]);
        loop {
            let read = match stderr.read(&mut buffer) {
                Ok(read) if read > 0 => read,
                _ => break,
            };
            held.push_str(&String::from_utf8_lossy(&buffer[..read]));
            let mut is_read = true;
            while let Some((at, marker, event)) = first_marker(&held, &markers) {
                let rest = held.split_off(at + marker.len());
                held.truncate(at);
                is_read &= pass(std::mem::replace(&mut held, rest));
                let _ = seen.send(event.clone());
            }
            // The tail may be the beginning of a marker.
            let tail = markers.iter().map(|(marker, _)| marker_start(&held, marker)).max();
            let rest = held.split_off(held.len() - tail.unwrap_or(0));
            is_read &= pass(std::mem::replace(&mut held, rest));
            // The reader was dropped: the command sees a closed pipe.
            if !is_read {
                break;
            }
        }
        let _ = seen.send(ShellOutput::ErrorsEnded);
    });
    Box::new(ChannelReader {
        receiver,
        rest: Vec::new(),
    })
}

/// Returns where the first marker stands, the marker and its event.
fn first_marker<'a>(text: &str, markers: &'a [(String, ShellOutput)]) -> Option<(usize, &'a str, &'a ShellOutput)> {
    let found = markers
        .iter()
        .filter_map(|(marker, event)| Some((text.find(marker)?, marker.as_str(), event)));
    found.min_by_key(|(at, ..)| *at)
}

/// Returns how many bytes at the end of `text` are the beginning of `marker`.
fn marker_start(text: &str, marker: &str) -> usize {
    (1..marker.len().min(text.len() + 1))
        .rev()
        .find(|n| text.is_char_boundary(text.len() - n) && marker.starts_with(&text[text.len() - n..]))
        .unwrap_or(0)
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
            Box::new(Pieces(vec![b"warn\nSHELLPRO", b"MPT:tail"])),
            [
                ("PROMPT:".to_owned(), ShellOutput::Prompt),
                ("SHELL".to_owned(), ShellOutput::ErrorsOfSudo),
            ],
            sender,
        );
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "warn\ntail");
        let texts = seen.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>();
        let expected = [
            "Errors(\"warn\\n\")",
            "ErrorsOfSudo",
            "Prompt",
            "Errors(\"tail\")",
            "ErrorsEnded",
        ];
        assert_eq!(
            texts.into_iter().filter(|t| t != "Errors(\"\")").collect::<Vec<_>>(),
            expected
        );
    }
    /// A shell whose standard output arrives later than its standard error, with a sudo of the test's own.
    struct LateOutput {
        folder: tempfile::TempDir,
        /// LC_ALL of the login.
        locale: Option<&'static str>,
    }

    impl LateOutput {
        fn with_sudo(script: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let sudo = folder.path().join("sudo");
            std::fs::write(&sudo, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            Self { folder, locale: None }
        }
    }

    impl Shell for LateOutput {
        fn spawn(&mut self, line: &str) -> Result<RemoteChild, Diagnosis> {
            struct Late(Vec<u8>);
            impl Read for Late {
                fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                    thread::sleep(Duration::from_millis(10));
                    let read = buffer.len().min(self.0.len());
                    buffer[..read].copy_from_slice(&self.0[..read]);
                    self.0.drain(..read);
                    Ok(read)
                }
            }
            struct Ended(Option<i32>);
            impl landfall_core::transport::RemoteExit for Ended {
                fn wait(&mut self) -> Option<i32> {
                    self.0
                }
            }
            let line = format!("echo 'a profile warns' >&2; {line}");
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &line]).env_remove("LC_ALL");
            if let Some(locale) = self.locale {
                shell.env("LC_ALL", locale);
            }
            let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
            let output = shell.env("PATH", path).output().unwrap();
            Ok(RemoteChild {
                stdin: Box::new(std::io::sink()),
                stdout: Box::new(Late(output.stdout)),
                stderr: Box::new(std::io::Cursor::new(output.stderr)),
                exit: Box::new(Ended(output.status.code())),
            })
        }
    }

    #[test]
    fn words_of_sudo_that_overtake_standard_output_are_kept() {
        let timeout = Duration::from_secs(20);
        let mut shell = LateOutput::with_sudo("echo 'sudo: sorry, you must have a tty to run sudo' >&2\nexit 1");
        let error = start(&mut shell, "true", &RunAs::Root(None), timeout).err().unwrap();
        assert!(error.what.contains("requiretty"), "{error:?}");
        assert_eq!(error.saw, ["sudo: sorry, you must have a tty to run sudo"]);
    }

    #[test]
    fn sudo_speaks_english_whatever_the_locale_of_the_login() {
        let mut shell = LateOutput::with_sudo(
            "case $LC_ALL in\nC) echo 'posix is not in the sudoers file.' >&2 ;;\n*) echo 'posix no está en el archivo sudoers.' >&2 ;;\nesac\nexit 1",
        );
        for locale in [None, Some("es_ES.UTF-8")] {
            shell.locale = locale;
            let timeout = Duration::from_secs(20);
            let error = start(&mut shell, "true", &RunAs::Root(None), timeout).err().unwrap();
            assert_eq!(error.what, "the login user may not use sudo", "{locale:?}: {error:?}");
        }
    }

    #[test]
    fn the_command_behind_sudo_has_the_locale_of_the_login_and_no_arguments() {
        // What sudo is told before `--` is its own.
        let mut shell = LateOutput::with_sudo("while [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"");
        for (locale, told) in [(None, "unset 0\n"), (Some("es_ES.UTF-8"), "es_ES.UTF-8 0\n")] {
            shell.locale = locale;
            let command = "echo \"${LC_ALL-unset} $#\"";
            let mut child = start(&mut shell, command, &RunAs::Root(None), Duration::from_secs(20)).unwrap();
            let mut text = String::new();
            child.stdout.read_to_string(&mut text).unwrap();
            assert_eq!(text, told);
        }
    }
}
