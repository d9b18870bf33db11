//! First contact with a machine: shell commands upload the agent's program. No other shell commands touch a node.

use landfall_bundle::hashed::Hashed;
use landfall_bundle::own_parts;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::name::Digest;
use landfall_core::transport::{RemoteChild, Transport};
use landfall_core::wire::AGENT_BANNER;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

/// Most output of a shell command that is read, in bytes; a command answers with one line.
const MAX_SHELL_OUTPUT: u64 = 64 * 1024;

/// Bytes of the program that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The program that is put on nodes: landfall itself, without what a released one carries for bundles. It is read as it is sent; the open
/// file stays the same when somebody replaces the program meanwhile.
pub struct AgentProgram {
    file: File,
    length: u64,
    digest: Digest,
}

impl AgentProgram {
    /// Opens the program and reads it once for its digest. Blocks on disk.
    pub fn open(path: &Path) -> Result<Self, Diagnosis> {
        let open = || {
            let file = File::open(path)?;
            let mut program = Self {
                length: own_parts::program_length(&file)?,
                digest: Digest::of(&[]),
                file,
            };
            let mut hashed = Hashed::new(io::sink());
            program.write_to(&mut hashed)?;
            program.digest = hashed.digest();
            Ok(program)
        };
        open().map_err(|error: io::Error| {
            Diagnosis::new(
                Code::FileUnreadable,
                format!("the agent program {} cannot be read", path.display()),
            )
            .because(&error)
        })
    }

    /// Writes the program. Blocks.
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < self.length {
            let wanted = usize::try_from(self.length - at)
                .unwrap_or(CHUNK_BYTES)
                .min(CHUNK_BYTES);
            self.file.read_exact_at(&mut buffer[..wanted], at)?;
            to.write_all(&buffer[..wanted])?;
            at += wanted as u64;
        }
        to.flush()
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

/// Uploads the agent into the state directory, unless the same program is there. Blocks for the upload.
pub(super) fn put_program(node: &Node, transport: &mut dyn Transport, program: &AgentProgram) -> Result<(), Diagnosis> {
    let path = format!("{}/bin/landfall", layout::STATE_DIR);
    let sum = program.digest.hex();
    let ask = format!("sha256sum {path} 2>/dev/null || echo absent");
    let found = shell(
        node,
        "the node cannot be asked for the agent",
        transport.spawn_root(&ask),
        |_| Ok(()),
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
        |stdin| program.write_to(stdin),
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
        |stdin| program.write_to(stdin),
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
    fn a_released_program_goes_to_nodes_without_what_it_carries() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let program: Vec<u8> = (0..600_000u32).map(|n| (n / 5) as u8).collect();
        std::fs::write(at("plain"), &program).unwrap();
        std::fs::write(at("ingress"), b"proxy").unwrap();
        let crates = br#"{"packages": [], "resolve": {"nodes": []}}"#;
        let crates = landfall_bundle::sbom::CrateGraph::parse(crates).unwrap();
        own_parts::attach(&at("plain"), &at("ingress"), &crates, &at("released")).unwrap();
        assert!(std::fs::metadata(at("released")).unwrap().len() > program.len() as u64);
        for name in ["plain", "released"] {
            let agent = AgentProgram::open(&at(name)).unwrap();
            // What a running operator opened stays, also when the file gives way to another.
            std::fs::remove_file(at(name)).unwrap();
            let mut sent = Vec::new();
            agent.write_to(&mut sent).unwrap();
            assert_eq!((sent == program, agent.digest), (true, Digest::of(&program)), "{name}");
        }
    }

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
