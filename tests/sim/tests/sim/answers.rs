//! The model answers as a real cluster does: the questions of `tests/answers`, whose answers the lab compares with a real one.

use crate::scene::Scene;
use anyhow::Result;
use landfall_test_answers::{Cluster, Condition, Ended, Rights, ask, differences};
use landfall_test_support::cluster::{AskedWith, World};
use serde_json::Value;

struct Model<'a>(&'a World);

impl Cluster for Model<'_> {
    fn api(&self, by: &str, rights: Rights, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let rights = match rights {
            Rights::Administrator => AskedWith::AdministratorsToken,
            Rights::UnknownToken => AskedWith::UnknownToken,
        };
        self.0.ask_api(&by.parse()?, rights, method, target, body)
    }

    fn etcdctl(&self, on: &str, args: &[&str]) -> Result<Ended> {
        let (ok, stdout, stderr) = self.0.etcdctl(&on.parse()?, args);
        Ok(Ended { ok, stdout, stderr })
    }
}

#[test]
fn the_model_answers_as_a_real_cluster_does() {
    let scene = Scene::new(3, 2);
    scene.must_work(&scene.install("100-a"), "install");
    let must_be_as_recorded = |condition: Condition| {
        let answers = ask(&Model(scene.fleet.world()), condition).unwrap();
        let lines = differences(condition, &answers).unwrap();
        assert!(lines.is_empty(), "{condition:?}:\n{}", lines.join("\n"));
    };
    let power = |name: &str, on: bool| {
        let name = name.parse().unwrap();
        if on {
            scene.fleet.power_on(&name)
        } else {
            scene.fleet.power_off(&name)
        }
        .unwrap();
    };
    must_be_as_recorded(Condition::Healthy);
    power("cp-1", false);
    must_be_as_recorded(Condition::OneOff);
    power("cp-1", true);
    power("cp-2", false);
    power("cp-3", false);
    must_be_as_recorded(Condition::NoQuorum);
}
