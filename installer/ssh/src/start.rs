//! Starts commands through any login shell, as the login user or as root.
//!
//! The script reaches a POSIX shell without any character that a login shell (bash, fish, csh …) interprets. It first prints a marker: output
//! before the marker, such as a profile's or a menu's, does not belong to the command, and a login shell that never prints it is an error.
//! A password is sent only after the prompt of sudo or doas, so that a command that needs no password never reads it as input.
//!
//! Where sudo or doas wants a terminal, there are two sessions. The one with the terminal starts sudo and carries the prompt and the password alone. The
//! other has no terminal: the command's three streams are its pipes. A terminal would mix standard error into standard output, and has no end of input.

use crate::refusal;
use crate::shell_output::{Mark, ShellOutput, watch_stderr, watch_stdout, watch_to_end};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use landfall_core::transport::RemoteChild;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit of sudo: it asks PAM, which may ask a directory server; two minutes is sshd's default LoginGraceTime.
const SUDO_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait for the end of standard error of a command that has ended; a background process may keep it open for ever.
const STDERR_TIMEOUT: Duration = Duration::from_secs(5);
/// Most output of a login shell that an error shows, in characters.
const MAX_OUTPUT_CHARS: usize = 2000;

/// sudo and doas run with `LC_ALL=C`, because their refusals are known by their English sentences. The command gets the login's own value back,
/// which is its first argument; sudo passes `LC_ALL` on, also where it resets the environment (sudoers(5), env_check).
const RESTORE_LOCALE: &str = "if [ -n \"$1\" ]; then LC_ALL=$1; export LC_ALL; else unset LC_ALL; fi\nset --";

/// Holds the pipes of a command whose sudo has a terminal in another session. `cat`s lead from this session's streams to them, because sshd gives sockets,
/// which no other process can open. The process whose number is said holds their other ends until the other session has opened them, by `/proc`, or until
/// this session's input ends. Its sleep is in a subshell, because dash redirects its own streams for a simple command. What the shells say about processes
/// that were ended is discarded. When the command has ended, nothing waits for more input.
const HOLD_PIPES: &str = r#"exec 3<&0 4>&1 5>&2 2>/dev/null
sh -c 'echo $$; exec cat' <&3 4>&- 5>&- | {
read -r input
{ input=$input sh -c 'echo "PIPES $$" >&4; exec 3<&- 4>&- 5>&- 6>&-
while kill -0 "$input"; do (exec sleep 1 </dev/null >/dev/null 2>&1); done' 2>&1 >&6 | cat >&5 3<&- 6>&-; } 6>&1 | cat >&4
kill "$input"
}"#;

/// Who runs a command.
pub enum RunAs<'a> {
    /// The login user.
    LoginUser,
    /// root, through sudo or doas.
    Root(Root<'a>),
}

/// How root is reached.
pub struct Root<'a> {
    /// The password for sudo or doas.
    pub password: Option<&'a Secret>,
    /// What an earlier command has shown: where it is there, the next one begins with it.
    pub terminal: &'a mut Terminal,
}

/// Whether a session has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    Without,
    With,
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

/// Markers that the scripts print at known places. They are random, so that no other output contains them.
struct Markers {
    shell: String,
    ready: String,
    prompt: String,
    none: String,
    pipes: String,
    no_terminal: String,
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
            pipes: mark("pipes"),
            no_terminal: mark("no-terminal"),
        })
    }

    fn login_script(&self, command: &str) -> String {
        format!("echo {}\n{command}", self.ready)
    }

    /// sudo reads the password from standard input, and doas must need none.
    fn root_script(&self, command: &str) -> String {
        let Self { shell, prompt, .. } = self;
        let become_root = self.become_root(command, &format!("sudo -k -S -p {prompt}"), "doas -n");
        format!("echo {shell}\nprintf %s {shell} >&2\n{become_root}")
    }

    /// Holds the pipes for [`Self::terminal_script`].
    fn pipes_script(&self) -> String {
        HOLD_PIPES.replace("PIPES", &self.pipes)
    }

    /// sudo or doas asks on the session's terminal, which passes each byte of the password on and shows none. The shell stays, because a terminal that
    /// no process has open is at its end, and sudo opens it only to ask. The end of the terminal is not the command's: its input ends with the connection,
    /// as without a terminal. A signal that ended the command ends the shell.
    fn terminal_script(&self, command: &str, holder: u32) -> String {
        let Self {
            shell,
            prompt,
            no_terminal,
            ..
        } = self;
        let become_root = self.become_root(command, &format!("sudo -k -p {prompt}"), "doas");
        let pipe = |number: u32| format!("/proc/{holder}/fd/{number}");
        format!(
            "trap '' HUP\nunset TERM\nif ! {{ [ -t 0 ] && stty raw -echo; }}; then echo {no_terminal}; exit; fi\nprintf %s {shell}\n\
             ( kill {holder}\n{become_root}\n) <{} >{} 2>{}\n\
             status=$?\n[ $status -le 128 ] || [ $status -gt 192 ] || kill -KILL $$\nexit $status",
            pipe(0),
            pipe(1),
            pipe(2)
        )
    }

    fn become_root(&self, command: &str, sudo: &str, doas: &str) -> String {
        let Self { ready, none, .. } = self;
        let inner = quote(&format!("{RESTORE_LOCALE}\necho {ready}\n{command}"));
        // sudo's `-k`: a login that sudo remembers must not decide whether it asks for the password.
        format!(
            "locale=${{LC_ALL-}}\nLC_ALL=C\nexport LC_ALL\n\
             if command -v sudo >/dev/null 2>&1; then exec {sudo} -- sh -c {inner} sh \"$locale\"\n\
             elif command -v doas >/dev/null 2>&1; then exec {doas} sh -c {inner} sh \"$locale\"\nfi\necho {none}"
        )
    }
}

