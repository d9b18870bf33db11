//! Password files of hostile users, fed with a mutated corpus: `tests/fuzz/corpus/htpasswd/`. How, is in `tests/fuzz/harness.rs`.

use crate::{is_known, users, verify};

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
use harness::fuzz;

#[test]
fn a_password_file_names_users_whole_or_is_refused() {
    fuzz("htpasswd", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(known) = users(text) else { return };
        for (user, hash) in &known {
            assert!(!user.is_empty() && !user.contains([':', '\n']) && !user.starts_with('#'));
            assert!(!hash.is_empty() && !hash.contains([':', '\n']));
            assert!(
                text.lines()
                    .any(|line| line.trim().starts_with(&format!("{user}:{hash}")))
            );
            // bcrypt is slow on purpose: its dearer hashes are only looked at.
            let dear = hash.starts_with("$2") && hash.get(3..7) != Some("$04$");
            if is_known(hash) && !dear {
                let open = |password: &[u8]| verify(hash, password);
                assert!(!(open(b"a") && open(b"b")), "{hash} is open to all");
                assert!(!open(b"hunter2\0"));
            } else if !dear {
                assert!(!verify(hash, b"hunter2"));
            }
        }
        // Blanks at the ends of a line are not part of it.
        let blank = |text: &String| text.trim() != text;
        if !known.iter().any(|(user, hash)| blank(user) || blank(hash)) {
            let lines: String = known.iter().map(|(user, hash)| format!("{user}:{hash}\n")).collect();
            assert_eq!(users(&lines).as_ref(), Ok(&known));
        }
    });
}
