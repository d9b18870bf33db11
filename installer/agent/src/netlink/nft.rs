//! nftables without the `nft` program: lists tables, chains and the jumps in rules; deletes tables, and chains by prefix.
//! iptables-nft keeps its chains in tables of fixed names ([`IPTABLES_TABLES`]), so this is also how iptables chains go.

use super::uapi::{
    NF_ACCEPT, NF_INET_FORWARD, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_PRE_ROUTING, NFGENMSG_LEN,
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_INET,
    NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN,
    NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_GEN_ID,
    NFTA_HOOK_HOOKNUM, NFTA_IMMEDIATE_DATA, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_TABLE,
    NFTA_TABLE_NAME, NFTA_TARGET_NAME, NFTA_VERDICT_CHAIN,
};
use landfall_netlink::{Body, Message, NLM_F_CREATE, NLM_F_EXCL, Netlink, Subsystem, attribute, attributes, text_of};
use std::collections::BTreeSet;
use std::io;

/// Tables that iptables-nft makes for itself.
pub const IPTABLES_TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Hooks of IPv4 and IPv6 at which packets are filtered.
const FILTERING: [u32; 4] = [
    NF_INET_PRE_ROUTING,
    NF_INET_LOCAL_IN,
    NF_INET_FORWARD,
    NF_INET_LOCAL_OUT,
];

/// Base chains that iptables-nft makes in them.
const IPTABLES_BASES: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A table's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: &'static str,
    /// Its name.
    pub name: String,
}

impl Table {
    /// Reads a full name, for instance `inet filter`.
    pub fn parse(full_name: &str) -> Option<Self> {
        let (family, name) = full_name.split_once(' ')?;
        let (_, family) = FAMILIES.iter().find(|(_, known)| *known == family)?;
        Some(Self {
            family,
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The table it is in.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// Whether the kernel calls it by itself (it has a hook).
    pub is_base: bool,
    /// Whether it sees what is for the machine itself, goes through it or comes from it.
    pub filters: bool,
    /// Whether it lets pass what no rule decides; only base chains have another policy.
    pub accepts: bool,
}

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The table it is in.
    pub table: Table,
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number for it.
    handle: [u8; 8],
    /// Chains that it jumps or goes to.
    pub jumps_to: Vec<String>,
    /// Whether it translates addresses (masquerade, SNAT, DNAT).
    pub translates: bool,
}

/// Everything there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// All tables.
    pub tables: BTreeSet<Table>,
    /// All chains.
    pub chains: Vec<Chain>,
    /// All rules.
    pub rules: Vec<Rule>,
}

const FAMILIES: [(u8, &str); 6] = [
    (NFPROTO_INET, "inet"),
    (NFPROTO_IPV4, "ip"),
    (NFPROTO_ARP, "arp"),
    (NFPROTO_NETDEV, "netdev"),
    (NFPROTO_BRIDGE, "bridge"),
    (NFPROTO_IPV6, "ip6"),
];

fn family_name(number: u8) -> Option<&'static str> {
    FAMILIES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

fn family_number(name: &str) -> u8 {
    FAMILIES
        .iter()
        .find(|(_, n)| *n == name)
        .map_or(0, |(number, _)| *number)
}

fn split(message: &Message) -> Option<(&'static str, &[u8])> {
    Some((family_name(*message.body.first()?)?, message.body.get(NFGENMSG_LEN..)?))
}

fn dump(netlink: &mut Netlink, kind: u16) -> io::Result<Vec<Message>> {
    let mut attempts = 0;
    loop {
        match netlink.dump(kind, &Body::new(&[0; NFGENMSG_LEN])) {
            // EINTR says that the ruleset changed during the walk: the list may have holes.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < 10 => attempts += 1,
            other => return other,
        }
    }
}

/// Lists all tables. A kernel without nftables has none.
pub fn tables() -> io::Result<BTreeSet<Table>> {
    tables_over(&mut Netlink::open(Subsystem::Netfilter)?)
}

fn tables_over(netlink: &mut Netlink) -> io::Result<BTreeSet<Table>> {
    let tables = match dump(netlink, NFT_MSG_GETTABLE) {
        Ok(tables) => tables,
        // What the kernel says when it has no nftables at all.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            return Ok(BTreeSet::new());
        }
        Err(error) => return Err(error),
    };
    let table = |message: &Message| {
        let (family, attributes) = split(message)?;
        let name = text_of(attributes, NFTA_TABLE_NAME)?;
        Some(Table { family, name })
    };
    Ok(tables.iter().filter_map(table).collect())
}

