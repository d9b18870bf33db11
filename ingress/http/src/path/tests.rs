//! Spellings by table, then properties over generated paths.

use super::*;

fn form(path: &str) -> Result<String, BadPath> {
    canonical(path).map(Cow::into_owned)
}

#[test]
fn canonical_paths_are_not_copied() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a/b.c/.well-known/...",
        "/a%2Fb",
        "/%20%C3%A4%25",
        "/a;v=1,2/(x)!$&'*+=:@~_-",
        "/.../..a/.b/a../a.",
    ] {
        assert!(
            matches!(canonical(path), Ok(Cow::Borrowed(same)) if same == path),
            "{path}"
        );
    }
}

#[test]
fn other_spellings_get_one_form() {
    for (path, wanted) in [
        ("/%61%2D%7e%2E%5f", "/a-~._"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%c3%a4", "/a%C3%A4"),
        ("/k\u{e4}se", "/k%C3%A4se"),
        ("/a|b^c`{d}[e]\"<>", "/a%7Cb%5Ec%60%7Bd%7D%5Be%5D%22%3C%3E"),
        ("/a b?c#d", "/a%20b%3Fc%23d"),
        ("/%2561", "/%2561"),
        ("//", "/"),
        ("//a///b//", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a//../b", "/b"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/a/..%2Fb", "/a/..%2Fb"),
    ] {
        assert_eq!(form(path).as_deref(), Ok(wanted), "{path}");
    }
}

#[test]
fn what_endpoints_read_in_different_ways_is_refused() {
    for (path, wanted) in [
        ("", BadPath::NotAbsolute),
        ("*", BadPath::NotAbsolute),
        ("a", BadPath::NotAbsolute),
        ("/a\\b", BadPath::Backslash),
        ("/a%5Cb", BadPath::Backslash),
        ("/a%5cb", BadPath::Backslash),
        ("/a%00", BadPath::Nul),
        ("/a\0", BadPath::Nul),
        ("/100%", BadPath::Encoding),
        ("/%2", BadPath::Encoding),
        ("/%zz", BadPath::Encoding),
        ("/%+1", BadPath::Encoding),
        ("/%u0041", BadPath::Encoding),
        ("/public/..;/admin", BadPath::DotParameter),
        ("/public/..;a=b/admin", BadPath::DotParameter),
        ("/public/%2e.;/admin", BadPath::DotParameter),
        ("/.;", BadPath::DotParameter),
    ] {
        assert_eq!(form(path), Err(wanted), "{path}");
    }
}

#[test]
fn a_route_may_refuse_or_keep_what_is_not_canonical() {
    let forward = |path: &str, mode| forwarded(path, canonical(path).unwrap(), mode).map(Cow::into_owned);
    for (path, mode, wanted) in [
        ("/a/./b", PathMode::Canonical, Ok("/a/b")),
        ("/a/./b", PathMode::Reject, Err(BadPath::NotCanonical)),
        ("/a/b", PathMode::Reject, Ok("/a/b")),
        ("/a%2Fb", PathMode::Reject, Ok("/a%2Fb")),
        ("/a%2Fb", PathMode::Strict, Err(BadPath::EncodedSlash)),
        ("/a%2fb", PathMode::Strict, Err(BadPath::EncodedSlash)),
        ("/a/b", PathMode::Strict, Ok("/a/b")),
        ("/p/http://x", PathMode::KeepSlashes, Ok("/p/http://x")),
        ("/p//%61", PathMode::KeepSlashes, Ok("/p//a")),
        ("/p/./a", PathMode::KeepSlashes, Ok("/p/a")),
        ("/p//../a", PathMode::KeepSlashes, Err(BadPath::Ambiguous)),
        ("/p//%2e%2e/a", PathMode::KeepSlashes, Err(BadPath::Ambiguous)),
    ] {
        assert_eq!(forward(path, mode), wanted.map(str::to_owned), "{path} {mode:?}");
    }
}

/// Paths of pieces that matter, from a fixed seed: the same in each run.
fn generated() -> impl Iterator<Item = String> {
    const PIECES: [&str; 27] = [
        "/", "/", "/", ".", "..", "a", "b", "Z", "%2e", "%2E", "%2f", "%2F", "%5c", "%00", "%61", "%25", "%", "%4",
        ";", "\\", "\u{e4}", " ", "%c3", "~", "//", "/../", "/..;/",
    ];
    let mut seed: u64 = 0x5eed;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    (0..50_000).map(move |_| {
        let count = next(12);
        std::iter::once("/")
            .chain((0..count).map(|_| PIECES[next(PIECES.len())]))
            .collect()
    })
}

#[test]
fn the_form_of_a_form_is_itself_and_is_taken_without_a_copy() {
    let mut changed = 0;
    for path in generated() {
        let Ok(once) = canonical(&path) else { continue };
        changed += usize::from(matches!(once, Cow::Owned(_)));
        assert!(
            matches!(canonical(&once), Ok(Cow::Borrowed(same)) if *same == *once),
            "{path:?} {once:?}"
        );
    }
    assert!(changed > 5_000, "{changed}");
}

#[test]
fn a_form_has_no_dot_segments_no_doubled_slashes_and_no_hidden_letters() {
    for path in generated() {
        let Ok(form) = canonical(&path) else { continue };
        assert!(
            form.starts_with('/') && !form.contains("//") && form.is_ascii(),
            "{path:?} {form:?}"
        );
        let hidden = |s: &str| matches!(s, "." | "..") || s.starts_with(".;") || s.starts_with("..;");
        assert!(!form.split('/').any(hidden), "{path:?} {form:?}");
        for spelled in ["%2E", "%2e", "%61", "%2f", "%5C", "%00", "\\"] {
            assert!(!form.contains(spelled), "{path:?} {form:?}");
        }
    }
}
