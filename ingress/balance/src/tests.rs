use super::endpoint::Seen;
use super::*;
use crate::clock::{self, advance};
use crate::limits::{EJECT_AFTER_BROKEN, EJECT_AFTER_UNREACHABLE, EJECT_FIRST, EJECT_LONGEST, REPEATS, RETRIES_SAVED};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn found(last: u8, ready: bool, near: bool) -> Found {
    Found {
        address: address(last),
        ready,
        near,
    }
}

fn set(backend: &Backend, found: &[Found]) {
    backend.set(&Resolved {
        found: found.to_vec(),
        ..Resolved::default()
    });
}

fn backend(found: &[Found]) -> Arc<Backend> {
    seed(1);
    clock::set(1);
    let backend = Arc::new(Backend::new("d/a:80".to_owned()));
    set(&backend, found);
    backend
}

fn ready(lasts: &[u8]) -> Arc<Backend> {
    backend(&lasts.iter().map(|l| found(*l, true, false)).collect::<Vec<_>>())
}

fn pick(backend: &Arc<Backend>, preference: Preference, tried: &[SocketAddr]) -> Option<Pick> {
    choose(backend, &Choice { preference, tried })
}

fn any(backend: &Arc<Backend>) -> SocketAddr {
    pick(backend, Preference::Any, &[]).unwrap().address()
}

/// Every address that comes up in many choices.
fn seen(backend: &Arc<Backend>) -> BTreeSet<SocketAddr> {
    (0..200).map(|_| any(backend)).collect()
}

fn fail(backend: &Arc<Backend>, last: u8, outcome: Outcome, times: u32) {
    let set = backend.endpoints();
    let endpoint = set.all().find(|e| e.address == address(last)).unwrap();
    (0..times).for_each(|_| backend.report(endpoint, outcome));
}