/// Reads all tables, chains and rules. A kernel without nftables has none.
pub fn read() -> io::Result<Ruleset> {
    let mut netlink = Netlink::open(Subsystem::Netfilter)?;
    let mut all = Ruleset {
        tables: tables_over(&mut netlink)?,
        ..Ruleset::default()
    };
    if all.tables.is_empty() {
        return Ok(all);
    }
    all.chains = dump(&mut netlink, NFT_MSG_GETCHAIN)?
        .iter()
        .filter_map(chain_of)
        .collect();
    all.rules = dump(&mut netlink, NFT_MSG_GETRULE)?
        .iter()
        .filter_map(rule_of)
        .collect();
    Ok(all)
}

fn chain_of(message: &Message) -> Option<Chain> {
    let (family, attributes) = split(message)?;
    let policy = attribute(attributes, NFTA_CHAIN_POLICY).and_then(|v| Some(u32::from_be_bytes(v.try_into().ok()?)));
    Some(Chain {
        table: Table {
            family,
            name: text_of(attributes, NFTA_CHAIN_TABLE)?,
        },
        name: text_of(attributes, NFTA_CHAIN_NAME)?,
        is_base: attribute(attributes, NFTA_CHAIN_HOOK).is_some(),
        filters: attribute(attributes, NFTA_CHAIN_HOOK)
            .and_then(|hook| attribute(hook, NFTA_HOOK_HOOKNUM))
            .and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)))
            .is_some_and(|number| FILTERING.contains(&number)),
        accepts: policy.unwrap_or(NF_ACCEPT) == NF_ACCEPT,
    })
}

