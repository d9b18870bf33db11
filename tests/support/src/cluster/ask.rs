//! The socket by which a machine's programs ask the model. One question for each connection: a line of JSON with the machine's name,
//! the words and what the program reads, answered by exit status, standard output and standard error. The words:
//!
//! ```text
//! authority, credential, admin-conf, found, wait-control-plane,
//! register, upload-config, join-kubelet, etcd-add, etcd-promote,
//! mark-control-plane                                                  kubeadm and its kubelet (programs/kubeadm.sh)
//! point NAME                                                          nothing but a named point in a long action
//! containers FILTER, tasks, exec CONTAINER PROGRAM…                   containerd's client (programs/ctr.sh)
//! connect ADDRESS, probe, mesh, listen ADDRESS PORT, relay ADDRESS    the agent's network (the node program)
//! ```
//! Every word but the last three, which change nothing of the cluster, is a named point, [`World::at_point`]; `point import` is named `import`.

use super::{State, World};
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

/// How a program ends.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Answer {
    pub(super) fn said(stdout: String) -> Self {
        Self {
            status: 0,
            stdout,
            stderr: String::new(),
        }
    }

    pub(super) fn failed(why: &str) -> Self {
        Self {
            status: 1,
            stdout: String::new(),
            stderr: format!("{why}\n"),
        }
    }
}

impl World {
    /// Answers on a socket until the process ends or the socket's model is gone.
    pub(crate) fn answer_on(&self, listener: UnixListener) {
        let world = Arc::downgrade(&self.0);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let Some(inner) = world.upgrade() else { return };
                thread::spawn(move || answer(&World(inner), connection));
            }
        });
    }

    fn dispatch(&self, node: &NodeName, words: &[String], input: &str) -> Answer {
        let word = words.first().map_or("", String::as_str);
        let argument = words.get(1).map_or("", String::as_str);
        if self.state().off.contains(node) {
            return Answer::failed("this machine is off");
        }
        match word {
            "mesh" => return self.state().mesh(node, input),
            "listen" => return self.state().listen(words),
            "relay" => return self.state().relay(node, argument),
            _ => {}
        }
        let point = if word == "point" { argument } else { word };
        self.pass_point(node, point, super::When::Before);
        let answer = match word {
            "point" => {
                if point == "import" {
                    self.state().must_be_intended(node, "an import", &[StepKind::Images]);
                }
                Answer::said(String::new())
            }
            "found" => self.found(node),
            _ => {
                let mut state = self.state();
                state.check();
                state.answer(node, word, words, input)
            }
        };
        self.pass_point(node, point, super::When::After);
        answer
    }
}

impl State {
    fn answer(&mut self, node: &NodeName, word: &str, words: &[String], input: &str) -> Answer {
        let argument = words.get(1).map_or("", String::as_str);
        match word {
            "authority" => self.make_authority(node),
            "credential" => self.credential(node),
            "admin-conf" => self.admin_conf(node),
            "wait-control-plane" => self.wait_control_plane(node),
            "register" => self.register_founder(node),
            "upload-config" => self.upload_config(node),
            "join-kubelet" => self.join_kubelet(node),
            "etcd-add" => self.add_member(node),
            "etcd-promote" => self.promote(node),
            "mark-control-plane" => self.mark_control_plane(node),
            "containers" => {
                let ids = self
                    .containers(node)
                    .into_iter()
                    .filter(|(_, labels)| fits(labels, argument));
                Answer::said(ids.map(|(id, _)| format!("{id}\n")).collect())
            }
            "tasks" => {
                let lines = self
                    .containers(node)
                    .into_iter()
                    .map(|(id, _)| format!("{id}    42    RUNNING\n"));
                Answer::said(format!("TASK    PID    STATUS\n{}", lines.collect::<String>()))
            }
            "exec" => self.exec(node, argument, words.get(2..).unwrap_or_default(), input),
            "connect" => self.connect(node, argument),
            "probe" => self.probe(node, input),
            other => Answer::failed(&format!("the model has no {other}")),
        }
    }

    fn exec(&mut self, node: &NodeName, container: &str, argv: &[String], input: &str) -> Answer {
        if !self.containers(node).iter().any(|(id, _)| id == container) {
            return Answer::failed(&format!("ctr: container {container} not found"));
        }
        match argv {
            [program, args @ ..] if program == "etcdctl" => self.etcdctl(node, args),
            [_, agent, probe] if agent == "agent" && probe == "probe" => self.probe(node, input),
            other => Answer::failed(&format!("no program {other:?}")),
        }
    }
}

/// Says whether labels fit containerd's filter: `labels."key"==value`, several with commas between them.
fn fits(labels: &Value, filter: &str) -> bool {
    filter.split(',').all(|part| {
        let Some((key, value)) = part.trim_start_matches("labels.").split_once("==") else {
            return false;
        };
        labels[key.trim_matches('"')] == value.trim_matches('"')
    })
}

fn answer(world: &World, connection: UnixStream) {
    let mut line = String::new();
    let asked = BufReader::new(&connection).read_line(&mut line).ok();
    let Some(asked) = asked.and_then(|_| serde_json::from_str::<Value>(&line).ok()) else {
        return;
    };
    let words = asked["words"].as_array().into_iter().flatten();
    let words: Vec<String> = words.filter_map(|w| w.as_str().map(str::to_owned)).collect();
    let node = asked["node"].as_str().and_then(|n| n.parse().ok());
    let answer = match node {
        Some(node) => world.dispatch(&node, &words, asked["input"].as_str().unwrap_or_default()),
        None => Answer::failed("no such machine"),
    };
    let text = json!({ "status": answer.status, "stdout": answer.stdout, "stderr": answer.stderr }).to_string();
    // A program that was killed does not read its answer.
    let _ = { &connection }.write_all(text.as_bytes());
}
