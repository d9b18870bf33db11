//! The client's side of a case: sends the bytes, reads what comes back, and finds out whether the connection is kept.

use super::corpus::{Case, Step};
use super::recorder::{PROBE, Recorder, Seen, find, shown};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Silence after which a proxy is said to wait for more. Answers over loopback come within milliseconds; a busy machine may need longer.
const SILENCE: Duration = Duration::from_secs(3);

/// The outcome of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub answers: Vec<Answer>,
    pub end: End,
    /// What went back through a tunnel.
    pub tunnel: Vec<u8>,
    pub seen: Vec<Seen>,
}

/// An answer, interim ones too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// 0 where there is none.
    pub status: u16,
    pub version: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub framing: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The state of the connection at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Another request was answered on it.
    Kept,
    Closed,
    /// The proxy neither answers nor closes.
    Waits,
}

/// Plays a case on one proxy.
pub fn play(case: &Case, proxy: SocketAddr, recorder: &Recorder) -> Outcome {
    recorder.expect(case.reply.clone());
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let mut client = Client {
        stream,
        buffer: Vec::new(),
        ended: None,
    };
    let head_only = case
        .steps
        .iter()
        .any(|step| matches!(step, Step::Send(bytes) if bytes.starts_with(b"HEAD ")));
    let mut answers = Vec::new();
    let mut tunnel = Vec::new();
    for step in &case.steps {
        match step {
            // A proxy may have refused and closed by now.
            Step::Send(bytes) => drop(client.stream.write_all(bytes)),
            Step::CloseHalf => drop(client.stream.shutdown(Shutdown::Write)),
            Step::AwaitEndpoint => recorder.await_request(),
            Step::Await => answers.extend(client.answer(head_only)),
        }
        if let (Some(Answer { status: 101, .. }), Step::Send(bytes)) = (answers.last(), step) {
            tunnel.extend(client.take(bytes.len()).unwrap_or_default());
        }
    }
    let is_final = |answer: &&Answer| !(100..200).contains(&answer.status) || answer.status == 101;
    while client.ended.is_none() && answers.iter().filter(is_final).count() < case.answers {
        answers.extend(client.answer(head_only));
    }
    let upgraded = answers.last().is_some_and(|answer| answer.status == 101);
    let end = match client.ended {
        Some(end) => end,
        None if upgraded => End::Kept,
        None => client.probe(),
    };
    drop(client);
    let mut seen = recorder.seen();
    for field in seen.iter_mut().flat_map(|seen| &mut seen.fields) {
        if field.to_ascii_lowercase().starts_with("x-forwarded-port:") {
            *field = field.replace(&proxy.port().to_string(), "PORT");
        }
    }
    Outcome {
        answers,
        end,
        tunnel,
        seen,
    }
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: Option<End>,
}

impl Client {
    fn more(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(read) if read > 0 => {
                self.buffer.extend_from_slice(&bytes[..read]);
                return Some(());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.ended = Some(End::Waits);
            }
            _ => self.ended = Some(End::Closed),
        }
        None
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, end) {
                let text = self.take(at)?;
                self.take(end.len())?;
                return Some(text);
            }
            self.more()?;
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// The next answer; none when there is none.
    fn answer(&mut self, head_only: bool) -> Option<Answer> {
        while self.buffer.len() < 5 {
            self.more()?;
        }
        if !self.buffer.starts_with(b"HTTP/") {
            // HTTP/0.9, to a client that speaks 1.1.
            self.ended = Some(End::Closed);
            return Some(Answer::default());
        }
        let head = self.until(b"\r\n\r\n")?;
        let text = shown(&head);
        let mut lines = text.split("\\r\\n");
        let mut words = lines.next()?.split(' ');
        let mut answer = Answer {
            version: words.next()?.to_owned(),
            status: words.next()?.parse().ok()?,
            framing: "none",
            ..Answer::default()
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            answer.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if answer.status >= 200 && !head_only && ![204, 304].contains(&answer.status) {
            self.body(&mut answer);
        }
        if answer
            .field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
            && answer.status >= 200
        {
            // Whatever the connection does, the client has been told not to use it again.
            self.ended = Some(End::Closed);
        }
        Some(answer)
    }

    fn body(&mut self, answer: &mut Answer) {
        let chunked = answer
            .field("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = answer.field("content-length").and_then(|value| value.parse().ok());
        let whole = match (chunked, length) {
            (true, _) => {
                answer.framing = "chunked";
                self.chunks(answer)
            }
            (false, Some(length)) => {
                answer.framing = "length";
                self.take(length).map(|body| answer.body = body)
            }
            (false, None) => {
                answer.framing = "until the end";
                while self.more().is_some() {}
                answer.body = std::mem::take(&mut self.buffer);
                Some(())
            }
        };
        if whole.is_none() {
            answer.framing = "cut";
            answer.body.append(&mut self.buffer);
        }
    }

    fn chunks(&mut self, answer: &mut Answer) -> Option<()> {
        loop {
            let line = self.until(b"\r\n")?;
            let digits = line.split(|byte| *byte == b';').next()?;
            let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?.trim(), 16).ok()?;
            if size == 0 {
                break;
            }
            answer.body.extend(self.take(size)?);
            self.until(b"\r\n")?;
        }
        loop {
            let line = self.until(b"\r\n")?;
            if line.is_empty() {
                return Some(());
            }
            answer.fields.push(("trailer".to_owned(), shown(&line)));
        }
    }

    /// Asks once more.
    fn probe(&mut self) -> End {
        let request = format!("GET {PROBE} HTTP/1.1\r\nHost: h.test\r\n\r\n");
        let _ = self.stream.write_all(request.as_bytes());
        match self.answer(false) {
            Some(answer) if answer.status == 200 && answer.body == b"ok" => End::Kept,
            // What was answered is not what was asked.
            Some(_) => End::Waits,
            None => self.ended.unwrap_or(End::Closed),
        }
    }
}
