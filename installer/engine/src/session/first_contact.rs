//! First contact with a machine: shell commands start the agent, and upload its program where it is not there. A login by the user's own ssh has one more.

use super::last_lines::LastLines;
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::preflight::fapolicyd_rules;
use landfall_core::transport::{RemoteChild, Transport};
use landfall_core::wire::AGENT_BANNER;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes a second that a line has at least, where the agent is uploaded: 128 kbit/s.
const SLOWEST_LINE: u64 = 16 * 1024;

/// The clock of the first contact with a machine. Each of its steps has the whole limit: the login, each command (its login shell and sudo together), the
/// upload. A machine that is slow in all of them is not dead.
#[derive(Debug)]
pub struct ContactClock(Mutex<ContactStep>);

/// What the first contact waits for.
#[derive(Debug, Clone, Copy)]
struct ContactStep {
    what: &'static str,
    began: Instant,
    /// What an upload over a slow line takes. (A dead line is noticed by SSH's own keepalives.)
    allowance: Duration,
}

impl Default for ContactClock {
    fn default() -> Self {
        Self(Mutex::new(ContactStep::now("the login")))
    }
}

impl ContactStep {
    fn now(what: &'static str) -> Self {
        Self {
            what,
            began: Instant::now(),
            allowance: Duration::ZERO,
        }
    }
}

impl ContactClock {
    /// Says that a step begins.
    fn begin(&self, what: &'static str) {
        *self.step() = ContactStep::now(what);
    }

    /// Says that an upload of so many bytes begins.
    fn begin_upload(&self, bytes: u64) {
        let allowance = Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST_LINE);
        *self.step() = ContactStep {
            allowance,
            ..ContactStep::now("the upload of the agent")
        };
    }

    fn step(&self) -> MutexGuard<'_, ContactStep> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long the present step may still take, of a limit for each.
    pub fn left(&self, limit: Duration) -> Duration {
        let step = *self.step();
        (limit + step.allowance).saturating_sub(step.began.elapsed())
    }

    /// Returns the present step, in words, and how long it has taken so far.
    pub fn present(&self) -> (&'static str, Duration) {
        let step = *self.step();
        (step.what, step.began.elapsed())
    }
}

/// Most output of a shell command that is read, in bytes; a command answers with one line.
const MAX_SHELL_OUTPUT: u64 = 64 * 1024;

/// An agent that has said its first line.
pub(super) struct RunningAgent {
    pub stdin: Box<dyn Write + Send>,
    /// What it answers.
    pub stdout: BufReader<Box<dyn Read + Send>>,
    pub errors: LastLines,
}

impl RunningAgent {
    /// Waits for the first line of an agent that a command starts; what the command said instead is an error. Blocks until either.
    fn greet(mut child: RemoteChild) -> Result<Self, NoAgent> {
        let errors = LastLines::of(child.stderr);
        let mut stdout = BufReader::with_capacity(256 * 1024, child.stdout);
        match await_banner(&mut stdout) {
            Ok(()) => Ok(Self {
                stdin: child.stdin,
                stdout,
                errors,
            }),
            Err(said) => {
                let is_cut_off = said == NO_OUTPUT && child.exit.wait().is_none();
                Err(NoAgent {
                    said,
                    errors,
                    is_cut_off,
                })
            }
        }
    }
}

/// A command that started no agent.
struct NoAgent {
    said: String,
    errors: LastLines,
    /// Whether it ended without a word and without an exit status, as with the connection.
    is_cut_off: bool,
}

