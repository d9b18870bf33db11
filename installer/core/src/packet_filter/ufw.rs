//! ufw's rules of its users. The kernel holds them as iptables rules without comments; the comments, and what ufw takes for the same rule, stand
//! in its file [`USER_RULES`], one line `### tuple ###` in front of the rules of each (ufw 0.36, `backend_iptables.py`).

use super::accept::{Accept, Peers, Protocol};
use super::{Chain, Hook, Variant};

/// How names of ufw's chains begin.
pub const PREFIX: &str = "ufw-";
/// Where ufw keeps the rules of its users.
pub const USER_RULES: &str = "/etc/ufw/user.rules";
/// The same of IPv6: a rule for everybody has a twin there.
pub const USER_RULES_6: &str = "/etc/ufw/user6.rules";
/// ufw's word for every address.
pub const ANYWHERE: &str = "0.0.0.0/0";
/// The same of IPv6.
pub const ANYWHERE_6: &str = "::/0";

/// Returns the chain that holds the users' rules of a hook.
pub fn chain_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Input => "ufw-user-input",
        Hook::Forward => "ufw-user-forward",
        Hook::Output => "ufw-user-output",
    }
}

/// A rule as ufw compares it: two rules that differ in action and comment alone are one to ufw, and the later one replaces the earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRule {
    /// What happens: `allow`, `deny_log` …
    pub action: String,
    /// Its comment.
    pub comment: Option<String>,
    /// What it is about.
    pub about: About,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    forwards: bool,
    protocol: String,
    to_port: String,
    to: String,
    from_port: String,
    from: String,
    /// `in`, `out`, `in_eth0`, `out_eth0`, or `in_eth0!out_eth1`.
    direction: String,
    /// Names of applications, where it has any.
    more: Vec<String>,
}

/// Reads the rules of a file.
pub fn rules(text: &str) -> Vec<UserRule> {
    text.lines().filter_map(tuple).collect()
}

/// Reads `### tuple ### [route:]ACTION PROTOCOL TO-PORT TO FROM-PORT FROM [APPLICATIONS] DIRECTION [comment=HEX]`.
fn tuple(line: &str) -> Option<UserRule> {
    let rest = line.strip_prefix("### tuple ###")?;
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    let comment = words.last().and_then(|word| word.strip_prefix("comment="));
    let comment = comment.map(|hex| unhex(hex).unwrap_or_default());
    if comment.is_some() {
        words.pop();
    }
    let direction = words.pop()?.to_owned();
    let [action, protocol, to_port, to, from_port, from, more @ ..] = words.as_slice() else {
        return None;
    };
    let forwards = action.strip_prefix("route:");
    let about = About {
        forwards: forwards.is_some(),
        protocol: (*protocol).to_owned(),
        to_port: (*to_port).to_owned(),
        to: (*to).to_owned(),
        from_port: (*from_port).to_owned(),
        from: (*from).to_owned(),
        direction,
        more: more.iter().map(|word| (*word).to_owned()).collect(),
    };
    Some(UserRule {
        action: forwards.unwrap_or(action).to_owned(),
        comment,
        about,
    })
}

