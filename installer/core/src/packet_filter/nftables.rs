//! Reads what `nft --json list table` prints (libnftables-json(5)).

use super::{Chain, Field, Hook, Match, Rule, Value, Variant, Verdict, addresses};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Statements after which the next one decides. (A limit is a condition, and not among them.)
const PASSING: [&str; 11] = [
    "counter",
    "log",
    "mangle",
    "notrack",
    "ct helper",
    "ct timeout",
    "set",
    "flow",
    "dup",
    "secmark",
    "ct expectation",
];

/// Statements that are conditions: without a verdict behind them nothing is decided.
const CONDITIONS: [&str; 5] = ["limit", "quota", "ct count", "meter", "last"];

/// Reads the chains of IPv4; `None` when it is no such text.
pub fn parse(text: &str) -> Option<Vec<Chain>> {
    let all: Json = serde_json::from_str(text).ok()?;
    let objects = all["nftables"].as_array()?;
    let text_of = |object: &Json, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let table_of = |object: &Json| format!("{} {}", text_of(object, "family"), text_of(object, "table"));
    let mut chains: Vec<Chain> = Vec::new();
    let mut sets: BTreeMap<(String, String), Vec<Json>> = BTreeMap::new();
    for object in objects {
        let chain = &object["chain"];
        if is_of_ipv4(chain) {
            chains.push(Chain {
                variant: Variant::Nftables,
                table: table_of(chain),
                name: text_of(chain, "name"),
                // Chains that translate addresses or choose routes drop nothing by their nature; their policies may.
                hook: chain["hook"].as_str().and_then(Hook::from_name),
                is_prerouting: chain["hook"] == "prerouting",
                drops_by_policy: chain["policy"] == "drop",
                rules: vec![],
            });
        }
        let set = &object["set"];
        if let Some(elements) = set["elem"].as_array() {
            sets.insert((table_of(set), text_of(set, "name")), elements.clone());
        }
    }
    for object in objects {
        let rule = &object["rule"];
        let (table, name) = (table_of(rule), text_of(rule, "chain"));
        if let Some(chain) = chains.iter_mut().find(|c| c.table == table && c.name == name) {
            let reader = Reader {
                table: &table,
                sets: &sets,
            };
            chain.rules.extend(reader.rules(rule));
        }
    }
    Some(chains)
}

fn is_of_ipv4(object: &Json) -> bool {
    matches!(object["family"].as_str(), Some("ip" | "inet"))
}

struct Reader<'a> {
    table: &'a str,
    sets: &'a BTreeMap<(String, String), Vec<Json>>,
}

impl Reader<'_> {
    /// Reads one rule; a verdict map is as many rules as it has elements.
    fn rules(&self, rule: &Json) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut matches = Vec::new();
        let mut may_decide = false;
        let handle = rule["handle"].as_u64().unwrap_or(0);
        let make = |matches: Vec<Match>, verdict: Verdict, word: &str| Rule {
            text: format!("the rule with handle {handle} ({word})"),
            number: handle,
            comment: rule["comment"].as_str().map(str::to_owned),
            matches,
            verdict,
        };
        for statement in rule["expr"].as_array().into_iter().flatten() {
            let Some((kind, body)) = statement.as_object().and_then(|object| object.iter().next()) else {
                matches.push(Match::UNKNOWN);
                continue;
            };
            match kind.as_str() {
                "match" => matches.extend(self.condition(body)),
                "vmap" => {
                    for (value, verdict) in self.map_of(body) {
                        let mut all = matches.clone();
                        all.extend(self.compare(&body["key"], "==", &value));
                        let (verdict, word) = verdict_of(&verdict).unwrap_or((Verdict::Unknown, "unknown"));
                        rules.push(make(all, verdict, word));
                    }
                }
                kind if PASSING.contains(&kind) => {}
                _ => match verdict_of(statement) {
                    Some((verdict, word)) => {
                        rules.push(make(std::mem::take(&mut matches), verdict, word));
                        return rules;
                    }
                    None => {
                        may_decide |= !CONDITIONS.contains(&kind.as_str());
                        matches.push(Match::UNKNOWN);
                    }
                },
            }
        }
        if may_decide {
            // For instance `queue`: a program decides, and no rule behind it is asked.
            rules.push(make(matches, Verdict::Unknown, "unknown"));
        }
        rules
    }

    /// Elements of a verdict map; one that cannot be read is an element that may fit.
    fn map_of(&self, body: &Json) -> Vec<(Json, Json)> {
        let unknown = || vec![(Json::Null, Json::Null)];
        let elements = match &body["data"] {
            Json::String(name) => self.set(name),
            data => data["set"].as_array(),
        };
        let pair = |element: &Json| Some((element.get(0)?.clone(), element.get(1)?.clone()));
        elements.map_or_else(unknown, |elements| elements.iter().filter_map(pair).collect())
    }

    fn set(&self, name: &str) -> Option<&Vec<Json>> {
        self.sets
            .get(&(self.table.to_owned(), name.trim_start_matches('@').to_owned()))
    }

    fn condition(&self, body: &Json) -> Vec<Match> {
        self.compare(&body["left"], body["op"].as_str().unwrap_or_default(), &body["right"])
    }

    fn compare(&self, left: &Json, operator: &str, right: &Json) -> Vec<Match> {
        let (implied, field) = field_of(left);
        let negated = operator == "!=";
        if field == Field::Unknown || !matches!(operator, "==" | "!=" | "in") {
            return [implied, Some(Match::UNKNOWN)].into_iter().flatten().collect();
        }
        let values = self.values(field, right);
        let asked = Match { field, negated, values };
        [implied, Some(asked)].into_iter().flatten().collect()
    }

    fn values(&self, field: Field, right: &Json) -> Vec<Value> {
        match right {
            Json::Array(list) => list.iter().flat_map(|one| self.values(field, one)).collect(),
            Json::String(name) if name.starts_with('@') => match self.set(name) {
                Some(elements) => elements.iter().flat_map(|one| self.values(field, one)).collect(),
                None => vec![Value::Unknown],
            },
            Json::Object(object) if object.contains_key("set") => self.values(field, &right["set"]),
            // An element with a comment or a time-out.
            Json::Object(object) if object.contains_key("elem") => self.values(field, &right["elem"]["val"]),
            one => vec![value_of(field, one)],
        }
    }
}