impl NoAgent {
    fn diagnosis(self, node: &Node) -> Diagnosis {
        // Standard error may arrive after standard output has ended.
        thread::sleep(Duration::from_millis(100));
        if self.is_cut_off {
            let lost = cut_off(node, "the command that starts the agent was cut off");
            return self.errors.lines().into_iter().fold(lost, Diagnosis::saw);
        }
        let diagnosis = Diagnosis::new(Code::AgentStart, "the agent did not start")
            .on(&node.name)
            .saw(self.said);
        let diagnosis = self.errors.lines().into_iter().fold(diagnosis, Diagnosis::saw);
        diagnosis
            .next(format!(
                "log in to the node and look whether {} may hold programs",
                layout::STATE_DIR
            ))
            .next(format!(
                "where fapolicyd runs (`systemctl status fapolicyd`), put these lines into /etc/fapolicyd/rules.d/30-landfall.rules and run \
                 `fagenrules --load`:\n{}",
                fapolicyd_rules().join("\n")
            ))
    }
}

/// The step in which a login shell, sudo where there is one, and the agent start.
const STARTS: &str = "the command that starts the agent";

/// What is said of a command that has ended without output.
const NO_OUTPUT: &str = "no output";

/// The error of a command whose end the node did not report: a signal, or the end of the connection.
fn cut_off(node: &Node, what: &str) -> Diagnosis {
    Diagnosis::new(Code::ConnectionLost, what)
        .on(&node.name)
        .next("look whether the node is up, then run the same command again: it continues where it stopped")
}

/// Skips the output of the login shell until the agent's first line. More than 64 KiB of it is an error.
fn await_banner(stdout: &mut impl BufRead) -> Result<(), String> {
    let mut seen = String::new();
    while seen.len() < 64 * 1024 {
        let mut line = Vec::new();
        match stdout.take(MAX_SHELL_OUTPUT).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with(AGENT_BANNER) {
            return Ok(());
        }
        seen.push_str(&line);
    }
    Err(if seen.is_empty() {
        NO_OUTPUT.to_owned()
    } else {
        seen.trim_end().to_owned()
    })
}

/// Runs a shell command whose standard input `feed` writes, and returns its standard output. Another exit status than 0 is an error. Blocks until the
/// command ends.
fn shell(
    node: &Node,
    what: &str,
    child: Result<RemoteChild, Diagnosis>,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<String, Diagnosis> {
    let RemoteChild {
        mut stdin,
        stdout,
        stderr,
        mut exit,
    } = child.map_err(|d| d.on(&node.name))?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.take(MAX_SHELL_OUTPUT).read_to_string(&mut text);
        text
    });
    // A command that ends early closes its input; its exit status and output tell more than the broken pipe.
    let _ = feed(&mut stdin);
    drop(stdin);
    let mut text = String::new();
    let _ = stdout.take(MAX_SHELL_OUTPUT).read_to_string(&mut text);
    let status = exit.wait();
    let errors = errors.join().unwrap_or_default();
    let refused = match status {
        Some(0) => return Ok(text),
        Some(status) => Diagnosis::new(Code::AgentStart, what)
            .on(&node.name)
            .saw(format!("exit status {status}")),
        None => cut_off(node, what).saw("the command was cut off"),
    };
    Err(refused.saw(errors.trim().to_owned()))
}

/// Starts the agent of a member as root, by one command where the same program is there, and puts it there otherwise. Blocks for the upload, and for
/// the login shell and sudo.
pub(super) fn start_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
    clock: &ContactClock,
) -> Result<RunningAgent, Diagnosis> {
    clock.begin(STARTS);
    let line = start_checked_line(layout::STATE_DIR, &program.digest().hex());
    let child = transport.spawn_root(&line).map_err(|d| d.on(&node.name))?;
    let no_agent = match RunningAgent::greet(child) {
        Ok(agent) => return Ok(agent),
        Err(no_agent) => no_agent,
    };
    let Some(absent) = Absent::parse(&no_agent.said) else {
        return Err(no_agent.diagnosis(node));
    };
    put_program(node, transport, program, absent, clock)?;
    clock.begin(STARTS);
    await_agent(node, transport.spawn_root(&serve_line(layout::STATE_DIR)))
}

