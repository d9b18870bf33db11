//! Builds, starts, queries and stops the proxy's program.

use crate::client;
use crate::fake_api::FakeApi;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Longest wait for anything; one lease renewal takes 5 s.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of the program's log that are kept.
const LOG_LINES: usize = 200;

/// The program, built by cargo in the profile of this code; cargo itself names the file.
pub fn built() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // The cargo that runs the test, so that it finds what it has built before.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--package", "landfall-ingress"]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        // What cargo says of the test's own package makes ring, and all above it, build anew.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        cargo
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("CARGO_MANIFEST_PATH")
            .env_remove("CARGO_MANIFEST_LINKS");
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "landfall-ingress does not build: {error}");
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let mut executables = messages.filter_map(|m| Some(PathBuf::from(m["executable"].as_str()?)));
        executables.next_back().expect("cargo names the executable")
    })
}

/// Options of a start.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    pod: String,
    core: Option<usize>,
    /// Soft and hard limit of open files.
    files: Option<(u64, u64)>,
}

impl Launch {
    /// A program in no pod, with ports from the kernel and a dashboard without a password unless arguments say otherwise.
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: [
                "--ingress-class=landfall",
                "--dashboard-host=ui.landfall.local",
                "--stop-delay-ms=300",
            ]
            .map(str::to_owned)
            .to_vec(),
            pod: String::new(),
            core: None,
            files: None,
        }
    }

    /// One more argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Lets it write status as this pod.
    pub fn pod(mut self, pod: &str) -> Self {
        self.pod = pod.to_owned();
        self
    }

    /// Keeps it on one core.
    pub fn on_core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Starts it with these limits of open files.
    pub fn open_files(mut self, soft: u64, hard: u64) -> Self {
        self.files = Some((soft, hard));
        self
    }

    fn command(&self) -> Command {
        if let Some((soft, hard)) = self.files {
            let mut command = Command::new("sh");
            let limited = format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$0\" \"$@\"");
            command.arg("-c").arg(limited).arg(&self.program);
            return command;
        }
        match self.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string()]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        }
    }

    /// Starts it and waits until it says where it listens.
    pub fn start(&self, api: &FakeApi) -> Program {
        let file = kubeconfig(api);
        let mut command = self.command();
        let named = |flag: &&str| self.arguments.iter().any(|argument| argument.starts_with(flag));
        let doors = ["--http-address=", "--https-address=", "--admin-address="];
        let from_kernel = doors
            .into_iter()
            .filter(|door| !named(door))
            .map(|door| format!("{door}127.0.0.1:0"));
        let open = "--dashboard-auth";
        command
            .args(from_kernel)
            .args((!named(&open)).then_some("--dashboard-auth=none"))
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("KUBECONFIG", file.path())
            .env("POD_NAME", &self.pod)
            .env("POD_NAMESPACE", "kube-system")
            .env("NODE_NAME", "node-1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let mut program = Program {
            child,
            ports: BTreeMap::new(),
            log: Arc::clone(&log),
            _config: file,
        };
        for line in lines.by_ref() {
            let listening = line.find("listening http=").map(|at| line[at..].to_owned());
            keep(&log, line);
            if let Some(ports) = listening {
                program.ports = ports.split_whitespace().filter_map(named_port).collect();
                break;
            }
        }
        assert!(!program.ports.is_empty(), "it does not listen: {}", program.log());
        std::thread::spawn(move || lines.for_each(|line| keep(&log, line)));
        program
    }
}

/// A file that leads to this API.
pub fn kubeconfig(api: &FakeApi) -> NamedTempFile {
    let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", api.address) } }],
        "users": [{ "name": "c", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }] });
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    file
}

fn keep(log: &Mutex<VecDeque<String>>, line: String) {
    let mut log = log.lock().unwrap();
    log.push_back(line);
    if log.len() > LOG_LINES {
        log.pop_front();
    }
}

fn named_port(word: &str) -> Option<(String, u16)> {
    let (name, value) = word.split_once('=')?;
    Some((name.to_owned(), value.rsplit(':').next()?.parse().ok()?))
}

/// A running proxy; killed when dropped.
pub struct Program {
    child: Child,
    ports: BTreeMap<String, u16>,
    log: Arc<Mutex<VecDeque<String>>>,
    _config: NamedTempFile,
}

impl Program {
    /// Where it takes connections of this name, if it does.
    pub fn port(&self, name: &str) -> Option<SocketAddr> {
        let port = *self.ports.get(name)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Where it takes requests in plain text.
    pub fn http(&self) -> SocketAddr {
        self.port("http").expect("it names its port")
    }

    /// Where it takes requests over TLS.
    pub fn https(&self) -> SocketAddr {
        self.port("https").expect("it names its port")
    }

    /// Where its dashboard is.
    pub fn admin(&self) -> SocketAddr {
        self.port("admin").expect("it names its port")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its last lines.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap();
        log.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Status and body of a page of the dashboard's port.
    pub async fn page(&self, path: &str) -> (u16, String) {
        client::fetch(self.admin(), "ui.landfall.local", path).await
    }

    /// All lists were read and it is not ending.
    pub async fn ready(&self) -> bool {
        self.page("/readyz").await.0 == 200
    }

    /// Waits for that.
    pub async fn until_ready(&self) {
        let start = Instant::now();
        while !self.ready().await {
            assert!(start.elapsed() < PATIENCE, "not ready in time: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A series of /metrics, if there is one of this name and labels.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.page("/metrics").await;
        let wanted = format!("landfall_ingress_{series} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&wanted)?.trim().parse().ok())
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Kills it by SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        self.exit_within(PATIENCE).await
    }

    /// Waits for its end, at most so long.
    pub async fn exit_within(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < patience, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the proxy's last lines:\n{}", self.log());
        }
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until `check` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
