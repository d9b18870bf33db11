//! `ssh_config` of any bytes: see [`crate::fuzz`].

use super::apply::Local;
use super::{MAX_DEPTH, SshConfig, line};
use crate::fuzz::fuzz;
use landfall_core::inventory::Proxy;
use landfall_core::spec::parse;
use std::path::Path;

#[test]
fn settings_of_any_text_complete_a_login_or_say_why_not() {
    let text = "nodes: [{name: cp-1, role: control-plane, host: cp-1, user: admin}]\n";
    let desired = parse::cluster_yaml(text, "cluster.yaml").unwrap();
    let local = Local {
        user: "ann".to_owned(),
        home: "/home/ann".into(),
    };
    fuzz("ssh-config", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let mut config = SshConfig::default();
        // As deep as files may be included: no file of this machine is read.
        line::parse(text, Path::new("/nonexistent"), MAX_DEPTH, &mut config.lines);
        let complete = || {
            let mut connect = desired.inventory.nodes[0].connect.clone();
            connect.ssh.unset.user = true;
            connect.ssh.unset.port = true;
            let done = config.apply(&mut connect, &local);
            (done, connect)
        };
        let (done, connect) = complete();
        assert_eq!((&done, &connect), (&complete().0, &complete().1), "{text:?}");
        match done {
            Err(why) => assert!(!why.is_empty(), "{text:?}: a refusal says why"),
            Ok(ignored) => assert!(ignored.iter().all(|name| !name.is_empty()), "{text:?}: {ignored:?}"),
        }
        if let Some(Proxy::Jump(hops)) = &connect.ssh.proxy {
            assert!(!hops.is_empty(), "{text:?}");
        }
    });
}
