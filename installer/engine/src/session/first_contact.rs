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
            program.write_from(0, &mut hashed)?;
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

    /// Writes the program without its first `at` bytes. Blocks.
    fn write_from(&self, mut at: u64, to: &mut dyn Write) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
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

/// Uploads the agent into the state directory, unless the same program is there. What came before a connection ended is not sent again.
/// Blocks for the upload.
pub(super) fn put_program(node: &Node, transport: &mut dyn Transport, program: &AgentProgram) -> Result<(), Diagnosis> {
    let sum = program.digest.hex();
    let found = shell(
        node,
        "the node cannot be asked for the agent",
        transport.spawn_root(&ask_line(layout::STATE_DIR, &sum)),
        |_| Ok(()),
    )?;
    let mut from = match parse_found(&found, &sum) {
        Found::Program => return Ok(()),
        // A part that is as long as the program is damaged, or it would have its name.
        Found::Part(bytes) if bytes < program.length => bytes,
        Found::Part(_) => 0,
    };
    loop {
        let put = shell(
            node,
            "the agent could not be put on the node",
            transport.spawn_root(&put_line(layout::STATE_DIR, &sum, from)),
            |stdin| program.write_from(from, stdin),
        );
        match put {
            // The part was damaged, or another operator has continued it.
            Err(_) if from > 0 => from = 0,
            put => return put.map(drop),
        }
    }
}

/// What a node has of the agent.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The same program.
    Program,
    /// So many of its first bytes.
    Part(u64),
}

/// Returns the shell command that says what is there of the agent with a digest.
fn ask_line(state: &str, sum: &str) -> String {
    format!(
        "sha256sum {state}/bin/landfall 2>/dev/null || echo absent; echo \"part $(wc -c 2>/dev/null < {state}/bin/landfall.{sum}.part || echo 0)\""
    )
}

/// Reads the answer to [`ask_line`], in which the login shell may have written too.
fn parse_found(text: &str, sum: &str) -> Found {
    if text.contains(sum) {
        return Found::Program;
    }
    let part = text.lines().rev().find_map(|line| line.trim().strip_prefix("part "));
    Found::Part(part.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0))
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
         printf '%s  %s\\n' {sum} \"$p\" | sha256sum -c - >/dev/null && chmod 700 \"$p\" && mv -f \"$p\" {bin}/landfall && \
         rm -f {bin}/landfall.*.part"
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
            agent.write_from(0, &mut sent).unwrap();
            assert_eq!((sent == program, agent.digest), (true, Digest::of(&program)), "{name}");
        }
    }

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
        let (program, sum) = (b"one half, other half", Digest::of(b"one half, other half").hex());
        let found = || parse_found(&run(&ask_line(state, &sum), b"").unwrap(), &sum);
        let put = |from: u64, bytes: &[u8]| run(&put_line(state, &sum, from), bytes).is_some();
        let names = || {
            let entries = std::fs::read_dir(folder.path().join("bin")).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(found(), Found::Part(0));
        assert!(!put(0, b"one half"));
        assert_eq!(found(), Found::Part(8));
        assert!(!put(8, b", ot"));
        assert_eq!(found(), Found::Part(12));
        assert!(!put(8, b", other half"), "another operator has continued it");
        assert_eq!(found(), Found::Part(12), "and its part stays");
        assert!(put(12, b"her half"));
        assert_eq!((found(), names()), (Found::Program, vec!["landfall".to_owned()]));
        assert_eq!(std::fs::read(folder.path().join("bin/landfall")).unwrap(), program);

        std::fs::remove_file(folder.path().join("bin/landfall")).unwrap();
        assert!(!put(0, b"damaged half"));
        assert!(!put(12, b"her half"), "its hash is wrong");
        assert_eq!(found(), Found::Part(program.len() as u64), "a whole part is no program");
        assert!(put(0, program));
        assert_eq!((found(), names()), (Found::Program, vec!["landfall".to_owned()]));
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
