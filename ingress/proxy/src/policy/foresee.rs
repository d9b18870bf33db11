//! What the policy of a route would do with a request, for people who ask. Every stage that can be told without side effects is decided
//! by the code that requests meet; of the others it is said what would be asked. Nothing is sent, counted or remembered, and no password
//! is checked: whoever may read the dashboard could try passwords here, past the route's own protection.

use super::filter_state::{FilterState, Stop};
use super::{Policies, RequestView, Stage, addresses, basic, canary, filled, question, unlimited};
use landfall_ingress_balance::{Backend, Preference};
use landfall_ingress_routing::RouteTable;
use landfall_ingress_routing::policy::HttpsRedirect;
use landfall_ingress_routing::target::Place;
use landfall_ingress_telemetry::reason::Reason;
use std::sync::Arc;

/// What a stage would do.
#[derive(Debug)]
pub enum Outcome {
    /// The route does not ask for it.
    Unasked,
    /// The request passes; why.
    Passes(String),
    /// Only asking would tell, or counting; what would be asked. The rest holds if the request passes here.
    Open(String),
    /// It gives the answer.
    Answers(Box<Stop>),
    /// One before gives the answer.
    Unreached,
}

/// A stage and what it would do.
#[derive(Debug)]
pub struct Met {
    /// The stage.
    pub stage: Stage,
    /// What it would do.
    pub outcome: Outcome,
}

/// One Service that the request may go to.
#[derive(Debug)]
pub struct Way {
    /// How often, from 0 to 1.
    pub share: f64,
    /// Why it does.
    pub why: &'static str,
    /// The Service's endpoints.
    pub backend: Arc<Backend>,
    /// Which of them is wanted.
    pub preference: Preference,
}

/// All that the policy would do.
pub(crate) struct Foreseen {
    pub(crate) met: Vec<Met>,
    /// Where the request may go; none when a stage answers.
    pub(crate) ways: Vec<Way>,
    /// As it would be, but for what only asking tells.
    pub(crate) filter_state: FilterState,
}

impl Policies {
    /// Tells the way of a request through all stages.
    pub(crate) fn foresee(&self, view: &RequestView<'_>, snapshot: &RouteTable) -> Foreseen {
        let mut foreseen = Foreseen {
            met: Vec::with_capacity(Stage::ALL.len()),
            ways: Vec::new(),
            filter_state: FilterState::new(view),
        };
        let mut answered = false;
        for stage in Stage::ALL {
            let outcome = match stage {
                _ if answered => Outcome::Unreached,
                _ if !is_asked_for(stage, view) => Outcome::Unasked,
                Stage::Limits => self.foresee_limits(view),
                Stage::Password => foresee_password(view),
                Stage::External => foresee_external(view, snapshot, &foreseen.filter_state),
                Stage::Mirror => foresee_mirror(view, snapshot),
                Stage::Choice => {
                    foreseen.ways = self.ways(view);
                    Outcome::Passes(String::new())
                }
                _ => self.foresee_decision(stage, view, snapshot, &mut foreseen.filter_state),
            };
            answered |= matches!(outcome, Outcome::Answers(_));
            foreseen.met.push(Met { stage, outcome });
        }
        if answered {
            foreseen.ways.clear();
        }
        foreseen
    }

    /// A stage that is decided as for requests.
    fn foresee_decision(
        &self,
        stage: Stage,
        view: &RequestView<'_>,
        snapshot: &RouteTable,
        filter_state: &mut FilterState,
    ) -> Outcome {
        // Nobody can show a certificate here.
        if stage == Stage::Certificate && view.route.policy.client_certificate.iter().any(|c| !c.optional) {
            let why =
                "a certificate of one of the route's authorities would be asked for; without one the answer is 400";
            return Outcome::Open(why.to_owned());
        }
        if let Err(stop) = self.decide(stage, view, snapshot, filter_state) {
            return Outcome::Answers(stop);
        }
        Outcome::Passes(match stage {
            Stage::Source => format!("{} may come", view.client.address_text()),
            Stage::Redirect => "none is for this request".to_owned(),
            Stage::Connection => "it is made for this host".to_owned(),
            Stage::Preflight => "it is none".to_owned(),
            Stage::Certificate => "one is asked for, but nobody needs to show it".to_owned(),
            Stage::Rewrite => filter_state.uri.iter().map(ToString::to_string).collect(),
            _ => String::new(),
        })
    }

    fn foresee_limits(&self, view: &RequestView<'_>) -> Outcome {
        if unlimited(view) {
            return Outcome::Passes(format!("requests of {} are not counted", view.client.address_text()));
        }
        let limits = &view.route.policy.limits;
        match self.limiter.would_admit(limits, &view.route.ingress, view.address()) {
            Ok(()) => Outcome::Open(format!(
                "the request would be counted for {}, who has room at this moment",
                view.client.address_text()
            )),
            Err(many) => Outcome::Answers(Stop::too_many(many.retry_after)),
        }
    }

