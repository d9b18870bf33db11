//! Medians, spreads and percentiles.

use serde_json::{Value, json};

/// Sorts the values and returns the percentile at this share; NaN when there are no values.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// The value in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

/// Median and interquartile range.
pub(super) fn summary(values: &[f64]) -> Value {
    json!({ "median": rounded(median(values)), "spread": rounded(spread(values)), "rounds": values.len() })
}

/// Returns the ratio of each round: both values of a ratio come from the same round, so a slow round slows both.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// Their median.
pub(super) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    rounded(median(&ratios(ours, theirs)))
}

/// The distance between their quarters.
pub(super) fn ratio_spread(ours: &[f64], theirs: &[f64]) -> f64 {
    rounded(spread(&ratios(ours, theirs)))
}

fn spread(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.75) - quantile(&mut values.to_vec(), 0.25)
}

/// Three digits after the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_edge_of_values() {
        let mut values: Vec<f64> = (1..=101).map(f64::from).collect();
        values.reverse();
        assert_eq!(median(&values), 51.0);
        assert_eq!(quantile(&mut values, 0.99), 100.0);
        assert_eq!(summary(&values)["spread"], 50.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_slow_round_does_not_move_a_ratio() {
        assert_eq!(ratio(&[10.0, 100.0, 10.0], &[20.0, 200.0, 20.0]), 0.5);
        assert_eq!(ratio_spread(&[10.0, 100.0, 10.0], &[20.0, 200.0, 20.0]), 0.0);
    }
}