fn unhex(text: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

/// Gives the rules of users in the kernel's chains the comments that they have in ufw's file. Where the two do not agree in number, the file was
/// changed and not loaded: then nothing is known.
pub(super) fn add_comments(chains: &mut [Chain], text: &str) {
    for hook in Hook::ALL {
        let name = chain_of(hook);
        let mut comment: Option<String> = None;
        let mut comments: Vec<Option<String>> = Vec::new();
        for line in text.lines() {
            if line.starts_with("### tuple ###") {
                comment = tuple(line).and_then(|rule| rule.comment);
            } else if line
                .strip_prefix("-A ")
                .is_some_and(|rule| rule.split(' ').next() == Some(name))
            {
                comments.push(comment.clone());
            }
        }
        let chain = chains
            .iter_mut()
            .find(|chain| chain.name == name && chain.variant != Variant::Nftables);
        if let Some(chain) = chain.filter(|chain| chain.rules.len() == comments.len()) {
            for (rule, comment) in chain.rules.iter_mut().zip(comments) {
                rule.comment = comment;
            }
        }
    }
}

/// Returns the rules that let something through, one for each pair of source and destination; none for what ufw passes by rules of its own.
pub fn wanted(accept: &Accept, comment: &str) -> Vec<UserRule> {
    if !accept.begins_outside_loopback() {
        return vec![];
    }
    let ends = |peers: &Peers| match peers {
        Peers::Any => vec![ANYWHERE.to_owned()],
        Peers::Addresses(list) => list.iter().map(ToString::to_string).collect(),
        Peers::Network(network) => vec![network.to_string()],
    };
    let ports: Vec<String> = accept.ports.iter().map(u16::to_string).collect();
    let links = [("in_", &accept.through), ("out_", &accept.out_of)];
    let links = links
        .iter()
        .filter_map(|(word, link)| Some(format!("{word}{}", link.as_ref()?)));
    let direction = match (links.collect::<Vec<_>>().join("!"), accept.hook) {
        (named, _) if !named.is_empty() => named,
        (_, Hook::Output) => "out".to_owned(),
        (_, Hook::Input | Hook::Forward) => "in".to_owned(),
    };
    let mut rules = Vec::new();
    for from in ends(&accept.from) {
        for to in ends(&accept.to) {
            rules.push(UserRule {
                action: "allow".to_owned(),
                comment: Some(comment.to_owned()),
                about: About {
                    forwards: accept.hook == Hook::Forward,
                    protocol: accept.protocol.map_or("any", Protocol::as_str).to_owned(),
                    to_port: if ports.is_empty() {
                        "any".to_owned()
                    } else {
                        ports.join(",")
                    },
                    to: to.clone(),
                    from_port: "any".to_owned(),
                    from: from.clone(),
                    direction: direction.clone(),
                    more: vec![],
                },
            });
        }
    }
    rules
}

impl UserRule {
    /// Returns the arguments by which ufw adds it, or changes its comment.
    pub fn addition(&self) -> Vec<String> {
        let mut words = self.words(false);
        if let Some(comment) = &self.comment {
            words.extend(["comment".to_owned(), comment.clone()]);
        }
        words
    }

    /// Returns the arguments by which ufw deletes it.
    pub fn deletion(&self) -> Vec<String> {
        self.words(true)
    }

    fn words(&self, deletes: bool) -> Vec<String> {
        let about = &self.about;
        let mut words = Vec::new();
        words.extend(about.forwards.then_some("route"));
        words.extend(deletes.then_some("delete"));
        // The rest of the action is how it is logged.
        let (action, logged) = match self.action.split_once('_') {
            Some((action, logged)) => (action, Some(logged)),
            None => (self.action.as_str(), None),
        };
        words.push(action);
        for part in about.direction.split('!') {
            match part.split_once('_') {
                Some((direction, link)) => words.extend([direction, "on", link]),
                None if part == "out" => words.push(part),
                None => {}
            }
        }
        words.extend(logged);
        let end = |address: &str| {
            if address == ANYWHERE {
                "any".to_owned()
            } else {
                address.to_owned()
            }
        };
        let (from, to) = (end(&about.from), end(&about.to));
        for (word, address, port) in [("from", &from, &about.from_port), ("to", &to, &about.to_port)] {
            words.extend([word, address]);
            if port != "any" {
                words.extend(["port", port]);
            }
        }
        if about.protocol != "any" {
            words.extend(["proto", &about.protocol]);
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_filter::iptables;

    /// As ufw 0.36.2 writes it.
    const FILE: &str = "*filter\n:ufw-user-input - [0:0]\n### RULES ###\n\n\
        ### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=737368\n\
        -A ufw-user-input -p tcp --dport 22 -j ACCEPT\n\n\
        ### tuple ### deny any any 0.0.0.0/0 any 203.0.113.9 in\n\
        -A ufw-user-input -s 203.0.113.9 -j DROP\n\n\
        ### tuple ### allow_log tcp 80,443,6443 0.0.0.0/0 any 10.0.0.2 in_eth0 comment=6c616e6466616c6c203066316520616220696e707574\n\
        -A ufw-user-input -i eth0 -p tcp -m multiport --dports 80,443,6443 -s 10.0.0.2 -j ACCEPT\n\n\
        ### tuple ### route:allow any any 0.0.0.0/0 any 10.244.0.0/16 in_cni0!out_eth0\n\
        -A ufw-user-forward -i cni0 -s 10.244.0.0/16 -j ACCEPT\n\
        ### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 Apache - in\n\
        ### tuple ### nonsense\n### tuple ###\n### END RULES ###\nCOMMIT\n";

    #[test]
    fn rules_are_read_with_their_comments_and_told_as_ufw_takes_them() {
        let rules = rules(FILE);
        let told: Vec<String> = rules.iter().map(|rule| rule.deletion().join(" ")).collect();
        assert_eq!(
            told,
            [
                "delete allow from any to any port 22 proto tcp",
                "delete deny from 203.0.113.9 to any",
                "delete allow in on eth0 log from 10.0.0.2 to any port 80,443,6443 proto tcp",
                "route delete allow in on cni0 out on eth0 from 10.244.0.0/16 to any",
                "delete allow from any to any port 80 proto tcp",
            ]
        );
        assert_eq!(rules[2].comment.as_deref(), Some("landfall 0f1e ab input"));
        assert_eq!(
            rules[4].about.more,
            ["Apache", "-"],
            "it is another rule to ufw than one without a name"
        );
    }

    #[test]
    fn the_kernels_rules_get_the_comments_of_the_file_when_both_agree() {
        let saved = |rules: &str| {
            let text = format!("*filter\n:INPUT DROP [0:0]\n:ufw-user-input - [0:0]\n{rules}COMMIT\n");
            let mut chains = iptables::parse(&text, Variant::IptablesNft);
            add_comments(&mut chains, FILE);
            let chain = chains.into_iter().find(|chain| chain.name == "ufw-user-input").unwrap();
            chain.rules.into_iter().map(|rule| rule.comment).collect::<Vec<_>>()
        };
        let rule = "-A ufw-user-input -j ACCEPT\n";
        let comment = |text: &str| Some(text.to_owned());
        assert_eq!(
            saved(&rule.repeat(3)),
            [comment("ssh"), None, comment("landfall 0f1e ab input")]
        );
        assert_eq!(saved(&rule.repeat(2)), [None, None], "not loaded");
    }

    #[test]
    fn what_ufw_passes_by_itself_needs_no_rule() {
        let accept = Accept::at(Hook::Output);
        assert_eq!(
            wanted(&accept, "c")[0].addition().join(" "),
            "allow out from any to any comment c"
        );
        let established = Accept {
            established: true,
            ..accept.clone()
        };
        let loopback = Accept {
            out_of: Some("lo".to_owned()),
            ..accept
        };
        assert_eq!([wanted(&established, "c"), wanted(&loopback, "c")].concat(), []);
    }
}
