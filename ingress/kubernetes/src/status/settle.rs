//! Waits until addresses have lasted.

use crate::limits::STATUS_SETTLE;
use landfall_ingress_balance::clock::{milliseconds, now_ms};
use landfall_ingress_translate::object::Addresses;

/// The addresses seen last, and since when.
#[derive(Debug, Default)]
pub(super) struct Settle(Option<(Addresses, u64)>);

impl Settle {
    /// Whether these addresses were the same for long enough.
    pub(super) fn settled(&mut self, now: &Addresses) -> bool {
        match &self.0 {
            Some((known, since)) if known == now => now_ms() - since >= milliseconds(STATUS_SETTLE),
            _ => {
                self.0 = Some((now.clone(), now_ms()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STATUS_PERIOD;
    use landfall_ingress_balance::clock::advance;

    #[test]
    fn addresses_that_come_and_go_are_not_taken_for_settled() {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Addresses>();
        let (both, one) = (set(&["a", "b"]), set(&["a"]));
        let mut settle = Settle::default();
        assert!(!settle.settled(&both));
        advance(STATUS_SETTLE);
        assert!(settle.settled(&both));
        assert!(!settle.settled(&one), "a proxy is away for a moment");
        advance(STATUS_PERIOD);
        assert!(!settle.settled(&both) && !settle.settled(&both));
        advance(STATUS_SETTLE);
        assert!(settle.settled(&both));
    }
}
