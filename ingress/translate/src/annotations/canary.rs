//! Alternatives to the routes of another Ingress (`canary-*`).

use super::syntax;
use super::values::Values;
use crate::pattern;
use landfall_ingress_routing::policy::{Canary, CanaryHeader, HeaderMatch};

pub(super) fn read(values: &mut Values<'_>) -> Option<Canary> {
    let wanted = values.flag("canary").unwrap_or(false);
    let name = values.parse("canary-by-header", syntax::header_name);
    let exact = values.parse("canary-by-header-value", |text| Ok(text.to_owned()));
    let found = values.parse("canary-by-header-pattern", pattern::free);
    let value = exact.map(HeaderMatch::Value).or(found.map(HeaderMatch::Pattern));
    let total = values.parse("canary-weight-total", syntax::positive).unwrap_or(100);
    let weight = values.parse("canary-weight", syntax::number).unwrap_or(0);
    let canary = Canary {
        header: name.map(|name| CanaryHeader { name, value }),
        cookie: values.parse("canary-by-cookie", syntax::cookie_name),
        weight: weight.min(total),
        weight_total: total,
    };
    wanted.then_some(canary)
}
