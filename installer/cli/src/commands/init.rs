//! `init`.

use super::CommandResult;
use crate::args::Init;
use crate::output::{write_stderr, write_stdout};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::spec::{ClusterSpec, parse};
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};

/// Writes a commented `cluster.yaml` from flags, or from the user's answers.
pub fn init(args: &Init) -> CommandResult {
    let one = |diagnosis| vec![diagnosis];
    let answers = Answers::collect(args).map_err(one)?;
    let text = answers.text();
    let file = args.output.display().to_string();
    // Parsing the text checks the answers by the rules of cluster.yaml.
    parse::cluster_yaml(&text, &file)?;
    let written = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&args.output)
        .and_then(|mut out| out.write_all(text.as_bytes()));
    written.map_err(|error| {
        one(
            Diagnosis::new(Code::FileUnreadable, format!("{file} cannot be written"))
                .because(&error)
                .next("choose another file with -o"),
        )
    })?;
    write_stdout(&format!("{file} is written; next: landfall inventory -i {file}\n"));
    Ok(ExitCode::Done)
}

struct Answers {
    name: String,
    control_planes: Vec<(String, String)>,
    workers: Vec<(String, String)>,
    user: String,
}

impl Answers {
    fn collect(args: &Init) -> Result<Self, Diagnosis> {
        let local = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        if args.control_plane.is_empty() && !std::io::stdin().is_terminal() {
            let what = "no control plane is named, and standard input is no terminal to ask on";
            let next = "landfall init --control-plane cp-1=10.0.0.11 --worker w-1=10.0.0.21 --user admin";
            return Err(Diagnosis::new(Code::Usage, what).next(next));
        }
        if !args.control_plane.is_empty() {
            return Ok(Self {
                name: args.name.clone().unwrap_or_else(|| ClusterSpec::default().name),
                control_planes: machines(&args.control_plane)?,
                workers: machines(&args.worker)?,
                user: args.user.clone().unwrap_or(local),
            });
        }
        let list = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let name = match &args.name {
            Some(name) => name.clone(),
            None => ask("Name of the cluster", &ClusterSpec::default().name)?,
        };
        Ok(Self {
            name,
            control_planes: machines(&list(ask("Control planes as NAME=HOST, 1, 3 or 5 of them", "")?))?,
            workers: machines(&list(ask(
                "Workers as NAME=HOST; none: control planes take workloads",
                "",
            )?))?,
            user: match &args.user {
                Some(user) => user.clone(),
                None => ask("Login user", &local)?,
            },
        })
    }

    fn text(&self) -> String {
        let defaults = ClusterSpec::default();
        let (pods, services) = (defaults.pod_network_cidr, defaults.service_cidr);
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "# What the cluster shall be. Every field has a default; those in comments show it.\n\
             # Check the result: landfall inventory -i cluster.yaml\n\n\
             # Uninstall asks for this name.\nname: {}\n\n\
             # Networks of the cluster; no machine may have an address in one.\n\
             # podNetworkCidr: {pods}\n# serviceCidr: {services}\n\n\
             # DNS servers for names outside the cluster; by default those of the nodes.\n# upstreamDns: []\n\
             # Zones with servers of their own.\n# stubZones: {{corp.test: [10.0.0.53]}}\n\n\
             # More names or addresses by which clients reach the API servers.\n# apiServerCertSans: []\n\n\
             # A sample behind the ingress proxy, which verify looks at.\n# sample: true\n\n\
             # Machines. Each can also have: port, privateKey, passwordFile, becomePasswordFile, ip, accessIp.\nnodes:\n",
            quote(&self.name)
        );
        for (role, machines) in [("control-plane", &self.control_planes), ("worker", &self.workers)] {
            for (name, host) in machines {
                let (name, host, user) = (quote(name), quote(host), quote(&self.user));
                let _ = writeln!(text, "  - {{name: {name}, role: {role}, host: {host}, user: {user}}}");
            }
        }
        text
    }
}

fn machines(words: &[String]) -> Result<Vec<(String, String)>, Diagnosis> {
    let split = |word: &String| match word.split_once('=') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok((name.to_owned(), host.to_owned())),
        _ => Err(Diagnosis::new(Code::Usage, format!("{word:?} is no NAME=HOST")).next("for instance cp-1=10.0.0.11")),
    };
    words.iter().map(split).collect()
}

fn ask(what: &str, default: &str) -> Result<String, Diagnosis> {
    let shown = if default.is_empty() {
        String::new()
    } else {
        format!(" [{default}]")
    };
    write_stderr(&format!("{what}{shown}: "));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| {
        Diagnosis::new(Code::Usage, "no answer can be read")
            .because(&error)
            .next("use flags: landfall init --help")
    })?;
    let line = line.trim();
    Ok(if line.is_empty() {
        default.to_owned()
    } else {
        line.to_owned()
    })
}
