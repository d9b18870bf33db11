//! Programs that the agent runs: each in a process group of its own, with a deadline, its output kept and redacted, and a mark in its
//! environment by which a later agent finds what a killed one left running.

use crate::error::{AgentError, Result};
use crate::host::Host;
use crate::processes::{self, own_pids};
use crate::redact::Redactor;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Environment variable that marks our children and everything they start themselves.
const MARK: &str = "LANDFALL_CHILD";
/// How often a wait checks whether the session ends.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Once the program has ended, its output is over when nothing came for so long: a daemon that kept the pipe open never closes it. Threads
/// of a busy machine may wait for a second until they run (seen 2026-11-28: 500 ms were too short with 70 processes for each processor).
const OUTPUT_GRACE: Duration = Duration::from_secs(5);
/// Lines kept of each program's output.
const TAIL_LINES: usize = 40;
/// Most standard output that is kept whole; what we ask for is far smaller.
const MAX_STDOUT: usize = 16 * 1024 * 1024;

/// Children that run now, so that the end of the session ends them.
#[derive(Debug, Default)]
pub struct Children {
    groups: Mutex<BTreeSet<i32>>,
    stopping: AtomicBool,
}

/// What a child reads.
pub enum Input<'a> {
    /// Nothing.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// Whatever this function writes.
    Feed(Box<dyn FnOnce(ChildStdin) -> Result<()> + Send + 'a>),
}

/// A program to run.
pub struct Job<'a> {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additional environment.
    pub env: &'a [(String, String)],
    /// When it is killed.
    pub deadline: Instant,
    /// What it reads.
    pub input: Input<'a>,
    /// Takes every line of output, redacted, while it runs.
    pub on_line: Option<&'a dyn Fn(&str)>,
    /// Whether standard output is a secret: then it is kept out of lines and tail.
    pub secret_stdout: bool,
}

impl<'a> Job<'a> {
    /// A program without input and without events, with a deadline in `seconds`.
    pub fn quick(argv: &[&str], seconds: u64) -> Job<'a> {
        Job {
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            env: &[],
            deadline: Instant::now() + Duration::from_secs(seconds),
            input: Input::Nothing,
            on_line: None,
            secret_stdout: false,
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Whole standard output.
    pub stdout: Vec<u8>,
    /// Whole standard error, redacted.
    pub stderr: String,
    /// Last lines of both, redacted.
    pub tail: Vec<String>,
}

impl Output {
    /// Returns standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

enum ChildEvent {
    Line { from_stdout: bool, text: String },
    Stdout(Vec<u8>),
    Closed,
    Exited(std::io::Result<()>),
}

/// What a program said until its end.
struct Said {
    stdout: Vec<u8>,
    stderr: String,
    tail: Vec<String>,
}

impl Children {
    /// Ends all children and refuses new ones.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for group in self.groups.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            kill_group(*group);
        }
    }

    /// Says whether the session ends.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Sleeps; returns an error at once when the session ends.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        loop {
            if self.is_stopping() {
                return Err(AgentError::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Runs a program; a status other than 0 is an error that holds the end of its output. Blocks until its deadline at most.
    pub fn run(&self, host: &Host, job: Job) -> Result<Output> {
        let program = job.argv.join(" ");
        let output = self.run_any(host, job)?;
        if output.status.success() {
            return Ok(output);
        }
        let status = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        Err(AgentError::Program {
            program,
            status,
            tail: output.tail,
        })
    }

    /// Runs a program and returns how it ended, whatever that was. Blocks until its deadline at most.
    pub fn run_any(&self, host: &Host, job: Job) -> Result<Output> {
        let name = job.argv.first().cloned().unwrap_or_default();
        let path = host.program(&name)?;
        let mut command = command(host, &path, &job)?;
        let mut child = {
            // Held over the spawn, so that `stop` either sees the child or keeps it from starting.
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_stopping() {
                return Err(AgentError::Stopped);
            }
            let child = command.spawn().map_err(|source| AgentError::Io {
                what: "starting",
                path,
                source,
            })?;
            groups.insert(child.id() as i32);
            child
        };
        let group = child.id() as i32;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (tell, events) = channel();
        if let Some(stdout) = stdout {
            read_lines(stdout, true, tell.clone());
        }
        if let Some(stderr) = stderr {
            read_lines(stderr, false, tell.clone());
        }
        thread::spawn(move || {
            // The receiver is gone when the deadline passed.
            let _ = tell.send(ChildEvent::Exited(await_exit(group)));
        });
        let (said, fed) = thread::scope(|scope| {
            let feeder = stdin.map(|stdin| {
                let input = job.input;
                scope.spawn(move || match input {
                    Input::Nothing => Ok(()),
                    Input::Bytes(bytes) => {
                        // A program that does not read its input ends early; its status says what that means.
                        let _ = std::io::Write::write_all(&mut { stdin }, bytes);
                        Ok(())
                    }
                    Input::Feed(feed) => feed(stdin),
                })
            });
            let said = self.follow(&events, group, &job.argv, job.deadline, job.on_line, job.secret_stdout);
            if said.is_err() {
                kill_group(group);
            }
            let fed = feeder.map(|f| f.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            (said, fed)
        });
        // Its leader is collected last: until then the group's number is nobody else's.
        self.groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&group);
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                // One that a disk holds does not end at once.
                thread::spawn(move || child.wait());
                return Err(error);
            }
        };
        let status = child.wait().map_err(not_awaited(&job.argv))?;
        match fed {
            // A program that failed has closed its input; its own output is the better error.
            Some(Err(error)) if status.success() => Err(error),
            _ => Ok(Output {
                status,
                stdout: said.stdout,
                stderr: said.stderr,
                tail: said.tail,
            }),
        }
    }