fn rule_of(message: &Message) -> Option<Rule> {
    let (family, body) = split(message)?;
    let expressions = attribute(body, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    Some(Rule {
        table: Table {
            family,
            name: text_of(body, NFTA_RULE_TABLE)?,
        },
        chain: text_of(body, NFTA_RULE_CHAIN)?,
        handle: attribute(body, NFTA_RULE_HANDLE)?.try_into().ok()?,
        jumps_to: attributes(expressions)
            .filter_map(|(_, expression)| jump_of(expression))
            .collect(),
        translates: attributes(expressions).any(|(_, expression)| is_translation(expression)),
    })
}

/// A jump is an "immediate" expression that loads a verdict with a chain's name.
fn jump_of(expression: &[u8]) -> Option<String> {
    if text_of(expression, NFTA_EXPR_NAME)? != "immediate" {
        return None;
    }
    let data = attribute(attribute(expression, NFTA_EXPR_DATA)?, NFTA_IMMEDIATE_DATA)?;
    text_of(attribute(data, NFTA_DATA_VERDICT)?, NFTA_VERDICT_CHAIN)
}

/// Says whether an expression translates addresses: nftables' own ones, or a target of iptables-nft.
fn is_translation(expression: &[u8]) -> bool {
    match text_of(expression, NFTA_EXPR_NAME).as_deref() {
        Some("masq" | "nat") => true,
        Some("target") => attribute(expression, NFTA_EXPR_DATA)
            .and_then(|data| text_of(data, NFTA_TARGET_NAME))
            .is_some_and(|name| matches!(name.as_str(), "MASQUERADE" | "SNAT" | "DNAT" | "NETMAP")),
        _ => false,
    }
}

impl Ruleset {
    /// Says whether a table stands, named as `family name`.
    pub fn has_table(&self, full_name: &str) -> bool {
        self.tables.iter().any(|t| t.to_string() == full_name)
    }

    /// Says whether any chain's name begins with `prefix`.
    pub fn has_chain_with(&self, prefix: &str) -> bool {
        self.chains.iter().any(|c| c.name.starts_with(prefix))
    }

    /// Returns which of iptables-nft's own tables are absent, as `family name`, and which base chains of those that are there, as
    /// `family table chain`.
    pub fn absent_iptables_bases(&self) -> Vec<String> {
        let mut absent = Vec::new();
        for family in ["ip", "ip6"] {
            for name in IPTABLES_TABLES {
                let table = format!("{family} {name}");
                if !self.has_table(&table) {
                    absent.push(table);
                    continue;
                }
                let there = |base: &str| {
                    let mut chains = self.chains.iter();
                    chains.any(|c| c.name == base && c.table.to_string() == table)
                };
                absent.extend(
                    IPTABLES_BASES
                        .iter()
                        .filter(|b| !there(b))
                        .map(|b| format!("{table} {b}")),
                );
            }
        }
        absent
    }

    /// Returns those of `candidates` (`family table chain`) that are accepting base chains without a rule.
    pub fn idle_base_chains(&self, candidates: &[String]) -> Vec<Chain> {
        let idle = |c: &&Chain| {
            candidates.contains(&format!("{} {}", c.table, c.name))
                && c.is_base
                && c.accepts
                && !self.rules.iter().any(|r| r.table == c.table && r.chain == c.name)
        };
        self.chains.iter().filter(idle).cloned().collect()
    }

    /// Returns those of `candidates` (`family name`) that hold nothing anybody wants: no rule, base chains only, all accepting.
    pub fn idle_tables(&self, candidates: &[String]) -> Vec<Table> {
        let idle = |table: &Table| {
            candidates.contains(&table.to_string())
                && !self.rules.iter().any(|r| &r.table == table)
                && self
                    .chains
                    .iter()
                    .filter(|c| &c.table == table)
                    .all(|c| c.is_base && c.accepts)
        };
        self.tables.iter().filter(|t| idle(t)).cloned().collect()
    }
}

pub(super) fn fixed(family: &str) -> Body {
    Body::new(&[family_number(family), 0, 0, 0])
}

pub(super) fn transaction(messages: &[(u16, u16, Body)]) -> io::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    // The marks carry the subsystem's number in network byte order where other messages have zero.
    let mark = Body::new(&[0, 0, 0, NFNL_SUBSYS_NFTABLES]);
    Netlink::open(Subsystem::Netfilter)?.transaction(
        (NFNL_MSG_BATCH_BEGIN, &mark),
        messages,
        (NFNL_MSG_BATCH_END, &mark),
    )
}

/// Makes an empty table; one that is there is an error.
pub fn make_table(table: &Table) -> io::Result<()> {
    let body = fixed(table.family).with_text(NFTA_TABLE_NAME, &table.name);
    transaction(&[(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, body)])
}

/// Deletes whole tables with everything in them; ones that are gone meanwhile are an error, so that the caller reads again.
pub fn delete_tables<'a>(tables: impl IntoIterator<Item = &'a Table>) -> io::Result<()> {
    let messages: Vec<_> = tables
        .into_iter()
        .map(|t| (NFT_MSG_DELTABLE, 0, fixed(t.family).with_text(NFTA_TABLE_NAME, &t.name)))
        .collect();
    transaction(&messages)
}

/// Deletes all chains whose names begin with one of `prefixes`, in every table, with the rules that lead to them, and nothing else.
pub fn delete_chains(all: &Ruleset, prefixes: &[String]) -> io::Result<()> {
    let ours = |name: &str| prefixes.iter().any(|p| name.starts_with(p.as_str()));
    let doomed: Vec<_> = all.chains.iter().filter(|c| !c.is_base && ours(&c.name)).collect();
    let is_doomed = |table: &Table, name: &str| doomed.iter().any(|c| &c.table == table && c.name == name);
    let mut messages = Vec::new();
    for rule in &all.rules {
        let leads = rule.jumps_to.iter().any(|to| is_doomed(&rule.table, to));
        if leads && !is_doomed(&rule.table, &rule.chain) {
            messages.push(deletion(rule));
        }
    }
    // All are emptied before any is deleted: they jump to each other.
    for chain in &doomed {
        let body = fixed(chain.table.family)
            .with_text(NFTA_RULE_TABLE, &chain.table.name)
            .with_text(NFTA_RULE_CHAIN, &chain.name);
        messages.push((NFT_MSG_DELRULE, 0, body));
    }
    for chain in &doomed {
        let body = fixed(chain.table.family)
            .with_text(NFTA_CHAIN_TABLE, &chain.table.name)
            .with_text(NFTA_CHAIN_NAME, &chain.name);
        messages.push((NFT_MSG_DELCHAIN, 0, body));
    }
    transaction(&messages)
}