/// Returns what an expression looks at, and what it takes for granted: a field of TCP's header is there in TCP alone.
fn field_of(left: &Json) -> (Option<Match>, Field) {
    if let Some(payload) = left.get("payload") {
        let (protocol, field) = (
            payload["protocol"].as_str().unwrap_or_default(),
            payload["field"].as_str().unwrap_or_default(),
        );
        let implied = |field, word: &str| {
            Some(Match {
                field,
                negated: false,
                values: vec![Value::Text(word.to_owned())],
            })
        };
        return match (protocol, field) {
            ("th", "dport") => (None, Field::Port),
            ("tcp" | "udp", "dport") => (implied(Field::Protocol, protocol), Field::Port),
            ("th", "sport") => (None, Field::SourcePort),
            ("tcp" | "udp", "sport") => (implied(Field::Protocol, protocol), Field::SourcePort),
            ("ip", "saddr") => (None, Field::Source),
            ("ip", "daddr") => (None, Field::Destination),
            ("ip", "protocol") => (None, Field::Protocol),
            ("ip6", _) => (implied(Field::Family, "ipv6"), Field::Unknown),
            ("tcp" | "udp" | "icmp" | "icmpv6" | "sctp" | "dccp", _) => {
                (implied(Field::Protocol, protocol), Field::Unknown)
            }
            _ => (None, Field::Unknown),
        };
    }
    let key = left["meta"]["key"].as_str().or_else(|| left["ct"]["key"].as_str());
    let field = match key {
        Some("l4proto") => Field::Protocol,
        Some("iif" | "iifname") => Field::From,
        Some("oif" | "oifname") => Field::To,
        Some("state") if left.get("ct").is_some() => Field::State,
        Some("status") if left.get("ct").is_some() => Field::Status,
        Some("nfproto") => Field::Family,
        _ if left["fib"]["result"] == "type" && left["fib"]["flags"] == serde_json::json!(["daddr"]) => {
            Field::DestinationType
        }
        _ if left["fib"]["result"] == "type" && left["fib"]["flags"] == "daddr" => Field::DestinationType,
        _ => Field::Unknown,
    };
    (None, field)
}

fn value_of(field: Field, one: &Json) -> Value {
    match field {
        Field::Source | Field::Destination => address_of(one),
        Field::Port | Field::SourcePort => {
            let port = |value: &Json| value.as_u64().and_then(|port| u16::try_from(port).ok());
            let range = &one["range"];
            match (port(one), port(&range[0]), port(&range[1])) {
                (Some(port), ..) => Value::Ports(port, port),
                (None, Some(first), Some(last)) => Value::Ports(first, last),
                _ => Value::Unknown,
            }
        }
        _ => match one.as_str() {
            Some(text) => Value::Text(text.to_owned()),
            None => Value::Unknown,
        },
    }
}

fn address_of(one: &Json) -> Value {
    let address = |value: &Json| value.as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
    if let (Some(text), Some(prefix)) = (one["prefix"]["addr"].as_str(), one["prefix"]["len"].as_u64()) {
        return addresses(&format!("{text}/{prefix}"));
    }
    match (address(&one["range"][0]), address(&one["range"][1])) {
        (Some(first), Some(last)) => Value::Addresses(first, last),
        _ => one.as_str().map_or(Value::Unknown, addresses),
    }
}

fn verdict_of(statement: &Json) -> Option<(Verdict, &'static str)> {
    let (kind, body) = statement.as_object()?.iter().next()?;
    let target = || body["target"].as_str().unwrap_or_default().to_owned();
    Some(match kind.as_str() {
        "accept" => (Verdict::Accept, "accept"),
        "drop" => (Verdict::Drop, "drop"),
        "reject" => (Verdict::Drop, "reject"),
        "return" => (Verdict::Return, "return"),
        "continue" => (Verdict::Next, "continue"),
        "jump" => (Verdict::Jump(target()), "jump"),
        "goto" => (Verdict::Goto(target()), "goto"),
        _ => return None,
    })
}