    /// Every Service that [`Policies::choose`] may come to: once with no luck at all, then with luck at each of the canaries in turn that
    /// were left to it.
    fn ways(&self, view: &RequestView<'_>) -> Vec<Way> {
        let way = |share: f64, lucky: Option<usize>, shares: &mut Vec<f64>| {
            let mut filter_state = FilterState::new(view);
            let mut drawn = 0;
            self.choose(view, &mut filter_state, |canary| {
                shares.push(canary::share(canary));
                drawn += 1;
                lucky == Some(drawn - 1)
            });
            let fallback = view.route.fallback.as_ref();
            let why = match lucky {
                _ if fallback.is_some_and(|f| Arc::ptr_eq(f, &filter_state.backend)) => {
                    "the Service has no endpoint, so the default backend of the Ingress takes it"
                }
                Some(_) => "by chance, as the canary's weight says",
                None if !Arc::ptr_eq(&filter_state.backend, &view.route.backend) => {
                    "a field or a cookie asks for the canary"
                }
                None if drawn > 0 => "by chance, what canaries leave",
                None if view.route.alternatives.is_empty() => "the rule names it",
                None => "no canary takes it",
            };
            Way {
                share,
                why,
                preference: filter_state.preference(),
                backend: filter_state.backend,
            }
        };
        let mut shares = Vec::new();
        let home = way(1.0, None, &mut shares);
        let mut left = 1.0;
        let mut ways = Vec::new();
        for (i, share) in shares.iter().enumerate() {
            ways.push(way(left * share, Some(i), &mut Vec::new()));
            left *= 1.0 - share;
        }
        ways.insert(0, Way { share: left, ..home });
        ways.retain(|way| way.share > 0.0);
        ways
    }
}

/// Whether the route has a setting for this stage.
fn is_asked_for(stage: Stage, view: &RequestView<'_>) -> bool {
    let policy = &view.route.policy;
    let redirects = &policy.redirects;
    match stage {
        Stage::Closed | Stage::Choice => true,
        Stage::Source => !policy.sources.allow.is_empty() || !policy.sources.deny.is_empty(),
        Stage::Redirect => {
            redirects.to.is_some() || redirects.https != HttpsRedirect::Off || redirects.app_root.is_some()
        }
        Stage::Connection => policy.client_certificate.is_some() || view.client.tls.as_ref().is_some_and(|s| s.strict),
        Stage::Limits => !policy.limits.is_none(),
        Stage::Preflight => policy.cors.is_some(),
        Stage::Certificate => policy.client_certificate.is_some(),
        Stage::Password => policy.basic_auth.is_some(),
        Stage::External => policy.external_auth.is_some(),
        Stage::Rewrite => policy.rewrite.is_some(),
        Stage::Mirror => policy.mirror.is_some(),
    }
}

/// Without credentials the answer is certain; with some they would be checked.
fn foresee_password(view: &RequestView<'_>) -> Outcome {
    let Some(auth) = &view.route.policy.basic_auth else {
        return Outcome::Unasked;
    };
    match basic::credentials(view.headers) {
        Some(_) => Outcome::Open("user and password would be checked; wrong ones get 401".to_owned()),
        None => Outcome::Answers(Stop::unauthorized([basic::challenge(&auth.realm)])),
    }
}

fn foresee_external(view: &RequestView<'_>, snapshot: &RouteTable, filter_state: &FilterState) -> Outcome {
    let Some(auth) = &view.route.policy.external_auth else {
        return Outcome::Unasked;
    };
    if !basic::speaks_once(view.headers) {
        return Outcome::Answers(Stop::unauthorized([]));
    }
    let named = matches!(auth.target.place, Place::Name { .. });
    match question(auth, view, snapshot, &[], &filter_state.fields) {
        Some((recipient, _)) if named || !recipient.destinations.is_empty() => Outcome::Open(format!(
            "{} would be asked with {}; 401 and 403 would be the answer",
            without_query(&auth.url),
            auth.method
        )),
        _ => Outcome::Answers(Stop::plain(Reason::AuthBroken)),
    }
}

fn foresee_mirror(view: &RequestView<'_>, snapshot: &RouteTable) -> Outcome {
    let Some(mirror) = &view.route.policy.mirror else {
        return Outcome::Unasked;
    };
    let uri = filled(view, &mirror.place.path);
    let target = without_query(&mirror.target);
    let named = matches!(mirror.place.place, Place::Name { .. });
    match addresses(&mirror.place, view.route.mirror.as_ref(), view, snapshot, &uri, &[]) {
        Some((addresses, _)) if named || !addresses.is_empty() => {
            Outcome::Open(format!("{target} would get a copy if there is room"))
        }
        _ => Outcome::Passes(format!("no copy is made, for {target} cannot be asked")),
    }
}

/// A query may hold what is not for everyone.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
