//! Knows a licence by its whole text: the six that nearly all Go modules have, word for word. A text with anything more or less is none of them.

use landfall_core::name::Digest;

const MIT: &str = "permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation \
     files the software to deal in the software without restriction including without limitation the rights to use copy modify merge publish \
     distribute sublicense and or sell copies of the software and to permit persons to whom the software is furnished to do so subject to the \
     following conditions the above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
     software the software is provided as is without warranty of any kind express or implied including but not limited to the warranties of \
     merchantability fitness for a particular purpose and noninfringement in no event shall the authors or copyright holders be liable for any \
     claim damages or other liability whether in an action of contract tort or otherwise arising from out of or in connection with the software \
     or the use or other dealings in the software";

const ISC: &str = "permission to use copy modify and or distribute this software for any purpose with or without fee is hereby granted provided \
     that the above copyright notice and this permission notice appear in all copies the software is provided as is and the author disclaims all \
     warranties with regard to this software including all implied warranties of merchantability and fitness in no event shall the author be \
     liable for any special direct indirect or consequential damages or any damages whatsoever resulting from loss of use data or profits whether \
     in an action of contract negligence or other tortious action arising out of or in connection with the use or performance of this software";

const BSD: &str = "redistribution and use in source and binary forms with or without modification are permitted provided that the following \
     conditions are met redistributions of source code must retain the above copyright notice this list of conditions and the following \
     disclaimer redistributions in binary form must reproduce the above copyright notice this list of conditions and the following disclaimer in \
     the documentation and or other materials provided with the distribution ";
const BSD_NAMES: &str = "neither the name of ";
const BSD_NAMES_REST: &str = " nor the names of its contributors may be used to endorse or promote products derived from this software without \
     specific prior written permission ";
const BSD_END: &str = "this software is provided by the copyright holders and contributors as is and any express or implied warranties including \
     but not limited to the implied warranties of merchantability and fitness for a particular purpose are disclaimed in no event shall the \
     copyright holder or contributors be liable for any direct indirect incidental special exemplary or consequential damages including but not \
     limited to procurement of substitute goods or services loss of use data or profits or business interruption however caused and on any theory \
     of liability whether in contract strict liability or tort including negligence or otherwise arising in any way out of the use of this \
     software even if advised of the possibility of such damage";

/// Of the words of Debian's /usr/share/common-licenses/Apache-2.0 up to where its terms end.
const APACHE: &str = "70162844937a6076ee66eb32c6c30cf8836f929792fc7ee57f359b1255313769";
/// Last words of the terms of Apache-2.0. A notice, with or without the explanation of it, may follow.
const APACHE_END: &str = "end of terms and conditions";
const APACHE_NOTICE: &str = "licensed under the apache license version 2 0 the license you may not use this file except in compliance with the \
     license you may obtain a copy of the license at http www apache org licenses license 2 0 unless required by applicable law or agreed to in \
     writing software distributed under the license is distributed on an as is basis without warranties or conditions of any kind either express \
     or implied see the license for the specific language governing permissions and limitations under the license";
const APACHE_APPENDIX: &str = "appendix how to apply the apache license to your work ";
/// Of the words of Debian's /usr/share/common-licenses/MPL-2.0.
const MPL: &str = "2679d8adefa007797fdba64dfa8f0dc1d11981245c546ba2d9c2b2ea7341fd3e";

/// Headings over the short texts.
const TITLES: [&str; 7] = [
    "the mit license mit ",
    "the mit license ",
    "mit license ",
    "isc license ",
    "bsd 2 clause license ",
    "bsd 3 clause license ",
    "license ",
];

/// Returns the SPDX name of a licence whose text this is.
pub(crate) fn identify(text: &str) -> Option<&'static str> {
    let words = words(text);
    let digest = |text: &str| Digest::of(text.as_bytes()).hex();
    if let Some((terms, rest)) = words.split_once(APACHE_END) {
        let notice = rest.trim();
        let notice = match notice.starts_with(APACHE_APPENDIX) {
            true => notice
                .split_once("third party archives ")
                .map_or(notice, |(_, notice)| notice),
            false => notice,
        };
        let alone = notice.is_empty() || notice == APACHE_NOTICE;
        return (alone && digest(terms.trim()) == APACHE).then_some("Apache-2.0");
    }
    if digest(&words) == MPL {
        return Some("MPL-2.0");
    }
    let body = TITLES
        .iter()
        .find_map(|title| words.strip_prefix(title))
        .unwrap_or(&words);
    match body {
        MIT => return Some("MIT"),
        ISC => return Some("ISC"),
        _ => {}
    }
    let rest = body.strip_prefix(BSD)?;
    if rest == BSD_END {
        return Some("BSD-2-Clause");
    }
    let (name, end) = rest.strip_prefix(BSD_NAMES)?.split_once(BSD_NAMES_REST)?;
    // A name, and no more terms.
    (name.len() <= 80 && end == BSD_END).then_some("BSD-3-Clause")
}