/// Waits for the first line of an agent whose program is there. Blocks like [`RunningAgent::greet`].
fn await_agent(node: &Node, child: Result<RemoteChild, Diagnosis>) -> Result<RunningAgent, Diagnosis> {
    let child = child.map_err(|d| d.on(&node.name))?;
    RunningAgent::greet(child).map_err(|no_agent| no_agent.diagnosis(node))
}

/// How a node unpacks what it gets: gzip, which all but the smallest systems have; `cat` where the program has to come as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unpack {
    Gzip,
    Cat,
}

impl Unpack {
    /// The program's name, which the name of an unfinished upload has too.
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Cat => "cat",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -dc",
            Self::Cat => "cat",
        }
    }

    /// Returns what the node gets.
    fn open(self, program: &AgentProgram) -> Box<dyn Read + '_> {
        match self {
            Self::Gzip => Box::new(program.packed()),
            Self::Cat => Box::new(program.plain()),
        }
    }

    /// Returns how many bytes these are.
    fn size_bytes(self, program: &AgentProgram) -> u64 {
        // Unpacking in memory fails for no program that was packed here, and then nothing is sent either.
        io::copy(&mut self.open(program), &mut io::sink()).unwrap_or_default()
    }
}

/// What a node without the agent said: how it unpacks, and how many bytes of an unfinished upload it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Absent {
    unpack: Unpack,
    part_bytes: u64,
}

impl Absent {
    /// Reads what [`start_checked_line`] says, in which the login shell may have written too.
    fn parse(text: &str) -> Option<Self> {
        let words = text
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix("absent "))?;
        let (name, bytes) = words.trim().split_once(' ')?;
        let all = [Unpack::Gzip, Unpack::Cat];
        Some(Self {
            unpack: all.into_iter().find(|unpack| unpack.name() == name)?,
            part_bytes: bytes.trim().parse().unwrap_or(0),
        })
    }
}

/// Uploads the agent into the state directory, without its first bytes that came before a connection ended. Blocks for the upload.
fn put_program(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
    absent: Absent,
    clock: &ContactClock,
) -> Result<(), Diagnosis> {
    let Absent {
        mut unpack,
        part_bytes: mut from,
    } = absent;
    loop {
        clock.begin_upload(unpack.size_bytes(program).saturating_sub(from));
        let put = shell(
            node,
            "the agent could not be put on the node",
            transport.spawn_root(&put_line(layout::STATE_DIR, &program.digest().hex(), unpack, from)),
            |stdin| {
                let mut bytes = unpack.open(program);
                io::copy(&mut bytes.by_ref().take(from), &mut io::sink())?;
                io::copy(&mut bytes, stdin)?;
                stdin.flush()
            },
        );
        match put {
            Err(lost) if lost.code == Code::ConnectionLost => return Err(lost),
            // The part was damaged, or another operator has continued it.
            Err(_) if from > 0 => from = 0,
            // Its gzip may be one that cannot unpack.
            Err(_) if unpack == Unpack::Gzip => unpack = Unpack::Cat,
            put => return put.map(drop),
        }
    }
}

/// Returns the shell command that starts the agent.
fn serve_line(state: &str) -> String {
    format!("exec {state}/bin/landfall agent serve")
}

/// Returns the shell command that starts the agent when it has this digest, and else says that it is absent, how the node can unpack it, and how many
/// bytes of an upload are there.
fn start_checked_line(state: &str, sum: &str) -> String {
    let (gzip, cat) = (Unpack::Gzip.name(), Unpack::Cat.name());
    format!(
        "if ! {} 2>&1; then u={cat}; if command -v gzip >/dev/null 2>&1; then u={gzip}; fi; \
         echo \"absent $u $(wc -c 2>/dev/null < {state}/bin/landfall.{sum}.$u.part || echo 0)\"; exit; fi; {}",
        has_sum(sum, &format!("{state}/bin/landfall")),
        serve_line(state)
    )
}

