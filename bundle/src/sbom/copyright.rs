//! Licences of Debian packages, from their machine-readable copyright files (Debian policy, "Machine-readable debian/copyright file" 1.0, once
//! DEP-5). The short names there are near SPDX's, and not the same.

/// Where SPDX has no name, or not surely the same licence, one of the bill's own stands (SPDX specification 2.3, 10.1).
const OWN: &str = "LicenseRef-debian-";

/// Returns the licences of all files that the copyright file lists, as an SPDX expression; `None` when it is free text, or says something that
/// has no such form.
pub(crate) fn licence(text: &str) -> Option<String> {
    let mut paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let format = field(paragraphs.next()?, "Format")?;
    // Old files have the address with http, or that of a draft, whose fields are the same.
    if !format.contains("copyright-format/1.0") {
        return None;
    }
    let mut all: Vec<String> = Vec::new();
    for paragraph in paragraphs.filter(|paragraph| field(paragraph, "Files").is_some()) {
        let one = expression(&field(paragraph, "License")?)?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all.sort();
    let alone = all.len() == 1;
    let group = |one: String| {
        if one.contains(" OR ") && !alone {
            format!("({one})")
        } else {
            one
        }
    };
    let all: Vec<String> = all.into_iter().map(group).collect();
    (!all.is_empty()).then(|| all.join(" AND "))
}

/// The first line of a field (section 3: names are not case-sensitive); of a licence that is its short name.
fn field(paragraph: &str, name: &str) -> Option<String> {
    let of = |line: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    paragraph.lines().find_map(of)
}

/// Turns names with `and` and `or` into an expression. In both forms `and` binds more; a comma, which binds less than both (section 7.2), has no
/// form in SPDX but parentheses, and is rare.
fn expression(text: &str) -> Option<String> {
    if text.contains(',') {
        return None;
    }
    let mut out = String::new();
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace().chain(["and"]) {
        let operator = match word.to_ascii_lowercase().as_str() {
            "and" => " AND ",
            "or" => " OR ",
            _ => {
                words.push(word);
                continue;
            }
        };
        let name = name(&words.join(" "))?;
        out.push_str(&name);
        out.push_str(operator);
        words.clear();
    }
    out.strip_suffix(" AND ").map(str::to_owned)
}

/// Returns the SPDX name for a short name of section 7.1.1.
fn name(short: &str) -> Option<String> {
    if short.is_empty() {
        return None;
    }
    Some(known(short).unwrap_or_else(|| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let own: String = short.replace('+', "-or-later").chars().map(plain).collect();
        format!("{OWN}{own}")
    }))
}

