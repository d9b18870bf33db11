use super::*;

/// The circles of a crate of these files; `lib.rs` is its root.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new("src").join(name) == path);
        found.map(|(_, text)| (*text).to_owned())
    };
    let knots = knots(Path::new("src/lib.rs"), &read).unwrap();
    knots.into_iter().map(|knot| knot.circle).collect()
}

#[test]
fn a_circle_is_named_with_its_places() {
    let files = [
        ("lib.rs", "pub mod a; pub mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b/mod.rs", "pub struct B; fn f() { super::c::g() }"),
        ("c.rs", "use super::a; pub fn g(_: a::A) {}"),
    ];
    let expected = "a -> b -> c -> a (a names crate::b::B, b names super::c::g, c names super::a)";
    assert_eq!(circles_of(&files), [expected]);
    let broken = [files[0], files[1], ("b/mod.rs", "pub struct B;"), files[3]];
    assert_eq!(circles_of(&broken), Vec::<String>::new());
}

#[test]
fn modules_below_one_parent_are_judged_by_what_lies_under_them() {
    let files = [
        (
            "lib.rs",
            "mod a; mod b { pub mod deep { use crate::a::x::X; pub struct Deep(X); } }",
        ),
        ("a.rs", "mod x; mod y;"),
        (
            "a/x.rs",
            "pub struct X; fn f(_: crate::b::deep::Deep, _: super::y::Y) {}",
        ),
        ("a/y.rs", "pub struct Y(super::x::X);"),
    ];
    let found = circles_of(&files);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a -> b -> a ("), "{found:?}");
    assert!(found[1].starts_with("a::x -> a::y -> a::x ("), "{found:?}");
}

#[test]
fn a_name_that_is_passed_on_counts_for_where_it_is_defined() {
    let b = ("b.rs", "use crate::Deep; pub fn f(_: Deep) {}");
    let passed_on = [
        ("lib.rs", "mod a; mod b; pub use a::{deep::*, self as other};"),
        (
            "a.rs",
            "pub mod deep { pub struct Deep; } fn f() { crate::b::f(todo!()) }",
        ),
        b,
    ];
    let found = circles_of(&passed_on);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a -> b -> a ("), "{found:?}");
    let own = [
        ("lib.rs", "mod a; mod b; pub struct Deep;"),
        ("a.rs", "fn f() { crate::b::f(todo!()) }"),
        b,
    ];
    assert_eq!(circles_of(&own), Vec::<String>::new());
}

#[test]
fn a_module_and_those_below_it_share_what_they_like() {
    let files = [
        ("lib.rs", "mod a; pub struct Shared; fn f() { a::f() }"),
        ("a.rs", "mod x; pub struct Own; pub fn f() { x::f(Own) }"),
        ("a/x.rs", "use super::Own; pub fn f(_: Own) { let _ = crate::Shared; }"),
    ];
    assert_eq!(circles_of(&files), Vec::<String>::new());
}

#[test]
fn macros_count_and_tests_comments_and_strings_do_not() {
    let a = ("a.rs", "pub fn f() { println!(\"{}\", crate::b::NAME); }");
    let nothing = r#"
        //! crate::a::f
        pub const NAME: &str = "crate::a::f"; // crate::a::f
        #[cfg(test)]
        use crate::a::f;
        #[cfg(test)]
        #[expect(dead_code)]
        mod tests { use crate::a::f; }
        #[cfg(all(test, unix))]
        fn helper() { crate::a::f() }
        pub struct S { #[cfg(test)] x: fn(crate::a::X), y: u8 }
    "#;
    let files = |b| [("lib.rs", "mod a; mod b;"), a, ("b.rs", b)];
    assert_eq!(circles_of(&files(nothing)), Vec::<String>::new());
    for something in [
        "pub const NAME: &str = \"\"; macro_rules! m { () => { $crate::a::f() } }",
        "pub const NAME: &str = \"\"; #[cfg(not(test))] fn g() { crate::a::f() }",
        "pub const NAME: &str = \"\"; #[cfg(test)] mod tests {} fn g() { (|| vec![crate::a::f()])(); }",
    ] {
        assert_eq!(circles_of(&files(something)).len(), 1, "{something}");
    }
}

#[test]
fn a_knot_is_all_modules_that_reach_each_other() {
    let text = "mod a { use crate::b::B; } mod b { use crate::{a::A, c::C}; } mod c { use crate::a::A; } mod d { use crate::a::A; }";
    let read = |path: &Path| (path == Path::new("src/lib.rs")).then(|| text.to_owned());
    let found = knots(Path::new("src/lib.rs"), &read).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].modules, ["a", "b", "c"]);
    assert!(found[0].circle.starts_with("a -> b -> a ("), "{found:?}");
}

#[test]
fn a_file_that_is_missing_or_no_rust_is_an_error() {
    let none = |_: &Path| None;
    assert!(knots(Path::new("src/lib.rs"), &none).is_err());
    let broken = |_: &Path| Some("fn f( {".to_owned());
    assert!(knots(Path::new("src/lib.rs"), &broken).is_err());
    let lost = |path: &Path| path.ends_with("lib.rs").then(|| "mod a;".to_owned());
    assert!(knots(Path::new("src/lib.rs"), &lost).is_err());
}