/// The message that deletes one rule.
pub(super) fn deletion(rule: &Rule) -> (u16, u16, Body) {
    let body = fixed(rule.table.family)
        .with_text(NFTA_RULE_TABLE, &rule.table.name)
        .with_text(NFTA_RULE_CHAIN, &rule.chain);
    (NFT_MSG_DELRULE, 0, body.with(NFTA_RULE_HANDLE, &rule.handle))
}

/// Returns the rules with a comment that begins with `mark` and goes on with a space or ends: nftables' own, and those of iptables-nft. A kernel
/// without nftables has none.
pub fn marked(mark: &str) -> io::Result<Vec<Rule>> {
    let mut netlink = Netlink::open(Subsystem::Netfilter)?;
    if tables_over(&mut netlink)?.is_empty() {
        return Ok(vec![]);
    }
    let rules = dump(&mut netlink, NFT_MSG_GETRULE)?;
    // nft keeps comments as the rule's user data, iptables as a match: the text stands in both as it is.
    let begins = |end: u8| [mark.as_bytes(), &[end]].concat();
    let marks = [begins(b' '), begins(0)];
    let has_mark = |message: &&Message| {
        let body = &message.body;
        marks
            .iter()
            .any(|mark| body.windows(mark.len()).any(|part| part == mark))
    };
    Ok(rules.iter().filter(has_mark).filter_map(rule_of).collect())
}

/// Deletes rules in one transaction; ones that are gone meanwhile are an error, so that the caller reads again.
pub fn delete_rules(rules: &[Rule]) -> io::Result<()> {
    transaction(&rules.iter().map(deletion).collect::<Vec<_>>())
}

/// Returns the number of the ruleset: another one when any table, chain or rule has changed. A kernel without nftables has none.
pub fn generation() -> Option<Vec<u8>> {
    let mut netlink = Netlink::open(Subsystem::Netfilter).ok()?;
    let answer = netlink
        .request(NFT_MSG_GETGEN, 0, &Body::new(&[0; NFGENMSG_LEN]))
        .ok()??;
    let number = attribute(answer.body.get(NFGENMSG_LEN..)?, NFTA_GEN_ID)?;
    Some(number.to_vec())
}