#[test]
fn load_spreads_evenly_over_idle_endpoints() {
    let backend = ready(&[1, 2, 3, 4]);
    let mut counts = BTreeMap::new();
    (0..4000).for_each(|_| *counts.entry(any(&backend)).or_insert(0) += 1);
    assert!(
        counts.len() == 4 && counts.values().all(|n| (850..1150).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn the_busier_of_two_is_spared() {
    let backend = ready(&[1, 2]);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(pick(&backend, Preference::Any, &[]).unwrap());
    }
    let on_first = held.iter().filter(|p| p.address() == address(1)).count();
    assert_eq!(on_first, 5);
    held.retain(|p| p.address() == address(2));
    assert!((0..5).all(|_| {
        let pick = pick(&backend, Preference::Any, &[]).unwrap();
        let first = pick.address() == address(1);
        held.push(pick);
        first
    }));
}

#[test]
fn requests_in_flight_stay_counted_when_the_set_changes() {
    let backend = ready(&[1]);
    let pick_of_one = pick(&backend, Preference::Any, &[]).unwrap();
    set(&backend, &[found(1, true, false), found(2, true, false)]);
    let load = |last| {
        let set = backend.endpoints();
        set.all().find(|e| e.address == address(last)).unwrap().in_flight()
    };
    assert_eq!((load(1), load(2)), (1, 0));
    assert!((0..20).all(|_| any(&backend) == address(2)));
    set(&backend, &[found(1, false, false), found(2, true, false)]);
    assert_eq!(load(1), 1);
    drop(pick_of_one);
    assert_eq!(load(1), 0);
}

#[test]
fn draining_endpoints_serve_only_when_no_ready_one_can_be_had() {
    let backend = backend(&[found(1, true, false), found(2, false, false)]);
    assert_eq!(seen(&backend), BTreeSet::from([address(1)]));
    assert_eq!(
        pick(&backend, Preference::Any, &[address(1)]).unwrap().address(),
        address(2)
    );
    set(&backend, &[found(2, false, false)]);
    assert_eq!(any(&backend), address(2));
    set(&backend, &[]);
    assert!(pick(&backend, Preference::Any, &[]).is_none());
}

#[test]
fn near_endpoints_come_first_and_far_ones_are_left_for_failover() {
    let backend = backend(&[found(1, true, true), found(2, true, false), found(3, true, false)]);
    assert_eq!(seen(&backend), BTreeSet::from([address(1)]));
    let other = pick(&backend, Preference::Any, &[address(1)]).unwrap().address();
    assert!(other == address(2) || other == address(3));
}

#[test]
fn one_address_in_two_slices_is_one_endpoint_and_ready_counts() {
    let backend = backend(&[found(1, false, false), found(1, true, false), found(2, true, false)]);
    let set = backend.endpoints();
    assert_eq!((set.ready().len(), set.draining().len()), (2, 0));
}

#[test]
fn a_key_keeps_its_endpoint_and_most_keys_stay_when_one_goes() {
    let lasts: Vec<u8> = (1..=10).collect();
    let backend = ready(&lasts);
    let of = |backend: &Arc<Backend>, key: u32| {
        let preference = Preference::key(&key.to_be_bytes());
        pick(backend, preference, &[]).unwrap().address()
    };
    let before: Vec<_> = (0..1000).map(|key| of(&backend, key)).collect();
    let again: Vec<_> = (0..1000).map(|key| of(&ready(&lasts), key)).collect();
    assert_eq!(before, again, "another node decides alike");
    set(
        &backend,
        &lasts[1..].iter().map(|l| found(*l, true, false)).collect::<Vec<_>>(),
    );
    for (key, old) in before.iter().enumerate() {
        let new = of(&backend, u32::try_from(key).unwrap());
        assert!(*old == address(1) || new == *old, "{key} moved from {old} to {new}");
    }
    let share = before.iter().filter(|a| **a == address(1)).count();
    assert!((60..140).contains(&share), "{share} of 1000 keys on one of ten");
}

#[test]
fn a_preferred_endpoint_is_taken_and_without_it_another_serves() {
    let backend = ready(&[1, 2, 3]);
    let own = Preference::Endpoint(address(2));
    assert!((0..20).all(|_| pick(&backend, own, &[]).unwrap().address() == address(2)));
    assert_ne!(pick(&backend, own, &[address(2)]).unwrap().address(), address(2));
    set(&backend, &[found(1, true, false)]);
    assert_eq!(pick(&backend, own, &[]).unwrap().address(), address(1));
}

#[test]
fn the_services_own_address_is_taken_when_asked_for() {
    let backend = Arc::new(Backend::new("d/a:80".to_owned()));
    let service = Some(SocketAddr::from(([10, 96, 0, 1], 80)));
    let mut resolved = Resolved {
        service,
        ..Resolved::default()
    };
    backend.set(&resolved);
    assert!(
        pick(&backend, Preference::Service, &[]).is_none(),
        "nothing stands behind it"
    );
    resolved.found = vec![found(1, true, false)];
    backend.set(&resolved);
    assert_eq!(pick(&backend, Preference::Service, &[]).map(|p| p.address()), service);
}

#[test]
fn endpoints_that_cannot_be_reached_are_left_out_and_come_back() {
    let backend = ready(&[1, 2, 3]);
    fail(&backend, 1, Outcome::Unreachable, 1);
    assert_eq!(seen(&backend).len(), 3, "one failure is a race");
    fail(&backend, 1, Outcome::Unreachable, 1);
    assert_eq!(seen(&backend), BTreeSet::from([address(2), address(3)]));
    advance(EJECT_FIRST);
    assert_eq!(seen(&backend).len(), 3);
    // On probation one failure is enough, and it lasts longer.
    fail(&backend, 1, Outcome::Unreachable, 1);
    advance(EJECT_FIRST);
    assert_eq!(seen(&backend).len(), 2);
    advance(EJECT_FIRST);
    assert_eq!(seen(&backend).len(), 3);
    fail(&backend, 1, Outcome::Answered, 1);
    fail(&backend, 1, Outcome::Unreachable, 1);
    assert_eq!(seen(&backend).len(), 3, "an answer ends the probation");
    for _ in 0..20 {
        fail(&backend, 1, Outcome::Unreachable, 2);
        advance(EJECT_LONGEST);
        assert_eq!(seen(&backend).len(), 3);
    }
}

#[test]
fn broken_answers_in_a_row_eject_and_an_answer_between_does_not() {
    let backend = ready(&[1, 2]);
    fail(&backend, 1, Outcome::Broken, EJECT_AFTER_BROKEN - 1);
    fail(&backend, 1, Outcome::Answered, 1);
    fail(&backend, 1, Outcome::Late, EJECT_AFTER_BROKEN - 1);
    assert_eq!(seen(&backend).len(), 2);
    fail(&backend, 1, Outcome::Broken, 1);
    assert_eq!(seen(&backend), BTreeSet::from([address(2)]));
}

#[test]
fn at_most_half_are_ejected_and_none_is_lost_to_it() {
    let backend = ready(&[1, 2, 3, 4, 5]);
    (1..=5).for_each(|last| fail(&backend, last, Outcome::Unreachable, 2));
    assert_eq!(seen(&backend), BTreeSet::from([address(3), address(4), address(5)]));
    let tried = [address(3), address(4), address(5)];
    let last_resort = pick(&backend, Preference::Any, &tried).unwrap().address();
    assert!(last_resort == address(1) || last_resort == address(2));
    // Half of fewer is less: one of the ejected is taken back.
    set(
        &backend,
        &[found(1, true, false), found(2, true, false), found(3, true, false)],
    );
    assert_eq!(seen(&backend).len(), 2);
    let alone = ready(&[1]);
    fail(&alone, 1, Outcome::Unreachable, 9);
    assert_eq!(any(&alone), address(1));
    fail(&alone, 1, Outcome::Broken, 9);
    assert!(!alone.endpoints().ready()[0].ejected());
}

#[test]
fn a_request_goes_from_endpoint_to_endpoint_until_its_tries_are_used() {
    let backend = ready(&[1, 2, 3, 4]);
    let mut attempts = Attempts::new(&backend, Preference::Any, 3);
    let mut tried = BTreeSet::new();
    for _ in 0..3 {
        let pick = attempts.next().unwrap();
        assert!(tried.insert(pick.address()), "never the same twice");
        attempts.untouched(pick);
    }
    assert_eq!(attempts.next().map(|p| p.address()), Err(Lost::Unreachable));
    let none = backend_without_endpoints();
    assert_eq!(
        Attempts::new(&none, Preference::Any, 3).next().map(|p| p.address()),
        Err(Lost::NoEndpoint)
    );
}

fn backend_without_endpoints() -> Arc<Backend> {
    Arc::new(Backend::refused("d/a:80", "there is no such Service"))
}

#[test]
fn an_endpoint_that_appears_between_two_tries_is_used() {
    let backend = ready(&[1]);
    let mut attempts = Attempts::new(&backend, Preference::Any, 3);
    let first = attempts.next().unwrap();
    set(&backend, &[found(2, true, false)]);
    attempts.untouched(first);
    assert_eq!(attempts.next().unwrap().address(), address(2));
}

#[test]
fn repeating_what_may_have_been_acted_on_has_a_budget() {
    let backend = ready(&[1, 2]);
    let mut allowed = 0;
    for _ in 0..1000 {
        let mut attempts = Attempts::new(&backend, Preference::Any, 3);
        let pick = attempts.next().unwrap();
        allowed += u32::from(attempts.again(&pick, Onward::Other));
    }
    // What was saved, and 20 for each hundred requests.
    assert!((RETRIES_SAVED..=RETRIES_SAVED + 250).contains(&allowed), "{allowed}");
    advance(Duration::from_secs(1));
    assert!(backend.may_retry());
}

#[test]
fn what_is_foreseen_is_what_is_chosen_from() {
    let backend = backend(&[
        found(1, true, true),
        found(2, true, true),
        found(3, true, false),
        found(4, false, false),
    ]);
    let foreseen = |preference| {
        let foreseen = foresee(&backend, preference).unwrap();
        let all: BTreeSet<_> = foreseen.endpoints.iter().map(|e| e.address).collect();
        (foreseen.turn, all)
    };
    let of = |lasts: &[u8]| lasts.iter().map(|l| address(*l)).collect::<BTreeSet<_>>();
    assert_eq!(foreseen(Preference::Any), (Some(Turn::Near), of(&[1, 2])));
    assert_eq!(foreseen(Preference::Any).1, seen(&backend));
    assert_eq!(foreseen(Preference::Endpoint(address(3))), (None, of(&[3])));
    let key = Preference::key(b"k");
    let by_key = pick(&backend, key, &[]).unwrap().address();
    assert_eq!(foreseen(key), (None, BTreeSet::from([by_key])));
    assert!(foresee(&backend, Preference::Service).is_none());

    fail(&backend, 1, Outcome::Unreachable, 2);
    assert_eq!(foreseen(Preference::Any), (Some(Turn::Near), of(&[2])));
    assert_eq!(foreseen(Preference::Endpoint(address(1))).0, Some(Turn::Near));
    assert_eq!(foreseen(Preference::Any).1, seen(&backend));
    set(&backend, &[found(4, false, false)]);
    assert_eq!(foreseen(Preference::Any), (Some(Turn::Draining), of(&[4])));
    set(&backend, &[]);
    assert!(foresee(&backend, Preference::Any).is_none());
}

#[test]
fn an_endpoint_shows_its_failures_how_long_it_is_left_out_and_that_it_was_tried_all_the_same() {
    let backend = ready(&[1, 2]);
    let look = || {
        backend
            .endpoints()
            .ready()
            .iter()
            .find(|e| e.address == address(1))
            .unwrap()
            .seen()
    };
    let held = pick(&backend, Preference::Endpoint(address(1)), &[]);
    fail(&backend, 1, Outcome::Broken, 1);
    fail(&backend, 1, Outcome::Unreachable, EJECT_AFTER_UNREACHABLE);
    advance(Duration::from_millis(500));
    assert_eq!(
        look(),
        Seen {
            in_flight: 1,
            unreachable: EJECT_AFTER_UNREACHABLE,
            unanswered: 1,
            failures: EJECT_AFTER_UNREACHABLE + 1,
            ejected_for: Some(EJECT_FIRST - Duration::from_millis(500)),
            tried_ejected: 0,
        }
    );
    drop(held);
    assert_eq!(
        pick(&backend, Preference::Any, &[address(2)]).unwrap().address(),
        address(1)
    );
    assert_eq!(look().tried_ejected, 1);
    advance(EJECT_FIRST);
    assert_eq!(look().ejected_for, None);
    fail(&backend, 1, Outcome::Answered, 1);
    assert_eq!((look().unreachable, look().unanswered, look().failures), (0, 0, 3));
}

#[test]
fn a_request_that_was_seen_goes_where_it_may_and_not_more_often_than_allowed() {
    let backend = ready(&[1, 2]);
    let mut attempts = Attempts::new(&backend, Preference::Any, 3);
    let first = attempts.next().unwrap();
    assert!(!attempts.needs_new_connection());
    assert!(attempts.again(&first, Onward::Same));
    let second = attempts.next().unwrap();
    assert_eq!(second.address(), first.address(), "the same, by a new connection");
    assert!(attempts.needs_new_connection());
    assert!(attempts.again(&second, Onward::Rather));
    let third = attempts.next().unwrap();
    assert_ne!(third.address(), second.address());
    assert!(!attempts.again(&third, Onward::Rather), "two repeats are all");
    let alone = ready(&[1]);
    let mut attempts = Attempts::new(&alone, Preference::Any, 3);
    let pick = attempts.next().unwrap();
    assert!(attempts.again(&pick, Onward::Rather));
    assert_eq!(attempts.next().unwrap().address(), pick.address(), "there is no other");
    assert!(attempts.again(&pick, Onward::Other));
    assert_eq!(attempts.next().map(|p| p.address()), Err(Lost::Unreachable));
    let refused = Earlier {
        repeats: 0,
        untouched: Some(address(1)),
    };
    let mut resumed = Attempts::resumed(&backend, Preference::Any, 3, refused);
    assert_eq!(resumed.next().map(|p| p.address()), Ok(address(2)));
    let mut resumed = Attempts::resumed(&backend, Preference::Any, 1, refused);
    assert_eq!(
        resumed.next().map(|p| p.address()),
        Err(Lost::Unreachable),
        "that was its one try"
    );
    let mut resumed = Attempts::resumed(
        &alone,
        Preference::Any,
        3,
        Earlier {
            repeats: REPEATS,
            untouched: None,
        },
    );
    let pick = resumed.next().unwrap();
    assert!(resumed.needs_new_connection() && !resumed.again(&pick, Onward::Same));
}