/// Something that starts command lines for a login shell.
pub trait Shell {
    /// Starts one. Blocks until the far end accepted it. On a terminal, standard error is part of standard output, and the end of standard input hangs up.
    fn spawn(&mut self, line: &str, terminal: Terminal) -> Result<RemoteChild, Diagnosis>;
}

/// Starts `command` (a script for `sh`). Blocks until it runs: for `shell_timeout` until the login shell runs it, then for two minutes while
/// sudo asks; and once more for both where sudo or doas turns out to want a terminal.
pub fn start(
    shell: &mut dyn Shell,
    command: &str,
    who: RunAs<'_>,
    shell_timeout: Duration,
) -> Result<RemoteChild, Diagnosis> {
    let waiting = || Startup::new(shell_timeout);
    let root = match who {
        RunAs::LoginUser => {
            let startup = waiting()?;
            let script = startup.markers.login_script(command);
            return startup.start(shell, &script, None).map_err(Failure::diagnosis);
        }
        RunAs::Root(root) => root,
    };
    if *root.terminal == Terminal::Without {
        let startup = waiting()?;
        let script = startup.markers.root_script(command);
        match startup.start(shell, &script, root.password) {
            Err(Failure::Refused { words, .. }) if refusal::wants_terminal(&words, root.password.is_some()) => {
                *root.terminal = Terminal::With;
            }
            started => return started.map_err(Failure::diagnosis),
        }
    }
    waiting()?
        .start_on_terminal(shell, command, root.password)
        .map_err(Failure::diagnosis)
}

/// Why no command runs.
enum Failure {
    /// sudo or doas ended.
    Refused {
        words: String,
        was_answered: bool,
    },
    Other(Diagnosis),
}

impl Failure {
    fn diagnosis(self) -> Diagnosis {
        match self {
            Self::Refused { words, was_answered } => refusal::diagnosis(&words, was_answered),
            Self::Other(diagnosis) => diagnosis,
        }
    }
}

impl From<Diagnosis> for Failure {
    fn from(diagnosis: Diagnosis) -> Self {
        Self::Other(diagnosis)
    }
}

struct Startup {
    sender: Sender<ShellOutput>,
    seen: Receiver<ShellOutput>,
    markers: Markers,
    shell_timeout: Duration,
    until: Instant,
    shell_runs: bool,
    /// Whether the password was sent.
    asked: bool,
    /// Whether the terminal's session has ended.
    ended: bool,
    /// How many outputs have not ended, standard output apart.
    open: usize,
    output: String,
    errors: String,
}

impl Startup {
    fn new(shell_timeout: Duration) -> Result<Self, Diagnosis> {
        let (sender, seen) = channel();
        Ok(Self {
            sender,
            seen,
            markers: Markers::new()?,
            shell_timeout,
            until: Instant::now() + shell_timeout,
            shell_runs: false,
            asked: false,
            ended: false,
            open: 0,
            output: String::new(),
            errors: String::new(),
        })
    }

    /// Starts one session, whose standard input takes the password.
    fn start(mut self, shell: &mut dyn Shell, script: &str, password: Option<&Secret>) -> Result<RemoteChild, Failure> {
        let (mut child, stdout) = self.spawn(shell, script)?;
        self.await_ready(&mut child.stdin, password)?;
        child.stdout = join(stdout)?;
        Ok(child)
    }