/// Deletes chains that hold no rule.
pub fn delete_empty_chains(chains: &[Chain]) -> io::Result<()> {
    let messages: Vec<_> = chains
        .iter()
        .map(|chain| {
            let body = fixed(chain.table.family)
                .with_text(NFTA_CHAIN_TABLE, &chain.table.name)
                .with_text(NFTA_CHAIN_NAME, &chain.name);
            (NFT_MSG_DELCHAIN, 0, body)
        })
        .collect();
    if messages.is_empty() {
        Ok(())
    } else {
        transaction(&messages)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::netlink::uapi::*;
    use landfall_netlink::NLM_F_APPEND;

    pub(crate) fn make(messages: &[(u16, u16, Body)]) -> io::Result<()> {
        transaction(messages)
    }

    pub(crate) fn table(family: &str, name: &str) -> (u16, u16, Body) {
        (
            NFT_MSG_NEWTABLE,
            NLM_F_CREATE,
            fixed(family).with_text(NFTA_TABLE_NAME, name),
        )
    }

    pub(crate) fn chain(table: &str, name: &str, is_base: bool) -> (u16, u16, Body) {
        let body = fixed("ip")
            .with_text(NFTA_CHAIN_TABLE, table)
            .with_text(NFTA_CHAIN_NAME, name);
        let hook = Body::default()
            .with(NFTA_HOOK_HOOKNUM, &NF_INET_LOCAL_IN.to_be_bytes())
            .with(NFTA_HOOK_PRIORITY, &0u32.to_be_bytes());
        let body = if is_base {
            body.with_nested(NFTA_CHAIN_HOOK, hook)
                .with_text(NFTA_CHAIN_TYPE, "filter")
        } else {
            body
        };
        (NFT_MSG_NEWCHAIN, NLM_F_CREATE, body)
    }

    pub(crate) fn jump(table: &str, from: &str, to: &str) -> (u16, u16, Body) {
        let verdict = Body::default()
            .with(NFTA_VERDICT_CODE, &NFT_JUMP.to_be_bytes())
            .with_text(NFTA_VERDICT_CHAIN, to);
        let data = Body::default()
            .with(NFTA_IMMEDIATE_DREG, &NFT_REG_VERDICT.to_be_bytes())
            .with_nested(
                NFTA_IMMEDIATE_DATA,
                Body::default().with_nested(NFTA_DATA_VERDICT, verdict),
            );
        append(table, from, "immediate", data)
    }

    /// Appends a rule of one expression behind the rules that are there.
    pub(crate) fn append(table: &str, chain: &str, expression: &str, data: Body) -> (u16, u16, Body) {
        let expression = Body::default()
            .with_text(NFTA_EXPR_NAME, expression)
            .with_nested(NFTA_EXPR_DATA, data);
        let body = fixed("ip")
            .with_text(NFTA_RULE_TABLE, table)
            .with_text(NFTA_RULE_CHAIN, chain);
        let list = Body::default().with_nested(NFTA_LIST_ELEM, expression);
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        (NFT_MSG_NEWRULE, flags, body.with_nested(NFTA_RULE_EXPRESSIONS, list))
    }

    /// A chain in which addresses may be translated, and a rule that does so.
    pub(crate) fn masquerade(table: &str, name: &str) -> [(u16, u16, Body); 2] {
        let hook = Body::default()
            .with(NFTA_HOOK_HOOKNUM, &NF_INET_POST_ROUTING.to_be_bytes())
            .with(NFTA_HOOK_PRIORITY, &100u32.to_be_bytes());
        let body = fixed("ip")
            .with_text(NFTA_CHAIN_TABLE, table)
            .with_text(NFTA_CHAIN_NAME, name)
            .with_nested(NFTA_CHAIN_HOOK, hook)
            .with_text(NFTA_CHAIN_TYPE, "nat");
        [
            (NFT_MSG_NEWCHAIN, NLM_F_CREATE, body),
            append(table, name, "masq", Body::default()),
        ]
    }

    /// Gives this thread a network namespace of its own, which ends with it.
    #[expect(
        deprecated,
        reason = "only this thread's own network namespace is left, and no descriptor is shared"
    )]
    pub(crate) fn own_namespace() {
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("these tests need root");
    }

    #[test]
    fn chains_go_with_the_jumps_to_them_and_foreign_rules_stay() {
        own_namespace();
        assert_eq!(read().unwrap(), Ruleset::default());
        let made = [
            table("ip", "filter"),
            table("ip", "nat"),
            table("inet", "foreign"),
            table("ip6", "kube-proxy"),
            chain("filter", "INPUT", true),
            chain("nat", "OUTPUT", true),
            chain("filter", "KUBE-FIREWALL", false),
            chain("filter", "KUBE-B", false),
            chain("nat", "KUBE-SERVICES", false),
            chain("filter", "MINE", false),
            jump("filter", "INPUT", "MINE"),
            jump("filter", "INPUT", "KUBE-FIREWALL"),
            jump("filter", "KUBE-FIREWALL", "KUBE-B"),
            jump("filter", "KUBE-FIREWALL", "MINE"),
            jump("nat", "OUTPUT", "KUBE-SERVICES"),
        ];
        transaction(&made).unwrap();
        let all = read().unwrap();
        assert_eq!((all.tables.len(), all.chains.len(), all.rules.len()), (4, 6, 5));
        assert!(all.has_table("ip6 kube-proxy") && all.has_chain_with("KUBE-"));
        let absent = all.absent_iptables_bases();
        let tables = absent.iter().filter(|name| name.split(' ').count() == 2);
        assert_eq!(tables.count(), 8);

        delete_tables(all.tables.iter().filter(|t| t.name == "kube-proxy")).unwrap();
        delete_chains(&all, &["KUBE-".to_owned()]).unwrap();
        let left = read().unwrap();
        assert!(!left.has_chain_with("KUBE-"));
        let jumps: Vec<_> = left
            .rules
            .iter()
            .map(|r| (r.chain.as_str(), r.jumps_to.as_slice()))
            .collect();
        assert_eq!(jumps, [("INPUT", &["MINE".to_owned()][..])]);

        let bases = ["ip nat OUTPUT", "ip filter INPUT"].map(str::to_owned);
        let idle: Vec<_> = left.idle_base_chains(&bases).into_iter().map(|c| c.name).collect();
        assert_eq!(idle, ["OUTPUT"], "a base chain with a rule stays");
        let absent = ["ip filter", "ip nat", "inet foreign"].map(str::to_owned);
        let idle = left.idle_tables(&absent);
        assert_eq!(
            idle.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["inet foreign", "ip nat"]
        );
        delete_tables(idle.iter().filter(|t| t.name == "nat")).unwrap();
        let left = read().unwrap();
        let names: Vec<_> = left.tables.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["inet foreign", "ip filter"]);
        assert!(delete_tables(&idle).is_err(), "one of them is gone already");
        assert_eq!(read().unwrap(), left, "a transaction that fails changes nothing");
    }

    #[test]
    fn links_and_routes_come_and_go() {
        use crate::netlink::route;
        own_namespace();
        let run = |args: &[&str]| {
            assert!(
                std::process::Command::new("ip").args(args).status().unwrap().success(),
                "ip {args:?}"
            );
        };
        run(&["link", "set", "lo", "up"]);
        run(&["link", "add", "cni0", "type", "bridge"]);
        run(&["link", "add", "vethx", "type", "veth", "peer", "name", "vethy"]);
        run(&["link", "set", "vethx", "master", "cni0"]);
        run(&["addr", "add", "10.9.0.1/24", "dev", "cni0"]);
        let lease = ["valid_lft", "600", "preferred_lft", "600"];
        run(&[&["addr", "add", "10.9.1.1/24", "dev", "cni0"][..], &lease].concat());
        run(&["link", "set", "cni0", "up"]);
        let network = "10.96.0.0/12".parse().unwrap();
        assert!(route::add_link_route(&network, "absent").is_err());
        for _ in 0..2 {
            route::add_link_route(&network, "cni0").unwrap();
            assert!(route::has_link_route(&network, "cni0").unwrap());
        }
        let routes = route::routes().unwrap();
        assert!(
            routes.iter().any(|r| r.destination == network && r.interface == "cni0"),
            "{routes:?}"
        );
        let peer = route::route_to("10.9.0.7".parse().unwrap()).unwrap().unwrap();
        assert_eq!(
            (peer.source.to_string().as_str(), peer.interface.as_str()),
            ("10.9.0.1", "cni0")
        );
        assert_eq!(route::route_to("192.0.2.1".parse().unwrap()).unwrap(), None);
        assert!(
            route::addresses()
                .unwrap()
                .iter()
                .any(|a| a.address.to_string() == "10.9.0.1" && a.prefix == 24 && !a.is_leased)
        );
        let leased: Vec<_> = route::addresses()
            .unwrap()
            .into_iter()
            .filter(|a| a.is_leased)
            .collect();
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].address.to_string(), "10.9.1.1", "an address with a lifetime");
        for _ in 0..2 {
            route::remove_link_route(&network, "cni0").unwrap();
        }
        assert!(!route::has_link_route(&network, "cni0").unwrap());
        let links = route::links().unwrap();
        let bridge = links.iter().find(|l| l.name == "cni0").unwrap();
        assert!(
            links
                .iter()
                .any(|l| l.name == "vethx" && l.master == Some(bridge.index))
        );
        route::delete_link(bridge.index).unwrap();
        route::delete_link(bridge.index).unwrap();
        assert!(!route::links().unwrap().iter().any(|l| l.name == "cni0"));
    }
}
