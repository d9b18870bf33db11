//! `cargo xtask size`: the released programs, compared with a budget each. The agent travels to every node, the proxy in an image, so growth is noticed here first.

use crate::artifacts;
use anyhow::Result;
use std::process::ExitCode;

/// Package and the most MB (10⁶ bytes) that its stripped release build may have. A budget is raised in the commit that needs it, with why.
///
/// Measured: landfall-ingress 14.8 on 2026-11-25 (its README), landfall 29.8 and landfall-agent 7.6 on 2026-11-30. Each has some room for small growth.
const BUDGETS_MB: [(&str, f64); 3] = [("landfall", 32.0), ("landfall-agent", 8.0), ("landfall-ingress", 16.0)];

/// Builds them and prints a line for each.
pub fn run() -> Result<ExitCode> {
    let mut ok = true;
    for (package, budget) in BUDGETS_MB {
        let program = artifacts::release(package)?;
        let size = std::fs::metadata(&program)?.len() as f64 / 1e6;
        let verdict = if size <= budget { "within" } else { "OVER" };
        ok &= size <= budget;
        println!("{package}: {size:.1} MB, {verdict} its budget of {budget:.1} MB");
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