    /// Starts the session of the command's streams, and then the one with the terminal, which takes the password.
    fn start_on_terminal(
        mut self,
        shell: &mut dyn Shell,
        command: &str,
        password: Option<&Secret>,
    ) -> Result<RemoteChild, Failure> {
        let (mut child, stdout) = self.spawn(shell, &self.markers.pipes_script())?;
        let holder = self.await_pipes()?;
        let line = encode(&self.markers.terminal_script(command, holder));
        let mut terminal = shell.spawn(&line, Terminal::With)?;
        self.until = Instant::now() + self.shell_timeout;
        self.open += 2;
        let Markers {
            shell: runs,
            no_terminal,
            prompt,
            ..
        } = &self.markers;
        let marks = vec![
            (Mark::Word(runs.clone()), ShellOutput::TerminalRuns),
            (Mark::Word(no_terminal.clone()), ShellOutput::NoTerminal),
            (Mark::Word(prompt.clone()), ShellOutput::Prompt),
            (Mark::DoasPrompt, ShellOutput::DoasPrompt),
        ];
        let open = watch_to_end(terminal.stdout, marks, ShellOutput::TerminalEnded, self.sender.clone());
        // Words of the user's own ssh.
        watch_to_end(terminal.stderr, vec![], ShellOutput::ErrorsEnded, self.sender.clone());
        self.await_ready(&mut terminal.stdin, password)?;
        child.stdout = join(stdout)?;
        child.exit = terminal.exit;
        // Nobody takes it where the terminal has ended by itself.
        let _ = open.send(terminal.stdin);
        Ok(child)
    }

    /// Starts a session without a terminal. Its standard output is watched until the command runs, its standard error as long as it runs.
    fn spawn(&mut self, shell: &mut dyn Shell, script: &str) -> Result<(RemoteChild, Watched), Diagnosis> {
        let child = shell.spawn(&encode(script), Terminal::Without)?;
        let Markers {
            shell, ready, prompt, ..
        } = &self.markers;
        let stdout = watch_stdout(child.stdout, ready.clone(), self.sender.clone());
        let marks = vec![
            (Mark::Word(shell.clone()), ShellOutput::ErrorsOfSudo),
            (Mark::Word(prompt.clone()), ShellOutput::Prompt),
        ];
        self.open += 1;
        let stderr = watch_stderr(child.stderr, marks, self.sender.clone());
        let child = RemoteChild {
            stdin: child.stdin,
            stdout: Box::new(std::io::empty()),
            stderr,
            exit: child.exit,
        };
        Ok((child, stdout))
    }

