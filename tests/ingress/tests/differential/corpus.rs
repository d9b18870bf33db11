//! The corpus: what a client sends, byte by byte, and what the endpoint answers to it. `corpus.txt` is its text.
//!
//! | line | means |
//! |---|---|
//! | `== NAME` | a case begins |
//! | `> TEXT` | the client sends this and CR LF; `>> TEXT` without CR LF |
//! | `~` | the client waits for the head of an answer; what is above was sent in one piece |
//! | `@` | the client waits until the endpoint has the request |
//! | `!` | the client closes its sending half |
//! | `< TEXT`, `<< TEXT` | the endpoint answers with this instead of the usual 200 |
//! | `: early` | it answers as soon as it has a head |
//! | `: late` | it answers a while after it has the request |
//! | `: close` | it closes after its answer |
//! | `: answers N` | the client expects so many final answers; 1 when it is not said |
//! | `# TEXT` | nothing; before the first case and between them |
//!
//! In a TEXT stand `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` for bytes and `{{TEXT*N}}` for N times the text.

/// One exchange, or several on one connection.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
    pub reply: Reply,
    /// Final answers that a client expects.
    pub answers: usize,
}

/// What the client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Send(Vec<u8>),
    /// Waits for an answer's head.
    Await,
    /// Waits until the endpoint has the request.
    AwaitEndpoint,
    CloseHalf,
}

/// What the endpoint does.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// None is the usual answer.
    pub bytes: Option<Vec<u8>>,
    pub early: bool,
    pub late: bool,
    pub closes: bool,
}

/// Reads the corpus; a line that makes no sense fails the test.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fault = |why: &str| -> ! { panic!("corpus.txt, line {}: {why}: {line:?}", index + 1) };
        if let Some(name) = line.strip_prefix("== ") {
            if cases.iter().any(|case| case.name == name) {
                fault("a second case of this name");
            }
            cases.push(Case {
                name: name.to_owned(),
                steps: Vec::new(),
                reply: Reply::default(),
                answers: 1,
            });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(case) = cases.last_mut() else {
            fault("no case has begun")
        };
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            ">" | ">>" => case.send(&bytes(rest, mark == ">")),
            "<" | "<<" => {
                let reply = case.reply.bytes.get_or_insert_default();
                reply.extend(bytes(rest, mark == "<"));
            }
            "~" => case.steps.push(Step::Await),
            "@" => case.steps.push(Step::AwaitEndpoint),
            "!" => case.steps.push(Step::CloseHalf),
            ":" => match rest.split_once(' ').unwrap_or((rest, "")) {
                ("early", "") => case.reply.early = true,
                ("late", "") => case.reply.late = true,
                ("close", "") => case.reply.closes = true,
                ("answers", number) => match number.parse() {
                    Ok(number) => case.answers = number,
                    Err(_) => fault("no number"),
                },
                _ => fault("no such property"),
            },
            _ => fault("no such line"),
        }
    }
    cases
}

impl Case {
    fn send(&mut self, bytes: &[u8]) {
        match self.steps.last_mut() {
            Some(Step::Send(sent)) => sent.extend_from_slice(bytes),
            _ => self.steps.push(Step::Send(bytes.to_vec())),
        }
    }
}

fn bytes(text: &str, line: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let end = start + rest[start..].find("}}").expect("}} after {{");
        let (repeated, times) = rest[start + 2..end].rsplit_once('*').expect("TEXT*N");
        out.extend(unescaped(&rest[..start]));
        out.extend(unescaped(repeated).repeat(times.parse().expect("a number after *")));
        rest = &rest[end + 2..];
    }
    out.extend(unescaped(rest));
    if line {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("a letter after a backslash");
        rest = after;
        out.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two hex digits");
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).expect("two hex digits")
            }
            _ => panic!("no such escape: {text:?}"),
        });
    }
    out
}

#[test]
fn a_case_is_read_as_it_is_meant() {
    let text = "# what\n== a\n> GET /{{a*3}} HTTP/1.1\n>> X: \\x00\\t\n~\n>> b\n!\n< HTTP/1.1 204 No\n<< c\n: early\n: answers 2\n";
    let cases = parse(text);
    let steps = [
        Step::Send(b"GET /aaa HTTP/1.1\r\nX: \0\t".to_vec()),
        Step::Await,
        Step::Send(b"b".to_vec()),
        Step::CloseHalf,
    ];
    assert_eq!((cases[0].name.as_str(), &cases[0].steps[..]), ("a", &steps[..]));
    assert_eq!(cases[0].reply.bytes.as_deref(), Some(&b"HTTP/1.1 204 No\r\nc"[..]));
    assert!(cases[0].reply.early && !cases[0].reply.closes && cases[0].answers == 2);
}