/// Returns the shell command that succeeds when a file, a word of the shell, has this digest. It says nothing on standard output.
fn has_sum(sum: &str, file: &str) -> String {
    format!("printf '%s  %s\\n' {sum} {file} | sha256sum -c - >/dev/null")
}

/// Returns the shell command that stores the agent from standard input, to which its first `from` bytes do not come. The program is renamed into place
/// only when its hash is right. The temporary file has a random name, because two operators may upload at the same time; what came before the
/// connection ended is kept under the digest, and whoever continues it renames it first.
fn put_line(state: &str, sum: &str, unpack: Unpack, from: u64) -> String {
    let bin = format!("{state}/bin");
    let take_part = match from {
        0 => String::new(),
        from => format!("mv -f \"$k\" \"$p\" && [ \"$(wc -c < \"$p\")\" -eq {from} ] && "),
    };
    format!(
        "umask 077 && mkdir -p {bin} && p=$(mktemp {bin}/landfall.part.XXXXXX) && k={bin}/landfall.{sum}.{name}.part && \
         trap 'rm -f \"$p.new\"; [ ! -e \"$p\" ] || mv -f \"$p\" \"$k\"' EXIT && {take_part}cat >> \"$p\" && \
         {unpack} < \"$p\" > \"$p.new\" && {has_sum} && chmod 700 \"$p.new\" && mv -f \"$p.new\" {bin}/landfall && rm -f \"$p\" {bin}/landfall.*.part",
        name = unpack.name(),
        unpack = unpack.command(),
        has_sum = has_sum(sum, "\"$p.new\"")
    )
}

/// Uploads the agent into a new temporary directory of the login user and starts it there. Blocks for the upload and the login shell.
pub(super) fn start_temporary_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
    clock: &ContactClock,
) -> Result<RunningAgent, Diagnosis> {
    clock.begin_upload(Unpack::Cat.size_bytes(program));
    let directory = upload_temporary_agent(node, transport, program)?;
    // The shell stays as the parent process, so that it removes the directory also when the agent is killed.
    let line = format!("trap '' HUP; {directory}/landfall agent serve; rm -rf {directory}");
    clock.begin(STARTS);
    await_agent(node, transport.spawn(&line))
}

