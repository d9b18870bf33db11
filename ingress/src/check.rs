//! `landfall-ingress check`: what becomes of each Ingress of a manifest or a cluster, before it is served.
//!
//! The same code judges as serves: the objects go through [`Builder`], and its remarks are sorted by Ingress. In manifests, what is not
//! there (classes, Services, Secrets) is taken to be as it should be; a cluster is judged as it is, without reading Secrets.
//!
//! Exit status: 0 all supported; 1 something is approximated; 2 something is refused, or the input cannot be read.

mod input;
mod old;

pub use input::{Input, Source, print};

use input::ABSENT;
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::remark::{Reason, Remark, Severity};
use landfall_ingress_translate::route::Builder;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

/// What is checked, and how it is told.
#[derive(clap::Args)]
pub struct Check {
    #[command(flatten)]
    source: Source,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    routing: Options,
}

/// Forms of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; `version` goes up when a field changes its meaning or goes away.
    Json,
}

/// What becomes of an Ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Served as it asks.
    Supported,
    /// Of a class that is not ours: left alone.
    NotOurs,
    /// Served, some of it in another way.
    Approximated,
    /// Some of it is not served.
    Refused,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::NotOurs => "not ours",
            Self::Approximated => "approximated",
            Self::Refused => "refused",
        }
    }
}

/// The result.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    version: u32,
    ingresses: Vec<Judged>,
    /// Remarks on classes.
    classes: Vec<Remark>,
}

/// One Ingress.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Judged {
    namespace: String,
    name: String,
    verdict: Verdict,
    remarks: Vec<Remark>,
}

/// Runs the command.
pub fn run(check: &Check) -> ExitCode {
    let input = match check.source.read() {
        Ok(input) => input,
        Err(text) => {
            landfall_ingress_telemetry::log(&text);
            return ExitCode::from(2);
        }
    };
    let report = judge(input, &check.routing);
    let text = match check.output {
        Output::Text => report.text(),
        Output::Json => format!("{}\n", serde_json::json!(report)),
    };
    match print(&text) {
        Ok(()) => ExitCode::from(report.status()),
        Err(text) => {
            landfall_ingress_telemetry::log(&text);
            ExitCode::from(2)
        }
    }
}

/// Judges every Ingress of the input, in order of namespace and name.
fn judge(mut input: Input, options: &Options) -> Report {
    let mut all: BTreeMap<(String, String), Judged> = BTreeMap::new();
    for ingress in &input.objects.ingresses {
        let (namespace, name) = (ingress.namespace.to_string(), ingress.name().to_owned());
        let judged = Judged {
            namespace: namespace.clone(),
            name: name.clone(),
            verdict: Verdict::NotOurs,
            remarks: vec![],
        };
        all.insert((namespace, name), judged);
    }
    for old in &input.old {
        let judged = old::judge(old);
        all.insert((judged.namespace.clone(), judged.name.clone()), judged);
    }
    let complete = input.complete(options);
    let snapshot = Builder::new(options.clone()).build(&input.objects, &input.secrets);
    for ours in snapshot.ours() {
        if let Some(judged) = all.get_mut(&(ours.namespace.to_string(), ours.name().to_owned())) {
            judged.verdict = Verdict::Supported;
        }
    }
    let mut classes = vec![];
    for remark in snapshot.remarks() {
        let mut remark = remark.into_owned();
        if remark.reason == Reason::NoService && !complete.services {
            continue;
        }
        if remark.kind != "Ingress" {
            classes.push(remark);
            continue;
        }
        if remark.text.contains(ABSENT) {
            remark.severity = Severity::Note;
            remark.reason = Reason::NotInInput;
            remark
                .text
                .truncate(remark.text.find(ABSENT).map_or(0, |at| at + ABSENT.len()));
        }
        let Some(judged) = all.get_mut(&(remark.namespace.clone(), remark.name.clone())) else {
            continue;
        };
        judged.verdict = judged.verdict.max(match remark.severity {
            Severity::Note => Verdict::Supported,
            Severity::Approximated => Verdict::Approximated,
            Severity::Refused => Verdict::Refused,
        });
        if !judged.remarks.contains(&remark) {
            judged.remarks.push(remark);
        }
    }
    Report {
        version: 1,
        ingresses: all.into_values().collect(),
        classes,
    }
}

impl Report {
    fn status(&self) -> u8 {
        match self.ingresses.iter().map(|judged| judged.verdict).max() {
            Some(Verdict::Refused) => 2,
            Some(Verdict::Approximated) => 1,
            _ => 0,
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for remark in &self.classes {
            // Writing to a String does not fail, here and below.
            let _ = writeln!(out, "{remark}");
        }
        for judged in &self.ingresses {
            let _ = writeln!(out, "{}/{}: {}", judged.namespace, judged.name, judged.verdict.text());
            for remark in &judged.remarks {
                let mark = match remark.severity {
                    Severity::Note => "note",
                    Severity::Approximated => "approximated",
                    Severity::Refused => "refused",
                };
                let _ = writeln!(out, "  {mark}: {}", remark.text.replace('\n', "\n    "));
            }
        }
        let count = |verdict| self.ingresses.iter().filter(|judged| judged.verdict == verdict).count();
        let _ = writeln!(
            out,
            "{} supported, {} approximated, {} refused, {} not ours",
            count(Verdict::Supported),
            count(Verdict::Approximated),
            count(Verdict::Refused),
            count(Verdict::NotOurs)
        );
        out
    }
}

#[cfg(test)]
mod tests;