    fn follow(
        &self,
        events: &Receiver<ChildEvent>,
        group: i32,
        argv: &[String],
        deadline: Instant,
        on_line: Option<&dyn Fn(&str)>,
        secret_stdout: bool,
    ) -> Result<Said> {
        let began = Instant::now();
        let (mut redact_out, mut redact_err) = (Redactor::default(), Redactor::default());
        let mut tail: VecDeque<String> = VecDeque::new();
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        let (mut open, mut ended) = (2, false);
        let (mut heard, mut is_over) = (began, false);
        loop {
            if ended && (open == 0 || is_over) {
                if open > 0 {
                    kill_group(group);
                }
                return Ok(Said {
                    stdout,
                    stderr,
                    tail: tail.into(),
                });
            }
            let event = events.recv_timeout(LOOK_EVERY);
            // Lines that were said and not taken yet do not count as silence, however long taking one lasts.
            match &event {
                Ok(_) => (heard, is_over) = (Instant::now(), false),
                Err(_) => is_over = heard.elapsed() > OUTPUT_GRACE,
            }
            is_over |= Instant::now() >= deadline + OUTPUT_GRACE;
            match event {
                Ok(ChildEvent::Line { from_stdout, text }) => {
                    if from_stdout && secret_stdout {
                        continue;
                    }
                    let redactor = if from_stdout { &mut redact_out } else { &mut redact_err };
                    let Some(text) = redactor.line(&text) else { continue };
                    if !from_stdout && stderr.len() < MAX_STDOUT {
                        stderr.push_str(&text);
                        stderr.push('\n');
                    }
                    if let Some(on_line) = on_line {
                        on_line(&text);
                    }
                    if tail.len() == TAIL_LINES {
                        tail.pop_front();
                    }
                    tail.push_back(text);
                }
                Ok(ChildEvent::Stdout(bytes)) => stdout = bytes,
                Ok(ChildEvent::Closed) => open -= 1,
                Ok(ChildEvent::Exited(exited)) => {
                    exited.map_err(not_awaited(argv))?;
                    ended = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
            }
            if self.is_stopping() {
                return Err(AgentError::Stopped);
            }
            if !ended && Instant::now() >= deadline {
                let what = format!("the end of {}", argv.join(" "));
                return Err(AgentError::Deadline {
                    what,
                    seconds: began.elapsed().as_secs(),
                    seen: tail.into(),
                });
            }
        }
    }
}

/// The command of a job, in a process group of its own, with the agent's mark and none of its environment.
fn command(host: &Host, path: &Path, job: &Job) -> Result<Command> {
    let mut command = Command::new(path);
    command
        .args(&job.argv[1..])
        .env_clear()
        .env("PATH", host.search_path())
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env(MARK, own_mark()?)
        .envs(job.env.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .process_group(0)
        .stdin(if matches!(job.input, Input::Nothing) {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

fn read_lines(pipe: impl Read + Send + 'static, from_stdout: bool, tell: Sender<ChildEvent>) {
    thread::spawn(move || {
        let mut reader = BufReader::with_capacity(32 * 1024, pipe);
        let mut whole = Vec::new();
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            if from_stdout && whole.len() < MAX_STDOUT {
                whole.extend_from_slice(&line);
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if tell.send(ChildEvent::Line { from_stdout, text }).is_err() {
                return;
            }
        }
        if from_stdout {
            let _ = tell.send(ChildEvent::Stdout(whole));
        }
        let _ = tell.send(ChildEvent::Closed);
    });
}

/// Blocks until a child has ended, and leaves it to be collected.
fn await_exit(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(Errno::INTR) => {}
            ended => return Ok(ended.map(drop)?),
        }
    }
}

fn not_awaited(argv: &[String]) -> impl FnOnce(io::Error) -> AgentError {
    let what = format!("waiting for {}", argv[0]);
    move |source| AgentError::Kernel { what, source }
}

/// Kills a child's group, whose leader was not collected yet: afterwards another group may have its number.
fn kill_group(group: i32) {
    if let Some(pid) = Pid::from_raw(group) {
        // Already exited.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Identifies a process by its id and start time; the id alone may be used again. `None` when there is no such process; that it cannot be
/// looked at is an error.
fn mark_of(pid: &str) -> io::Result<Option<String>> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => String::from_utf8_lossy(&stat).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The second field is the program's name in brackets, which may itself hold blanks; the start is the 22nd.
    let start = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19));
    let start = start.ok_or_else(|| io::Error::other("its state has no start time"))?;
    Ok(Some(format!("{pid}-{start}")))
}

/// What a read says when the process ended after its file was opened.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A child without a right mark would be ended by the next agent.
fn own_mark() -> Result<String> {
    let mark = mark_of(&std::process::id().to_string());
    let mark = mark.and_then(|mark| mark.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)));
    mark.map_err(|source| AgentError::Kernel {
        what: "looking at the agent's own process".to_owned(),
        source,
    })
}

