//! The known differences, each with the reason why landfall's behaviour is right: `differences.txt`, and rendered in `DIFFERENTIAL.md`.
//!
//! | line | means |
//! |---|---|
//! | `= TEXT` | a reason begins, by its heading |
//! | `- PEER<tab>CASE<tab>ASPECT<tab>OURS<tab>THEIRS` | a difference that it is the reason for |
//! | `# TEXT` | nothing |
//! | other lines | the reason |

use super::compare::Difference;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A reason and what it is the reason for.
#[derive(Debug)]
pub struct Reason {
    pub heading: String,
    pub text: String,
    pub rows: Vec<Difference>,
}

/// Reads the list; a line that makes no sense, a reason without text or rows and a row that is there twice fail the test.
pub fn parse(text: &str) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    let mut all = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix("= ") {
            reasons.push(Reason {
                heading: heading.to_owned(),
                text: String::new(),
                rows: Vec::new(),
            });
            continue;
        }
        let reason = reasons.last_mut().expect("a reason before the first row");
        let Some(row) = line.strip_prefix("- ") else {
            reason.text.push_str(line);
            reason.text.push('\n');
            continue;
        };
        let parts: Vec<_> = row.split('\t').map(str::to_owned).collect();
        let [peer, case, aspect, ours, theirs] = <[String; 5]>::try_from(parts).expect("five parts between tabs");
        let row = Difference {
            peer,
            case,
            aspect,
            ours,
            theirs,
        };
        assert!(all.insert(row.clone()), "listed twice: {row:?}");
        reason.rows.push(row);
    }
    for reason in &reasons {
        assert!(
            !reason.text.is_empty() && !reason.rows.is_empty(),
            "{}: without text or rows",
            reason.heading
        );
    }
    reasons
}

/// A row as the list has it.
pub fn line(row: &Difference) -> String {
    let Difference {
        peer,
        case,
        aspect,
        ours,
        theirs,
    } = row;
    format!("- {peer}\t{case}\t{aspect}\t{ours}\t{theirs}\n")
}

/// The list for people.
pub fn document(reasons: &[Reason], cases: usize, versions: &[String]) -> String {
    let rows: Vec<_> = reasons.iter().flat_map(|reason| &reason.rows).collect();
    let count = |peer: &str| {
        let cases: BTreeSet<_> = rows
            .iter()
            .filter(|row| row.peer == peer)
            .map(|row| &row.case)
            .collect();
        cases.len()
    };
    let mut text = format!(
        "# Where landfall differs from nginx and haproxy\n\n\
         Written by `LANDFALL_BLESS=1 cargo test -p landfall-test-ingress --test differential` from `tests/differential/differences.txt`; the test compares.\n\n\
         {cases} cases (`tests/differential/corpus.txt`) go byte by byte through {}, with the routes, forwarded fields and upgrades of `src/peers.rs`,\n\
         to endpoints that write down what arrives. Compared are statuses, whether the connection is kept, the request line, fields, framing, body and trailers\n\
         that the endpoint got, and those of its answer that the client got; left out are times, names of requests, the order of fields and the case of their names.\n\
         The outcome differs from nginx's in {} cases, from haproxy's in {}. A difference that is not listed here fails the test, and so does one that is gone.\n",
        versions.join(" and "),
        count("nginx"),
        count("haproxy"),
    );
    for reason in reasons {
        let _ = write!(text, "\n## {}\n\n{}\n", reason.heading, reason.text);
        text.push_str("| case | what | landfall | peer | |\n|---|---|---|---|---|\n");
        // What both peers do alike is one row.
        let mut rows: Vec<(&Difference, Vec<&str>)> = Vec::new();
        for row in &reason.rows {
            let alike = |known: &&mut (&Difference, Vec<&str>)| {
                let key = |row: &Difference| {
                    (
                        row.case.clone(),
                        row.aspect.clone(),
                        row.ours.clone(),
                        row.theirs.clone(),
                    )
                };
                key(known.0) == key(row)
            };
            match rows.iter_mut().find(alike) {
                Some((_, peers)) => peers.push(&row.peer),
                None => rows.push((row, vec![&row.peer])),
            }
        }
        for (row, peers) in rows {
            let cell = |value: &str| match value {
                "-" => "-".to_owned(),
                value => format!("`{}`", value.replace('|', "\\|")),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                row.case,
                row.aspect,
                cell(&row.ours),
                cell(&row.theirs),
                peers.join(", ")
            );
        }
    }
    text
}
