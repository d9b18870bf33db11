//! Installs and undos with faults, at some of the places that `cargo xtask crash --full` covers.
//! `LANDFALL_SEED` replays; `LANDFALL_SIM_CASES` sets how many cases are played.

use landfall_test_sim::sweep::{Amount, sweep};
use landfall_test_support::seed;

/// Of some 3,000 (2026-11-29).
const CASES: u64 = 256;

#[test]
fn an_install_survives_a_fault_at_any_place() {
    let seed = seed::seed();
    println!("{}={seed}", seed::VARIABLE);
    let given = std::env::var("LANDFALL_SIM_CASES").ok();
    let cases = given.map_or(CASES, |text| text.parse().unwrap());
    let report = sweep(seed, Amount::Part(cases), &|text| println!("{text}"));
    println!("{report:?}");
    assert!(
        report.failed.is_empty(),
        "{} of {cases} cases failed",
        report.failed.len()
    );
    assert!(report.disturbed * 4 >= cases * 3, "{report:?}");
}
