//! `ingress allow`.

use super::CommandResult;
use crate::args::{IngressAllow, Output};
use crate::load;
use crate::output::write_stdout;
use crate::start::{Started, start};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, AllowOptions};

/// Longest name of a namespace in characters (a label of RFC 1123).
const MAX_NAMESPACE_CHARS: usize = 63;

/// Lets the ingress proxy read Secrets.
pub fn allow(args: &IngressAllow) -> CommandResult {
    let understood = load::whole(&args.common, || {
        let what = "ingress allow is written into every node's journal, and takes no --limit";
        Diagnosis::new(Code::Usage, what)
    })?;
    let options = AllowOptions {
        namespace: args.namespace.clone(),
        named: args.named,
    };
    if let Some(namespace) = options.namespace.as_deref().filter(|name| !is_namespace(name)) {
        let what = format!("{namespace:?} is no name of a namespace");
        return Err(vec![Diagnosis::new(Code::Usage, what).next("kubectl get namespaces")]);
    }
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let outcome = run::allow_secrets(&desired, &options, &ctx);
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        write_stdout(&format!("{}; {} changes\n", text(&options), outcome.changes));
    }
    Ok(exit)
}

fn text(options: &AllowOptions) -> String {
    let place = match &options.namespace {
        Some(namespace) => format!("of namespace {namespace}"),
        None => "of all namespaces".to_owned(),
    };
    if options.named {
        format!("the ingress proxy may read the Secrets and ConfigMaps {place} that Ingresses name now")
    } else {
        format!("the ingress proxy may read all Secrets and ConfigMaps {place}, also those that come later")
    }
}

fn is_namespace(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAMESPACE_CHARS).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_names_of_namespaces_are_accepted() {
        let long = "a".repeat(63);
        for name in ["shop", "a-1", "0", long.as_str()] {
            assert!(is_namespace(name), "{name}");
        }
        let longer = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a/b", "a.b", "a b", longer.as_str()] {
            assert!(!is_namespace(name), "{name}");
        }
    }
}