    /// Waits for the next event, until the limit.
    fn next(&self) -> Option<ShellOutput> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.seen.recv_timeout(left).ok()
    }

    /// Waits for the session that holds the pipes, and returns the number of its process.
    fn await_pipes(&mut self) -> Result<u32, Diagnosis> {
        loop {
            match self.next() {
                Some(ShellOutput::Line(line)) => match line.split_once(&self.markers.pipes) {
                    Some((_, number)) => {
                        let parsed = number.trim().parse();
                        return parsed.map_err(|_| self.no_shell());
                    }
                    None => collect(&mut self.output, &(line + "\n")),
                },
                Some(ShellOutput::Words(text)) => collect(&mut self.output, &text),
                Some(ShellOutput::Errors(text)) => collect(&mut self.errors, &text),
                Some(ShellOutput::OutputEnded) => {
                    self.collect_rest();
                    return Err(self.no_shell());
                }
                Some(_) => {}
                None => return Err(self.stuck_shell()),
            }
        }
    }

    fn await_ready(&mut self, stdin: &mut Box<dyn Write + Send>, password: Option<&Secret>) -> Result<(), Failure> {
        loop {
            match self.next() {
                Some(ShellOutput::Line(line)) if line.ends_with(&self.markers.ready) => return Ok(()),
                Some(ShellOutput::Line(line)) if line.ends_with(&self.markers.shell) => {
                    self.sudo_begins();
                    self.output.clear();
                }
                Some(ShellOutput::Line(line)) if line.ends_with(&self.markers.none) => {
                    return Err(Diagnosis::new(
                        Code::SudoRefused,
                        "the machine has neither sudo nor doas, and the login user is not root",
                    )
                    .next("install sudo, or log in as root")
                    .into());
                }
                Some(ShellOutput::Line(line)) => collect(&mut self.output, &(line + "\n")),
                Some(ShellOutput::Words(text)) => collect(&mut self.output, &text),
                Some(ShellOutput::Errors(text)) => collect(&mut self.errors, &text),
                Some(ShellOutput::ErrorsOfSudo) => self.errors.clear(),
                Some(ShellOutput::TerminalRuns) => {
                    self.sudo_begins();
                    self.output.clear();
                    self.errors.clear();
                }
                Some(ShellOutput::NoTerminal) => return Err(refusal::no_terminal(&self.words()).into()),
                Some(ShellOutput::Prompt) => self.answer(stdin, password)?,
                Some(ShellOutput::DoasPrompt) if self.shell_runs => self.answer(stdin, password)?,
                // It is no random word, so a profile may have printed it.
                Some(ShellOutput::DoasPrompt) => {}
                Some(ShellOutput::ErrorsEnded) => self.open -= 1,
                Some(ShellOutput::TerminalEnded) => {
                    self.open -= 1;
                    // What the command wrote in a short life may still be on its way.
                    self.until = self.until.min(Instant::now() + STDERR_TIMEOUT);
                    self.ended = true;
                }
                Some(ShellOutput::OutputEnded) => {
                    self.collect_rest();
                    return Err(self.refused());
                }
                None if self.ended => return Err(self.refused()),
                None if self.shell_runs => {
                    return Err(
                        Diagnosis::new(Code::SudoRefused, "sudo or doas did not answer within 2 minutes")
                            .saw(self.words())
                            .into(),
                    );
                }
                None => return Err(self.stuck_shell().into()),
            }
        }
    }

    fn sudo_begins(&mut self) {
        self.shell_runs = true;
        self.until = Instant::now() + SUDO_TIMEOUT;
    }

    /// Says why nothing runs when all has ended.
    fn refused(&self) -> Failure {
        if self.shell_runs {
            Failure::Refused {
                words: self.words(),
                was_answered: self.asked,
            }
        } else {
            self.no_shell().into()
        }
    }

    /// Reads the rest of standard error and of the terminal, which may arrive after standard output has ended.
    fn collect_rest(&mut self) {
        self.until = Instant::now() + STDERR_TIMEOUT;
        while self.open > 0 {
            match self.next() {
                Some(ShellOutput::Errors(text)) => collect(&mut self.errors, &text),
                Some(ShellOutput::ErrorsOfSudo) => self.errors.clear(),
                Some(ShellOutput::ErrorsEnded | ShellOutput::TerminalEnded) => self.open -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Returns what the shell, and then sudo, said on both outputs.
    fn words(&self) -> String {
        format!("{}{}", self.output, self.errors).trim().to_owned()
    }

    fn answer(&mut self, stdin: &mut Box<dyn Write + Send>, password: Option<&Secret>) -> Result<(), Diagnosis> {
        if self.asked {
            return Err(refusal::wrong_password("sudo"));
        }
        let Some(password) = password else {
            return Err(refusal::no_password("sudo"));
        };
        self.asked = true;
        let line = zeroize::Zeroizing::new([password.expose(), b"\n"].concat());
        stdin
            .write_all(&line)
            .and_then(|()| stdin.flush())
            .map_err(|e| Diagnosis::new(Code::SudoRefused, "sudo does not read the password").because(&e))
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

/// Standard output on its way to the caller.
type Watched = thread::JoinHandle<Box<dyn Read + Send>>;

fn join(stdout: Watched) -> Result<Box<dyn Read + Send>, Diagnosis> {
    stdout
        .join()
        .map_err(|_| Diagnosis::new(Code::Internal, "a watching thread panicked"))
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
        fn spawn(&mut self, line: &str, _: Terminal) -> Result<RemoteChild, Diagnosis> {
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

    fn as_root(shell: &mut dyn Shell, command: &str) -> Result<RemoteChild, Diagnosis> {
        let root = Root {
            password: None,
            terminal: &mut Terminal::Without,
        };
        start(shell, command, RunAs::Root(root), Duration::from_secs(20))
    }

    #[test]
    fn words_of_sudo_that_overtake_standard_output_are_kept() {
        let mut shell = LateOutput::with_sudo("echo 'ann is not in the sudoers file.' >&2\nexit 1");
        let error = as_root(&mut shell, "true").err().unwrap();
        assert_eq!(error.what, "the login user may not use sudo", "{error:?}");
        assert_eq!(error.saw, ["ann is not in the sudoers file."]);
    }

    #[test]
    fn sudo_speaks_english_whatever_the_locale_of_the_login() {
        let mut shell = LateOutput::with_sudo(
            "case $LC_ALL in\nC) echo 'posix is not in the sudoers file.' >&2 ;;\n*) echo 'posix no está en el archivo sudoers.' >&2 ;;\nesac\nexit 1",
        );
        for locale in [None, Some("es_ES.UTF-8")] {
            shell.locale = locale;
            let error = as_root(&mut shell, "true").err().unwrap();
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
            let mut child = as_root(&mut shell, command).unwrap();
            let mut text = String::new();
            child.stdout.read_to_string(&mut text).unwrap();
            assert_eq!(text, told);
        }
    }
}
