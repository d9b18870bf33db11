//! Takes secrets out of text that leaves the node: PEM blocks, bootstrap tokens, and the values of keys that name secrets.

/// Words that, at the end of a key or flag, announce a secret value.
const SECRET_KEYS: [&str; 9] = [
    "token",
    "certificate-key",
    "certificatekey",
    "client-key-data",
    "client-certificate-data",
    "password",
    "secret",
    "bearer",
    "authorization",
];

/// PEM has lines of 64 characters; the first may be cut. Words of a log are hardly ever as long.
const LONG_BASE64: usize = 40;

/// Redacts line by line; remembers whether it is inside a PEM block.
#[derive(Debug, Default)]
pub struct Redactor {
    in_pem: bool,
}

impl Redactor {
    /// Returns the line without its secrets; `None` for lines inside a PEM block.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if self.in_pem {
            self.in_pem = !line.contains("-----END");
            return None;
        }
        if let Some(at) = line.find("-----BEGIN") {
            self.in_pem = !line[at..].contains("-----END");
            return Some(format!("{}<redacted PEM block>", redact_values(&line[..at])));
        }
        Some(redact_values(line))
    }

    /// Redacts a whole text.
    pub fn text(text: &str) -> String {
        Self::lines(text.lines())
    }

    /// Redacts the end of a text whose beginning is not known: it may start inside a PEM block. Lines that look like the inside of one go
    /// until its end is seen, or a line that looks different.
    pub fn tail(text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let at = |word: &str| lines.iter().position(|line| line.contains(word));
        // The inside of a block that began further up: all of it up to its end, or long lines alone while no end is in sight.
        let end = at("-----END").filter(|end| at("-----BEGIN").is_none_or(|begin| *end < begin));
        let long = lines
            .iter()
            .take_while(|line| base64_at_end(line) >= LONG_BASE64)
            .count();
        let is_inside =
            |n: usize| n < long || end.is_some_and(|end| n == end || n < end && base64_at_end(lines[n]) > 0);
        Self::lines((0..lines.len()).filter(|n| !is_inside(*n)).map(|n| lines[n]))
    }

    fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
        let mut redactor = Self::default();
        let clean: Vec<_> = lines.filter_map(|line| redactor.line(line)).collect();
        clean.join("\n")
    }
}

/// Returns the length of the last word when it could be a line of a PEM block: base64, alone or behind what a logger puts before it.
fn base64_at_end(line: &str) -> usize {
    let word = line.split_whitespace().next_back().unwrap_or_default();
    let is_base64 = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    if is_base64 { word.len() } else { 0 }
}

fn redact_values(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut hide_next = false;
    for piece in line.split_inclusive(|c: char| c.is_whitespace() || c == ',') {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || c == ',');
        let rest = &piece[word.len()..];
        if word.is_empty() {
            out.push_str(rest);
            continue;
        }
        let lower = word.to_ascii_lowercase();
        if hide_next && !matches!(lower.as_str(), "=" | ":") {
            // "Authorization: Bearer x": the word after a scheme is the secret.
            hide_next = matches!(lower.as_str(), "bearer" | "basic");
            out.push_str("<redacted>");
        } else if let Some(at) = word.find(['=', ':']).filter(|at| names_secret(&lower[..*at])) {
            out.push_str(&word[..=at]);
            hide_next = at + 1 == word.len();
            if !hide_next {
                out.push_str("<redacted>");
            }
        } else if is_bootstrap_token(word.trim_matches(|c: char| !c.is_ascii_alphanumeric())) {
            out.push_str("<redacted>");
        } else {
            hide_next = lower.starts_with("--") && names_secret(&lower);
            out.push_str(word);
        }
        out.push_str(rest);
    }
    out
}

fn names_secret(key: &str) -> bool {
    let key = key.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    SECRET_KEYS.iter().any(|secret| key.ends_with(secret))
}

/// kubeadm's form: six characters, a dot, sixteen characters.
fn is_bootstrap_token(word: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    word.split_once('.')
        .is_some_and(|(id, key)| id.len() == 6 && key.len() == 16 && plain(id) && plain(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_survive() {
        let text = "kubeadm join 10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:12\n\
                    \t--certificate-key 0123abcd\n\
                    client-key-data: TUlJRX\n\
                    password=hunter2 ok\n\
                    Authorization: Bearer eyJhbGciOi\n\
                    -----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\n\
                    [certs] all fine";
        let clean = Redactor::text(text);
        for secret in ["abcdef.0123", "0123abcd", "TUlJRX", "hunter2", "eyJhb", "MIIEow"] {
            assert!(!clean.contains(secret), "{secret} in {clean}");
        }
        for kept in ["kubeadm join 10.0.0.1:6443", "sha256:12", "[certs] all fine", " ok"] {
            assert!(clean.contains(kept), "{kept} not in {clean}");
        }
    }
}