/// The words of a text, without what differs in each copy: lines with the owner of the copyright, marks of lists and comments, case.
fn words(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.trim_matches(|c: char| c.is_whitespace() || "#*>/-".contains(c));
        // A line of the terms may begin with the word in small or all capital letters.
        let owner = line.starts_with("Copyright") || line.starts_with("(c)") || line.starts_with("(C)");
        if owner || line.to_ascii_lowercase().starts_with("all rights reserved") {
            continue;
        }
        let words = line
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let mut words = words.map(str::to_ascii_lowercase).peekable();
        let marked = line
            .split_once(['.', ')'])
            .is_some_and(|(mark, rest)| is_mark(mark) && rest.starts_with(' '));
        if marked {
            words.next();
        }
        out.extend(words);
    }
    let text = out.join(" ");
    // Templates of SPDX allow both.
    text.replace("https www apache org", "http www apache org").replace(
        "the copyright owner or contributors",
        "the copyright holder or contributors",
    )
}

/// Whether this is what stands before an element of a list: `1`, `(a`.
fn is_mark(text: &str) -> bool {
    let text = text.trim_start_matches('(');
    matches!(text.len(), 1 | 2) && text.chars().all(|c| c.is_ascii_digit())
        || text.len() == 1 && text.chars().all(|c| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "Copyright (c) 2009 The Authors. All rights reserved.\n\n";

    fn wrapped(words: &str) -> String {
        let mut text = String::new();
        for (n, word) in words.split(' ').enumerate() {
            text.push_str(word);
            text.push(if n % 11 == 10 { '\n' } else { ' ' });
        }
        text
    }

    #[test]
    fn short_texts_are_known_with_any_owner_and_heading() {
        let three = format!("{BSD}{BSD_NAMES}the Example Corporation{BSD_NAMES_REST}{BSD_END}");
        let two = format!("{BSD}{BSD_END}");
        for (text, id) in [
            (MIT, "MIT"),
            (ISC, "ISC"),
            (&two, "BSD-2-Clause"),
            (&three, "BSD-3-Clause"),
        ] {
            assert_eq!(identify(&format!("{OWNER}{}", wrapped(text))), Some(id));
            assert_eq!(identify(&format!("{OWNER}{}", wrapped(text).to_uppercase())), Some(id));
            assert!(identify(&format!("# MIT License\n\n{OWNER}{text}")).is_some());
            for wrong in [
                format!("{text} and no military use"),
                format!("This project has two licenses.\n{text}"),
                text.replacen("or", "and", 1),
                format!("{text}\n\n{text}"),
            ] {
                assert_eq!(identify(&wrong), None, "{wrong}");
            }
        }
        let owner =
            "1. Redistributions of source code must retain the above copyright\n   notice, this list of conditions";
        assert!(BSD.contains(&words(owner)), "{}", words(owner));
        assert_eq!(
            identify(&three.replace("the Example Corporation", &"more terms ".repeat(9))),
            None
        );
        assert_eq!(identify(""), None);
    }

    /// Debian has them (base-files, which every Debian has; the tests run there).
    #[test]
    fn long_texts_are_known_as_debian_has_them() {
        for (name, id) in [("Apache-2.0", "Apache-2.0"), ("MPL-2.0", "MPL-2.0")] {
            let text = std::fs::read_to_string(format!("/usr/share/common-licenses/{name}")).unwrap();
            assert_eq!(identify(&text), Some(id));
            assert_eq!(identify(&text.replacen("royalty-free", "royalty", 1)), None);
            assert_eq!(identify(&format!("{text}\n{MIT}")), None);
        }
        let apache = std::fs::read_to_string("/usr/share/common-licenses/Apache-2.0").unwrap();
        let (terms, _) = apache.split_once("END OF TERMS AND CONDITIONS").unwrap();
        let notice = format!("{terms}END OF TERMS AND CONDITIONS\n\n{OWNER}{APACHE_NOTICE}");
        assert_eq!(
            identify(&notice.replace("http://www", "https://www")),
            Some("Apache-2.0")
        );
        assert_eq!(identify(terms), None, "it was cut off");
    }
}