/// Uploads the agent into a new temporary directory of the login user and returns the directory. Blocks for the upload.
fn upload_temporary_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
) -> Result<String, Diagnosis> {
    let has_sum = has_sum(&program.digest().hex(), "\"$d/landfall\"");
    let put = format!(
        "umask 077 && d=$(mktemp -d \"${{TMPDIR:-/tmp}}/landfall.XXXXXX\") && cat > \"$d/landfall\" && \
         {has_sum} && chmod 700 \"$d/landfall\" && echo \"$d\""
    );
    let directory = shell(
        node,
        "the temporary agent could not be put on the machine",
        transport.spawn(&put),
        |stdin| {
            io::copy(&mut program.plain(), stdin)?;
            stdin.flush()
        },
    )?;
    let directory = directory.lines().last().unwrap_or_default().trim().to_owned();
    let plain = directory.starts_with('/')
        && directory
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if plain {
        return Ok(directory);
    }
    Err(
        Diagnosis::new(Code::AgentStart, "the machine made no usable temporary directory")
            .on(&node.name)
            .saw(directory),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    /// Runs a command of this module with these programs alone; returns its output, and nothing when it fails.
    fn run(programs: &Path, line: &str, input: &[u8]) -> Option<String> {
        let mut shell = Command::new("/bin/sh");
        let mut shell = shell
            .args(["-c", line])
            .env("PATH", programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A command that refuses closes its input.
        let _ = shell.stdin.take().unwrap().write_all(input);
        let output = shell.wait_with_output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Makes a folder of the programs that first contact needs, with gzip or without.
    fn programs(folder: &Path, unpack: Unpack) -> PathBuf {
        let programs = folder.join("programs");
        std::fs::create_dir(&programs).unwrap();
        let needed = ["cat", "chmod", "mkdir", "mktemp", "mv", "rm", "sh", "sha256sum", "wc"];
        let gzip = Some("gzip").filter(|_| unpack == Unpack::Gzip);
        for name in needed.into_iter().chain(gzip) {
            let place = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            let place = place.iter().find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(place, programs.join(name)).unwrap();
        }
        programs
    }

    /// Returns the agent whose program has this content, and what a node gets of it.
    fn agent(folder: &Path, content: &[u8], unpack: Unpack) -> (AgentProgram, Vec<u8>) {
        std::fs::write(folder.join("agent"), content).unwrap();
        let program = AgentProgram::open(&folder.join("agent")).unwrap();
        let mut bytes = Vec::new();
        unpack.open(&program).read_to_end(&mut bytes).unwrap();
        (program, bytes)
    }

    #[test]
    fn each_step_has_the_whole_limit_and_an_upload_what_a_slow_line_takes() {
        let folder = tempfile::tempdir().unwrap();
        let (program, bytes) = agent(folder.path(), &[7; 100_000], Unpack::Cat);
        assert_eq!(Unpack::Cat.size_bytes(&program), bytes.len() as u64);
        let clock = ContactClock::default();
        let limit = Duration::from_millis(40);
        thread::sleep(limit);
        assert_eq!(clock.left(limit), Duration::ZERO);
        assert_eq!(clock.present().0, "the login");
        clock.begin(STARTS);
        assert!(clock.left(Duration::from_secs(60)) > Duration::from_secs(50));
        clock.begin_upload(Unpack::Cat.size_bytes(&program));
        let left = clock.left(limit);
        assert_eq!(
            left.as_secs(),
            100_000 / SLOWEST_LINE - u64::from(left.subsec_millis() > 500)
        );
        assert!(clock.present().1 < Duration::from_secs(10));
    }

    /// A machine that answers each command with these words and this exit status, in turn.
    struct Answers(Vec<(&'static str, Option<i32>)>);

    struct Status(Option<i32>);

    impl landfall_core::transport::RemoteExit for Status {
        fn wait(&mut self) -> Option<i32> {
            self.0
        }
    }

    impl Transport for Answers {
        fn spawn(&mut self, _: &str) -> Result<RemoteChild, Diagnosis> {
            let (words, status) = self.0.remove(0);
            Ok(RemoteChild {
                stdin: Box::new(io::sink()),
                stdout: Box::new(words.as_bytes()),
                stderr: Box::new(io::empty()),
                exit: Box::new(Status(status)),
            })
        }

        fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
            self.spawn(command)
        }
    }

    #[test]
    fn a_first_contact_that_is_cut_off_is_a_lost_connection_and_one_that_is_refused_is_not() {
        const ABSENT: (&str, Option<i32>) = ("absent cat 0\n", Some(0));
        let folder = tempfile::tempdir().unwrap();
        let (program, _) = agent(folder.path(), b"a program", Unpack::Cat);
        let spec = "name: ship\nnodes:\n- { name: cp-1, role: control-plane, ip: 10.0.0.1 }\n";
        let desired = landfall_core::spec::parse::cluster_yaml(spec, "cluster.yaml").unwrap();
        let code = |answers: &[(&'static str, Option<i32>)]| {
            let mut answers = Answers(answers.to_vec());
            let started = start_agent(
                &desired.inventory.nodes[0],
                &mut answers,
                &program,
                &ContactClock::default(),
            );
            assert!(answers.0.is_empty(), "{:?} is still to be said", answers.0);
            started.err().unwrap().code
        };
        assert_eq!(code(&[("", None)]), Code::ConnectionLost, "before the first word");
        assert_eq!(code(&[ABSENT, ("", None)]), Code::ConnectionLost, "in the upload");
        assert_eq!(code(&[ABSENT, ("", Some(0)), ("", None)]), Code::ConnectionLost);
        assert_eq!(code(&[("", Some(126))]), Code::AgentStart);
        assert_eq!(code(&[ABSENT, ("", Some(1))]), Code::AgentStart);
        assert_eq!(code(&[("permission denied\n", None)]), Code::AgentStart);
    }

    fn an_upload_goes_on(unpack: Unpack) {
        const PROGRAM: &[u8] = b"#!/bin/sh\necho runs $*\n";
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let programs = programs(folder.path(), unpack);
        let (program, bytes) = agent(folder.path(), PROGRAM, unpack);
        let (state, sum) = (at("state").display().to_string(), program.digest().hex());
        let started = || run(&programs, &start_checked_line(&state, &sum), b"").unwrap();
        let part = || {
            let absent = Absent::parse(&format!("Welcome!\n{}", started())).unwrap();
            assert_eq!(absent.unpack, unpack);
            absent.part_bytes
        };
        let put = |from: u64, bytes: &[u8]| run(&programs, &put_line(&state, &sum, unpack, from), bytes).is_some();
        let names = || {
            let entries = std::fs::read_dir(at("state/bin")).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        let runs = ("runs agent serve\n".to_owned(), vec!["landfall".to_owned()]);
        assert_eq!(part(), 0);
        assert!(!put(0, &bytes[..8]));
        assert_eq!(part(), 8);
        assert!(!put(8, &bytes[8..12]));
        assert_eq!(part(), 12);
        assert!(!put(8, &bytes[8..]), "another operator has continued it");
        assert_eq!(part(), 12, "and its part stays");
        assert!(put(12, &bytes[12..]));
        assert_eq!((started(), names()), runs);
        assert_eq!(Absent::parse(&started()), None);
        assert_eq!(std::fs::read(at("state/bin/landfall")).unwrap(), PROGRAM);

        std::fs::write(at("state/bin/landfall"), "another version").unwrap();
        assert_eq!(part(), 0);
        let damaged = [b"damaged", &bytes[7..12]].concat();
        assert!(!put(0, &damaged));
        assert!(!put(12, &bytes[12..]), "its hash is wrong");
        assert_eq!(part(), bytes.len() as u64, "a whole part is no program");
        assert!(!put(bytes.len() as u64, b""));
        assert!(put(0, &bytes));
        assert_eq!((started(), names()), runs);
    }

    #[test]
    fn an_upload_goes_on_where_the_connection_ended() {
        an_upload_goes_on(Unpack::Gzip);
    }

    #[test]
    fn a_node_without_gzip_gets_the_program_as_it_is() {
        an_upload_goes_on(Unpack::Cat);
    }

    #[test]
    fn two_operators_may_upload_their_agents_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let contents = [&b"an agent of one operator"[..], b"another agent"];
        let [first, second] = contents.map(|content| agent(folder.path(), content, Unpack::Gzip));
        let start = |program: &AgentProgram| {
            let line = put_line(state.to_str().unwrap(), &program.digest().hex(), Unpack::Gzip, 0);
            let mut shell = Command::new("sh");
            shell.args(["-c", &line]).stdin(Stdio::piped()).spawn().unwrap()
        };
        let (begin, end) = first.1.split_at(10);
        let mut slow = start(&first.0);
        slow.stdin.as_mut().unwrap().write_all(begin).unwrap();
        let mut quick = start(&second.0);
        quick.stdin.take().unwrap().write_all(&second.1).unwrap();
        assert!(quick.wait().unwrap().success());
        slow.stdin.take().unwrap().write_all(end).unwrap();
        assert!(slow.wait().unwrap().success());
        let left: Vec<_> = std::fs::read_dir(state.join("bin"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        let put = std::fs::read(state.join("bin/landfall")).unwrap();
        assert_eq!((left, put.as_slice()), (vec!["landfall".into()], contents[0]));
    }
}
