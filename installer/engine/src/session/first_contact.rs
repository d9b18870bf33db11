//! First contact with a machine: shell commands start the agent, and upload its program where it is not there. No other shell commands touch a node.

use super::last_lines::LastLines;
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::preflight::fapolicyd_rules;
use landfall_core::transport::{RemoteChild, Transport};
use landfall_core::wire::AGENT_BANNER;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

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
    fn greet(child: RemoteChild) -> Result<Self, NoAgent> {
        let errors = LastLines::of(child.stderr);
        let mut stdout = BufReader::with_capacity(256 * 1024, child.stdout);
        match await_banner(&mut stdout) {
            Ok(()) => Ok(Self {
                stdin: child.stdin,
                stdout,
                errors,
            }),
            Err(said) => Err(NoAgent { said, errors }),
        }
    }
}

/// A command that started no agent.
struct NoAgent {
    said: String,
    errors: LastLines,
}

impl NoAgent {
    fn diagnosis(self, node: &Node) -> Diagnosis {
        // Standard error may arrive after standard output has ended.
        thread::sleep(Duration::from_millis(100));
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
        "no output".to_owned()
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
    if status == Some(0) {
        return Ok(text);
    }
    Err(Diagnosis::new(Code::AgentStart, what)
        .on(&node.name)
        .saw(format!("exit status {status:?}"))
        .saw(errors.trim().to_owned()))
}

/// Starts the agent of a member as root, by one command where the same program is there, and puts it there otherwise. Blocks for the upload, and for
/// the login shell and sudo.
pub(super) fn start_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
) -> Result<RunningAgent, Diagnosis> {
    let line = start_checked_line(layout::STATE_DIR, &program.digest().hex());
    let child = transport.spawn_root(&line).map_err(|d| d.on(&node.name))?;
    let no_agent = match RunningAgent::greet(child) {
        Ok(agent) => return Ok(agent),
        Err(no_agent) => no_agent,
    };
    let Some(part_bytes) = parse_absent(&no_agent.said) else {
        return Err(no_agent.diagnosis(node));
    };
    put_program(node, transport, program, part_bytes)?;
    await_agent(node, transport.spawn_root(&serve_line(layout::STATE_DIR)))
}

/// Waits for the first line of an agent whose program is there. Blocks like [`RunningAgent::greet`].
fn await_agent(node: &Node, child: Result<RemoteChild, Diagnosis>) -> Result<RunningAgent, Diagnosis> {
    let child = child.map_err(|d| d.on(&node.name))?;
    RunningAgent::greet(child).map_err(|no_agent| no_agent.diagnosis(node))
}

/// Uploads the agent into the state directory, without its first bytes that came before a connection ended. Blocks for the upload.
fn put_program(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
    part_bytes: u64,
) -> Result<(), Diagnosis> {
    // A part that is as long as the program is damaged, or it would have its name.
    let mut from = if part_bytes < program.size_bytes() {
        part_bytes
    } else {
        0
    };
    loop {
        let put = shell(
            node,
            "the agent could not be put on the node",
            transport.spawn_root(&put_line(layout::STATE_DIR, &program.digest().hex(), from)),
            |stdin| program.write_from(from, stdin),
        );
        match put {
            // The part was damaged, or another operator has continued it.
            Err(_) if from > 0 => from = 0,
            put => return put.map(drop),
        }
    }
}

/// Returns the shell command that starts the agent.
fn serve_line(state: &str) -> String {
    format!("exec {state}/bin/landfall agent serve")
}

/// Returns the shell command that starts the agent when it has this digest, and else says that it is absent, and how many bytes of it are there.
fn start_checked_line(state: &str, sum: &str) -> String {
    format!(
        "if ! {} 2>&1; then \
         echo \"absent $(wc -c 2>/dev/null < {state}/bin/landfall.{sum}.part || echo 0)\"; exit; fi; {}",
        has_sum(sum, &format!("{state}/bin/landfall")),
        serve_line(state)
    )
}

/// Returns the shell command that succeeds when a file, a word of the shell, has this digest. It says nothing on standard output.
fn has_sum(sum: &str, file: &str) -> String {
    format!("printf '%s  %s\\n' {sum} {file} | sha256sum -c - >/dev/null")
}

/// Reads how many bytes of an absent agent are there from what [`start_checked_line`] says, in which the login shell may have written too.
fn parse_absent(text: &str) -> Option<u64> {
    let bytes = text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("absent "))?;
    Some(bytes.trim().parse().unwrap_or(0))
}

