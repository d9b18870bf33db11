//! First contact with a machine: shell commands upload the agent's program. No other shell commands touch a node.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::name::Digest;
use landfall_core::transport::{RemoteChild, Transport};
use landfall_core::wire::AGENT_BANNER;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::thread;

/// Most output of a shell command that is read, in bytes; a command answers with one line.
const MAX_SHELL_OUTPUT: u64 = 64 * 1024;

/// The program that is put on nodes.
pub struct AgentProgram {
    bytes: Vec<u8>,
    digest: Digest,
}

impl AgentProgram {
    /// Reads the program. Blocks on disk.
    pub fn read(path: &Path) -> Result<Self, Diagnosis> {
        let bytes = std::fs::read(path).map_err(|error| {
            Diagnosis::new(
                Code::FileUnreadable,
                format!("the agent program {} cannot be read", path.display()),
            )
            .because(&error)
        })?;
        let digest = Digest::of(&bytes);
        Ok(Self { bytes, digest })
    }
}

/// Skips the output of the login shell until the agent's first line. More than 64 KiB of it is an error.
pub(super) fn await_banner(stdout: &mut impl BufRead) -> Result<(), String> {
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

/// Runs a shell command with `input` as its standard input, and returns its standard output. Another exit status than 0 is an error. Blocks until the
/// command ends.
fn shell(node: &Node, what: &str, child: Result<RemoteChild, Diagnosis>, input: &[u8]) -> Result<String, Diagnosis> {
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
    let _ = stdin.write_all(input).and_then(|()| stdin.flush());
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

/// Uploads the agent into the state directory, unless the same program is there. Blocks for the upload.
pub(super) fn put_program(node: &Node, transport: &mut dyn Transport, program: &AgentProgram) -> Result<(), Diagnosis> {
    let path = format!("{}/bin/landfall", layout::STATE_DIR);
    let sum = program.digest.hex();
    let ask = format!("sha256sum {path} 2>/dev/null || echo absent");
    let found = shell(
        node,
        "the node cannot be asked for the agent",
        transport.spawn_root(&ask),
        &[],
    )?;
    if found.contains(&sum) {
        return Ok(());
    }
    // The program is renamed into place only when its hash is right.
    let put = put_line(layout::STATE_DIR, &sum);
    shell(
        node,
        "the agent could not be put on the node",
        transport.spawn_root(&put),
        &program.bytes,
    )?;
    Ok(())
}

/// Returns the shell command that stores the agent from standard input. The temporary file has a random name, because two operators may upload
/// at the same time.
fn put_line(state: &str, sum: &str) -> String {
    format!(
        "umask 077 && mkdir -p {state}/bin && p=$(mktemp {state}/bin/landfall.part.XXXXXX) && trap 'rm -f \"$p\"' EXIT && cat > \"$p\" && \
         printf '%s  %s\\n' {sum} \"$p\" | sha256sum -c - >/dev/null && chmod 700 \"$p\" && mv -f \"$p\" {state}/bin/landfall"
    )
}

/// Uploads the agent into a new temporary directory of the login user and returns the directory. Blocks for the upload.
pub(super) fn upload_temporary_agent(
    node: &Node,
    transport: &mut dyn Transport,
    program: &AgentProgram,
) -> Result<String, Diagnosis> {
    let sum = program.digest.hex();
    let put = format!(
        "umask 077 && d=$(mktemp -d \"${{TMPDIR:-/tmp}}/landfall.XXXXXX\") && cat > \"$d/landfall\" && \
         printf '%s  %s\\n' {sum} \"$d/landfall\" | sha256sum -c - >/dev/null && chmod 700 \"$d/landfall\" && echo \"$d\""
    );
    let directory = shell(
        node,
        "the temporary agent could not be put on the machine",
        transport.spawn(&put),
        &program.bytes,
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
    use std::process::{Command, Stdio};

    #[test]
    fn two_operators_may_upload_their_agents_at_the_same_time() {
        let state = std::env::temp_dir().join(format!("landfall-put-{}", std::process::id()));
        let start = |content: &[u8]| {
            let line = put_line(state.to_str().unwrap(), &Digest::of(content).hex());
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