fn known(short: &str) -> Option<String> {
    let lower = short.to_ascii_lowercase();
    let fixed = match lower.as_str() {
        "expat" => "MIT",
        "isc" => "ISC",
        "zlib" => "Zlib",
        "bsd-2-clause" => "BSD-2-Clause",
        "bsd-3-clause" => "BSD-3-Clause",
        "bsd-4-clause" => "BSD-4-Clause",
        "cc0" | "cc0-1.0" => "CC0-1.0",
        _ => "",
    };
    if !fixed.is_empty() {
        return Some(fixed.to_owned());
    }
    let (base, later) = lower
        .strip_suffix('+')
        .map_or((lower.as_str(), false), |base| (base, true));
    let (family, version) = base.rsplit_once('-')?;
    // Section 7.1: "trailing dot-zeroes are considered to be equal to plain versions".
    let version = version.trim_end_matches(".0");
    let (id, known): (&str, &[&str]) = match family {
        "gpl" => ("GPL", &["1", "2", "3"]),
        "lgpl" => ("LGPL", &["2", "2.1", "3"]),
        "agpl" => ("AGPL", &["3"]),
        "gfdl-niv" => ("GFDL", &["1.1", "1.2", "1.3"]),
        "apache" => ("Apache", &["1", "1.1", "2"]),
        "mpl" => ("MPL", &["1", "1.1", "2"]),
        "artistic" => ("Artistic", &["2"]),
        "cc-by" => ("CC-BY", &["1", "2", "2.5", "3", "4"]),
        "cc-by-sa" => ("CC-BY-SA", &["1", "2", "2.5", "3", "4"]),
        _ => return None,
    };
    if !known.contains(&version) {
        return None;
    }
    let dotted = if version.contains('.') {
        version.to_owned()
    } else {
        format!("{version}.0")
    };
    let gnu = if later { "-or-later" } else { "-only" };
    match (id, later) {
        ("GPL" | "LGPL" | "AGPL", _) => Some(format!("{id}-{dotted}{gnu}")),
        ("GFDL", _) => Some(format!("{id}-{dotted}-no-invariants{gnu}")),
        (_, false) => Some(format!("{id}-{dotted}")),
        (_, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::is_expression;
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n";

    fn of(licences: &[&str]) -> Option<String> {
        let paragraph = |licence: &&str| {
            format!("\nFiles: *\nCopyright: 2020 somebody\nLicense: {licence}\n Permission is granted\n .\n to you.\n")
        };
        licence(&format!(
            "{HEAD}{}\nLicense: none\n a text alone\n",
            licences.iter().map(paragraph).collect::<String>()
        ))
    }

    #[test]
    fn licences_of_all_files_count_once() {
        assert_eq!(
            of(&["GPL-2+", "GPL-2+", "Expat"]).as_deref(),
            Some("GPL-2.0-or-later AND MIT")
        );
        assert_eq!(
            of(&["BSD-3-clause or GPL-2", "zlib"]).as_deref(),
            Some("(BSD-3-Clause OR GPL-2.0-only) AND Zlib")
        );
        assert_eq!(
            of(&["LGPL-3+ or GPL-2+"]).as_deref(),
            Some("LGPL-3.0-or-later OR GPL-2.0-or-later")
        );
        assert_eq!(
            of(&["GPL-2 and Expat or ISC"]).as_deref(),
            Some("GPL-2.0-only AND MIT OR ISC")
        );
    }

    #[test]
    fn names_of_debian_become_those_of_spdx() {
        for (short, id) in [
            ("Apache-2.0", "Apache-2.0"),
            ("Apache-2", "Apache-2.0"),
            ("GPL-3.0+", "GPL-3.0-or-later"),
            ("lgpl-2.1", "LGPL-2.1-only"),
            ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
            ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
            ("Artistic-2.0", "Artistic-2.0"),
            // Several licences have these names, or SPDX has none for them.
            ("Artistic", "LicenseRef-debian-Artistic"),
            ("MIT", "LicenseRef-debian-MIT"),
            ("public-domain", "LicenseRef-debian-public-domain"),
            ("BSD-3-clause-Regents", "LicenseRef-debian-BSD-3-clause-Regents"),
            (
                "GPL-3+ with Bison exception",
                "LicenseRef-debian-GPL-3-or-later-with-Bison-exception",
            ),
            ("GPL-4", "LicenseRef-debian-GPL-4"),
        ] {
            assert_eq!(of(&[short]).as_deref(), Some(id));
            assert!(is_expression(id), "{id}");
        }
    }

    #[test]
    fn what_is_not_machine_readable_says_nothing() {
        assert_eq!(
            licence("This is the Debian prepackaged version of the GNU C Library\n\nLicense: GPL-2\n"),
            None
        );
        assert_eq!(licence(HEAD), None);
        assert_eq!(of(&["GPL-2", ""]), None);
        assert_eq!(of(&["GPL-2 or Artistic, and Expat"]), None);
        assert_eq!(of(&["or GPL-2"]), None);
        assert_eq!(licence(""), None);
    }

    proptest! {
        #[test]
        fn whatever_a_file_says_is_an_expression_or_nothing(short in "[ -~]{0,40}") {
            if let Some(text) = of(&[&short, "GPL-2"]) {
                prop_assert!(is_expression(&text), "{text}");
            }
        }
    }
}