/// Returns the shell command that stores the agent from standard input, to which its first `from` bytes do not come. The program is renamed into place
/// only when its hash is right. The temporary file has a random name, because two operators may upload at the same time; what came before the
/// connection ended is kept under the digest, and whoever continues it renames it first.
fn put_line(state: &str, sum: &str, from: u64) -> String {
    let bin = format!("{state}/bin");
    let take_part = match from {
        0 => String::new(),
        from => format!("mv -f \"$k\" \"$p\" && [ \"$(wc -c < \"$p\")\" -eq {from} ] && "),
    };
    format!(
        "umask 077 && mkdir -p {bin} && p=$(mktemp {bin}/landfall.part.XXXXXX) && k={bin}/landfall.{sum}.part && \
         trap '[ ! -e \"$p\" ] || mv -f \"$p\" \"$k\"' EXIT && {take_part}cat >> \"$p\" && \
         {has_sum} && chmod 700 \"$p\" && mv -f \"$p\" {bin}/landfall && \
         rm -f {bin}/landfall.*.part",
        has_sum = has_sum(sum, "\"$p\"")
    )
}

/// Uploads the agent into a new temporary directory of the login user and starts it there. Blocks for the upload and the login shell.
pub(super) fn start_temporary_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
) -> Result<RunningAgent, Diagnosis> {
    let directory = upload_temporary_agent(node, transport, program)?;
    // The shell stays as the parent process, so that it removes the directory also when the agent is killed.
    let line = format!("trap '' HUP; {directory}/landfall agent serve; rm -rf {directory}");
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
        |stdin| program.write_from(0, stdin),
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
    use landfall_core::name::Digest;
    use std::process::{Command, Stdio};

    /// Runs a command of this module on a folder in place of the state directory; returns its output, and nothing when it fails.
    fn run(line: &str, input: &[u8]) -> Option<String> {
        let mut shell = Command::new("sh");
        let mut shell = shell
            .args(["-c", line])
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

    #[test]
    fn an_upload_goes_on_where_the_connection_ended() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().to_str().unwrap();
        let program: &[u8] = b"#!/bin/sh\necho runs $*\n";
        let sum = Digest::of(program).hex();
        let started = || run(&start_checked_line(state, &sum), b"").unwrap();
        let part = || parse_absent(&format!("Welcome!\n{}", started()));
        let put = |from: u64, bytes: &[u8]| run(&put_line(state, &sum, from), bytes).is_some();
        let names = || {
            let entries = std::fs::read_dir(folder.path().join("bin")).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(part(), Some(0));
        assert!(!put(0, &program[..8]));
        assert_eq!(part(), Some(8));
        assert!(!put(8, &program[8..12]));
        assert_eq!(part(), Some(12));
        assert!(!put(8, &program[8..]), "another operator has continued it");
        assert_eq!(part(), Some(12), "and its part stays");
        assert!(put(12, &program[12..]));
        assert_eq!(
            (started(), names()),
            ("runs agent serve\n".to_owned(), vec!["landfall".to_owned()])
        );
        assert_eq!(parse_absent(&started()), None);
        assert_eq!(std::fs::read(folder.path().join("bin/landfall")).unwrap(), program);

        std::fs::write(folder.path().join("bin/landfall"), "another version").unwrap();
        assert_eq!(part(), Some(0));
        let damaged = [b"damaged", &program[7..12]].concat();
        assert!(!put(0, &damaged));
        assert!(!put(12, &program[12..]), "its hash is wrong");
        assert_eq!(part(), Some(program.len() as u64), "a whole part is no program");
        assert!(put(0, program));
        assert_eq!(
            (started(), names()),
            ("runs agent serve\n".to_owned(), vec!["landfall".to_owned()])
        );
    }

    #[test]
    fn two_operators_may_upload_their_agents_at_the_same_time() {
        let state = std::env::temp_dir().join(format!("landfall-put-{}", std::process::id()));
        let start = |content: &[u8]| {
            let line = put_line(state.to_str().unwrap(), &Digest::of(content).hex(), 0);
            let mut shell = Command::new("sh");
            shell.args(["-c", &line]).stdin(Stdio::piped()).spawn().unwrap()
        };
        let mut first = start(b"one half, other half");
        first.stdin.as_mut().unwrap().write_all(b"one half").unwrap();
        let mut second = start(b"another agent");
        second.stdin.take().unwrap().write_all(b"another agent").unwrap();
        assert!(second.wait().unwrap().success());
        first.stdin.take().unwrap().write_all(b", other half").unwrap();
        assert!(first.wait().unwrap().success());
        let left: Vec<_> = std::fs::read_dir(state.join("bin"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        let put = std::fs::read(state.join("bin/landfall")).unwrap();
        std::fs::remove_dir_all(&state).unwrap();
        assert_eq!((left, put), (vec!["landfall".into()], b"one half, other half".to_vec()));
    }
}
