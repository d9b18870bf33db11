//! The Ansible collection on real nodes, by a real `ansible-playbook` on this host: the cluster that stands is as wanted, a worker is
//! added, all of it is taken away.

use super::{Ansible, Broken, Checks, Stage};
use crate::host::root;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Shows all of it, on a cluster that the collection installs.
pub fn show(stage: &Stage<'_>, tools: &Ansible, checks: &mut Checks) -> Result<(), Broken> {
    let controller = checks.needed("the Ansible collection installs three control planes", || {
        let controller = Controller::new(stage, tools)?;
        controller.installs()?;
        Ok(controller)
    })?;
    checks.check(
        "the Ansible collection again, and in check mode: nothing changes",
        || controller.changes_nothing(),
    );
    checks.check("the Ansible collection adds a worker", || controller.adds_a_worker());
    checks.needed("the Ansible collection uninstalls: as before", || {
        controller.takes_away()?;
        stage.expect_unchanged()
    })
}

/// The control machine: a home folder of its own, on the operator's network.
struct Controller<'a> {
    stage: &'a Stage<'a>,
    tools: &'a Ansible,
    home: PathBuf,
}

impl<'a> Controller<'a> {
    /// Writes the machines of the lab as an inventory: three control planes, or with the worker w-1 too.
    fn new(stage: &'a Stage<'a>, tools: &'a Ansible) -> Result<Self> {
        let home = stage.lab.share().join("controller");
        remove(&home)?;
        fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        let controller = Self { stage, tools, home };
        let all = crate::operator::ansible(stage.lab)?;
        let without = |gone: fn(&str) -> bool| {
            let lines = all.lines().filter(|line| !gone(line));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        // The machine that Ansible runs on did not build the bundle either.
        let config = controller.home.join(".config/landfall");
        fs::create_dir_all(&config).with_context(|| format!("{} cannot be made", config.display()))?;
        symlink(stage.lab.share().join("trusted.d"), config.join("trusted.d"))?;
        controller.write("three.ini", &without(|line| line.starts_with("w-")))?;
        controller.write("four.ini", &without(|line| line.starts_with("w-2")))?;
        Ok(controller)
    }

    fn installs(&self) -> Result<()> {
        let installed = "seen.changed and seen.paths.failed == 0";
        self.play(
            "three.ini",
            &self.task(&json!({ "bundle": self.bundle() }), installed),
            &[],
        )
        .map(drop)
    }

    /// An install of what stands: no change, neither in check mode nor for real.
    fn changes_nothing(&self) -> Result<()> {
        let install = self.task(
            &json!({ "bundle": self.bundle() }),
            "not seen.changed and seen.changes == 0",
        );
        self.play("three.ini", &install, &["--check"])?;
        let verified = "not seen.changed and seen.paths.failed == 0 and seen.paths.passed > 0";
        let recap = self.play(
            "three.ini",
            &self.task(&json!({ "bundle": self.bundle() }), verified),
            &[],
        )?;
        ensure!(recap.contains("changed=0 "), "something changed:\n{recap}");
        Ok(())
    }

    /// A worker is added by the module `node`; check mode names it first, and the role `verify` finds every path.
    fn adds_a_worker(&self) -> Result<()> {
        let node = json!({ "name": ["w-1"], "bundle": self.bundle() });
        let planned = "seen.changed and (seen.plan | selectattr('node', 'equalto', 'w-1') | list | length) > 0";
        self.play("four.ini", &self.module("node", &node, planned), &["--check"])?;
        self.play(
            "four.ini",
            &self.module("node", &node, "seen.changed and seen.changes > 0"),
            &[],
        )?;
        let recap = self.play("four.ini", &self.role("verify", &json!({})), &[])?;
        ensure!(recap.contains("changed=0 "), "verify changed something:\n{recap}");
        // What the cluster's objects say of the new member is not the new machine's: an install of everything puts it right, once.
        let install = |expected| {
            self.play(
                "four.ini",
                &self.task(&json!({ "bundle": self.bundle() }), expected),
                &[],
            )
        };
        install("seen.paths.failed == 0")?;
        install("not seen.changed").map(drop)
    }

    /// The role `uninstall` takes all of it away.
    fn takes_away(&self) -> Result<()> {
        self.play(
            "four.ini",
            &self.role("uninstall", &json!({ "uninstall_cluster": "lab" })),
            &[],
        )?;
        remove(&self.home)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.home.join(name);
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn shared(&self, name: &str) -> String {
        self.stage.lab.share().join(name).display().to_string()
    }

    fn bundle(&self) -> String {
        self.shared("landfall.bundle")
    }

    fn task(&self, options: &Value, expected: &str) -> Value {
        self.module("cluster", options, expected)
    }

    fn module(&self, name: &str, options: &Value, expected: &str) -> Value {
        let mut options = options.clone();
        options["program"] = json!(self.shared("landfall"));
        options["accept_new_host_keys"] = json!(true);
        let run = json!({ "name": "Run landfall", format!("landfall.cluster.{name}"): options, "register": "seen" });
        let check = json!({ "name": "Look at what came of it", "run_once": true, "ansible.builtin.assert": { "that": [expected] } });
        json!([{ "name": "Lab", "hosts": "all", "gather_facts": false, "tasks": [run, check] }])
    }

    fn role(&self, name: &str, variables: &Value) -> Value {
        let mut variables = variables.clone();
        variables[format!("{name}_program")] = json!(self.shared("landfall"));
        variables[format!("{name}_accept_new_host_keys")] = json!(true);
        let role = json!({ "role": format!("landfall.cluster.{name}") });
        json!([{ "name": "Lab", "hosts": "all", "gather_facts": false, "vars": variables, "roles": [role] }])
    }

    /// Plays one playbook; returns what Ansible wrote.
    fn play(&self, inventory: &str, playbook: &Value, more: &[&str]) -> Result<String> {
        // JSON is YAML too.
        self.write("play.yml", &playbook.to_string())?;
        // This host may have routes of its own to what is a pod's address in the lab; the operator has none.
        let operator = self.stage.lab.pid(self.stage.lab.machine("operator")?)?;
        let mut play = root("nsenter");
        play.current_dir(&self.home)
            .args(["--net", "--target", &operator.to_string(), "env", "ANSIBLE_NOCOLOR=1"]);
        play.arg(format!("HOME={}", self.home.display()));
        play.arg(format!("ANSIBLE_COLLECTIONS_PATH={}", self.tools.collections.display()));
        play.arg(&self.tools.playbook)
            .args(["-i", inventory, "play.yml", "--private-key"])
            .arg(self.stage.lab.key())
            .args(more);
        let output = play
            .stdin(Stdio::null())
            .output()
            .context("ansible-playbook cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "ansible-playbook {inventory}: {}\n{text}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    Ok(())
}
