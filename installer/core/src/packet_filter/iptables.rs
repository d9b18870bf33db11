//! Reads what `iptables-save` prints: tables, chains with their policies, and rules as they would be typed (iptables-save(8)).

use super::{Chain, Field, Hook, Match, Rule, Value, Variant, Verdict, addresses};

/// Targets after which the next rule decides (iptables-extensions(8)).
const PASSING: [&str; 12] = [
    "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "AUDIT", "TRACE", "SECMARK", "CLASSIFY",
];
/// Modules that ask nothing by themselves: their options do.
const OPTIONS_ASK: [&str; 7] = ["tcp", "udp", "conntrack", "state", "comment", "multiport", "addrtype"];

/// Reads the chains of all tables; lines that are none are passed over.
pub fn parse(text: &str, variant: Variant) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = format!("ip {}", name.trim());
        } else if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            chains.push(Chain {
                variant,
                table: table.clone(),
                name: name.to_owned(),
                hook: Hook::from_name(name).filter(|_| policy != Some("-")),
                is_prerouting: name == "PREROUTING" && policy != Some("-"),
                drops_by_policy: policy == Some("DROP"),
                rules: vec![],
            });
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let chain = chains
                .iter_mut()
                .rev()
                .find(|c| c.table == table && words.first() == Some(&c.name));
            if let Some(chain) = chain {
                let number = chain.rules.len() as u64 + 1;
                chain.rules.push(rule(line, number, words.get(1..).unwrap_or_default()));
            }
        }
    }
    // A target that is no chain of the table and not known here does something that is not known here.
    let names: Vec<(String, String)> = chains.iter().map(|c| (c.table.clone(), c.name.clone())).collect();
    for chain in &mut chains {
        for rule in &mut chain.rules {
            if let Verdict::Jump(to) | Verdict::Goto(to) = &rule.verdict
                && !names.iter().any(|(table, name)| *table == chain.table && name == to)
            {
                rule.verdict = Verdict::Unknown;
            }
        }
    }
    chains
}

/// Splits a line as a shell would: what stands in double quotes is one word.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => word.extend(letters.next()),
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            other => word.push(other),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

fn rule(line: &str, number: u64, words: &[String]) -> Rule {
    let mut matches = Vec::new();
    let mut comment = None;
    let mut verdict = Verdict::Next;
    let mut words = words.iter();
    let mut negated = false;
    while let Some(option) = words.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        match option.as_str() {
            "-j" | "-g" => {
                let target = words.next().map_or("", String::as_str);
                verdict = verdict_of(target, option == "-g");
                // What follows are options of the target.
                break;
            }
            "-m" => {
                let module = words.next().map_or("", String::as_str);
                if !OPTIONS_ASK.contains(&module) && !matches!(module, "icmp" | "limit") {
                    matches.push(Match::UNKNOWN);
                }
            }
            "--comment" => comment = words.next().cloned(),
            option => matches.push(condition(option, negated, &mut words)),
        }
        negated = false;
    }
    Rule {
        text: line.to_owned(),
        number,
        comment,
        matches,
        verdict,
    }
}

fn verdict_of(target: &str, goto: bool) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        passing if PASSING.contains(&passing) => Verdict::Next,
        chain if goto => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    }
}

fn condition<'a>(option: &str, negated: bool, words: &mut impl Iterator<Item = &'a String>) -> Match {
    let field = match option {
        "-p" => Field::Protocol,
        "-s" => Field::Source,
        "-d" => Field::Destination,
        "-i" => Field::From,
        "-o" => Field::To,
        "--dport" | "--dports" => Field::Port,
        "--sport" | "--sports" => Field::SourcePort,
        "--state" | "--ctstate" => Field::State,
        "--dst-type" => Field::DestinationType,
        _ => return Match::UNKNOWN,
    };
    let value = words.next().map_or("", String::as_str);
    Match {
        field,
        negated,
        values: value.split(',').map(|value| value_of(field, value)).collect(),
    }
}

fn value_of(field: Field, text: &str) -> Value {
    match field {
        Field::Source | Field::Destination => addresses(text),
        Field::Port | Field::SourcePort => {
            let (first, last) = text.split_once(':').unwrap_or((text, text));
            match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) => Value::Ports(first, last),
                _ => Value::Unknown,
            }
        }
        Field::From | Field::To => Value::Text(match text.strip_suffix('+') {
            Some(begin) => format!("{begin}*"),
            None => text.to_owned(),
        }),
        _ => Value::Text(text.to_lowercase()),
    }
}