/// Ends processes that agents left running which have exited since, and waits for their end. Returns a line for each process that does not
/// go. A process whose agent cannot be looked at is left alone.
pub fn end_orphans() -> Vec<String> {
    processes::end(|| {
        let is_orphan = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let value = |pair: &[u8]| Some(pair.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?.to_vec());
            let Some(mark) = environment.split(|b| *b == 0).find_map(value) else {
                return false;
            };
            let mark = String::from_utf8_lossy(&mark).into_owned();
            let Some((agent, _)) = mark.split_once('-') else {
                return false;
            };
            mark_of(agent).is_ok_and(|found| found.as_ref() != Some(&mark))
        };
        own_pids().into_iter().filter(is_orphan).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_redacted() {
        let children = Children::default();
        let script = "echo visible; echo token: hidden >&2; exit 3";
        let output = children
            .run_any(&Host::real(), Job::quick(&["sh", "-c", script], 10))
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.text(), "visible\n");
        assert!(
            output.tail.iter().any(|l| l == "token: <redacted>"),
            "{:?}",
            output.tail
        );
    }

    #[test]
    fn a_child_that_has_ended_keeps_its_number_until_it_is_collected() {
        let mut child = Command::new("sh").args(["-c", "exit 4"]).spawn().unwrap();
        let pid = child.id();
        await_exit(pid as i32).unwrap();
        assert!(mark_of(&pid.to_string()).unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(4));
    }

    /// Seen on a busy machine: `systemctl show` had said its lines, and the unit counted as not there.
    #[test]
    fn output_that_is_taken_slowly_is_whole() {
        let slow = |_: &str| thread::sleep(Duration::from_millis(15));
        let job = Job {
            on_line: Some(&slow),
            ..Job::quick(&["seq", "100"], 30)
        };
        let output = Children::default().run(&Host::real(), job).unwrap();
        assert_eq!(output.text().lines().count(), 100);
    }

    /// Seen in the simulation: a probe that had been silent for longer than the grace counted as one without output.
    #[test]
    fn output_after_a_long_silence_is_whole() {
        for _ in 0..4 {
            let job = Job::quick(&["sh", "-c", "sleep 5.5; seq 2000"], 60);
            let output = Children::default().run(&Host::real(), job).unwrap();
            assert_eq!(output.text().lines().count(), 2000);
        }
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_is_not_waited_for() {
        let began = Instant::now();
        let job = Job::quick(&["sh", "-c", "echo said; setsid sleep 30 &"], 60);
        let output = Children::default().run(&Host::real(), job).unwrap();
        assert_eq!(output.tail, ["said"]);
        assert!(began.elapsed() < Duration::from_secs(29), "the daemon sleeps for 30 s");
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let children = Children::default();
        let began = Instant::now();
        let error = children
            .run(&Host::real(), Job::quick(&["sh", "-c", "sleep 60 & sleep 60"], 1))
            .unwrap_err();
        assert!(matches!(error, AgentError::Deadline { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(50), "the children sleep for 60 s");
    }

    #[test]
    fn input_is_fed_while_output_is_read() {
        let children = Children::default();
        let bytes = vec![b'x'; 3 * 1024 * 1024];
        let job = Job {
            input: Input::Bytes(&bytes),
            ..Job::quick(&["wc", "-c"], 20)
        };
        assert_eq!(
            children.run(&Host::real(), job).unwrap().text().trim(),
            bytes.len().to_string()
        );
    }
}
