//! Reads what a starting shell writes, until the command runs: lines of standard output, and marks anywhere on standard error or on a terminal.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

/// Chunks of standard error, of up to 4 KiB, that are buffered for a slow reader; the command waits when the buffer is full.
const MAX_BUFFERED_CHUNKS: usize = 256;
/// Longest line of standard output that is kept whole, in bytes: markers are shorter.
const MAX_LINE_BYTES: usize = 2000;
/// Where doas's prompt begins and ends: `doas (USER@HOST) password: ` (opendoas 6.8, doas.c). It cannot be told another.
const DOAS_PROMPT: (&str, &str) = ("doas (", ") password: ");

/// What is seen on the outputs of a shell. They are read apart, so events of one may arrive before older events of another.
#[derive(Debug, Clone)]
pub enum ShellOutput {
    /// A line of standard output.
    Line(String),
    /// The last words of standard output, without a line's end.
    Words(String),
    OutputEnded,
    /// Text on standard error, or on the terminal.
    Errors(String),
    /// The shell's marker on standard error: what came before it is a profile's.
    ErrorsOfSudo,
    /// sudo's prompt.
    Prompt,
    /// What looks like doas's prompt.
    DoasPrompt,
    ErrorsEnded,
    /// The shell's marker on the terminal.
    TerminalRuns,
    /// What was to be a terminal is none, or cannot be made raw.
    NoTerminal,
    TerminalEnded,
}

/// Text that is an event, and does not belong to what is passed on.
pub enum Mark {
    /// A word that the script writes.
    Word(String),
    /// doas's prompt.
    DoasPrompt,
}

impl Mark {
    fn find(&self, text: &str) -> Option<Range<usize>> {
        match self {
            Self::Word(word) => text.find(word).map(|at| at..at + word.len()),
            Self::DoasPrompt => {
                let at = text.rfind(DOAS_PROMPT.0)?;
                let end = at + text[at..].find(DOAS_PROMPT.1)? + DOAS_PROMPT.1.len();
                (!text[at..end].contains('\n')).then_some(at..end)
            }
        }
    }

    /// Returns how many bytes at the end of `text` may be the beginning of it.
    fn beginning(&self, text: &str) -> usize {
        let word = match self {
            Self::Word(word) => word,
            Self::DoasPrompt => {
                let line = &text[text.rfind('\n').map_or(0, |at| at + 1)..];
                if let Some(at) = line.rfind(DOAS_PROMPT.0).filter(|_| line.len() < MAX_LINE_BYTES) {
                    return line.len() - at;
                }
                DOAS_PROMPT.0
            }
        };
        (1..word.len().min(text.len() + 1))
            .rev()
            .find(|n| text.is_char_boundary(text.len() - n) && word.starts_with(&text[text.len() - n..]))
            .unwrap_or(0)
    }
}

/// Marks and their events.
pub type Marks = Vec<(Mark, ShellOutput)>;

/// Sends the lines of standard output up to the marker that says that the command runs, and returns the rest as a reader.
pub fn watch_stdout(
    mut stdout: Box<dyn Read + Send>,
    ready: String,
    seen: Sender<ShellOutput>,
) -> thread::JoinHandle<Box<dyn Read + Send>> {
    thread::spawn(move || {
        // Reads single bytes, because everything after the line belongs to the caller.
        let (mut line, mut byte) = (Vec::new(), [0u8; 1]);
        loop {
            match stdout.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    line.clear();
                    let is_ready = text.ends_with(&ready);
                    let _ = seen.send(ShellOutput::Line(text));
                    if is_ready {
                        return stdout;
                    }
                }
                Ok(1) if line.len() < MAX_LINE_BYTES => line.push(byte[0]),
                Ok(1) => line = vec![byte[0]],
                _ => break,
            }
        }
        let _ = seen.send(ShellOutput::Words(String::from_utf8_lossy(&line).into_owned()));
        let _ = seen.send(ShellOutput::OutputEnded);
        stdout
    })
}

/// Looks for marks on standard error and sends each one's event, and passes the rest on through the returned reader.
pub fn watch_stderr(stderr: Box<dyn Read + Send>, marks: Marks, seen: Sender<ShellOutput>) -> Box<dyn Read + Send> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(MAX_BUFFERED_CHUNKS);
    thread::spawn(move || {
        let passed = |text: &str| text.is_empty() || sender.send(text.as_bytes().to_vec()).is_ok();
        watch_marks(stderr, &marks, &seen, passed);
        let _ = seen.send(ShellOutput::ErrorsEnded);
    });
    Box::new(ChannelReader {
        receiver,
        rest: Vec::new(),
    })
}

/// Looks for marks on a terminal and sends each one's event, and `ended` at the end. All is read, also what nobody waits for, as the far end would stop
/// otherwise. The terminal's input, when it is sent to the returned channel, is kept until the end.
pub fn watch_to_end(
    from: Box<dyn Read + Send>,
    marks: Marks,
    ended: ShellOutput,
    seen: Sender<ShellOutput>,
) -> Sender<Box<dyn Write + Send>> {
    let (input, kept) = channel();
    thread::spawn(move || {
        watch_marks(from, &marks, &seen, |_| true);
        let _ = seen.send(ended);
        drop(kept);
    });
    input
}

/// Sends the events of all marks, and the text between them, which is given to `pass` too, until the end or until `pass` says that nobody reads it.
fn watch_marks(
    mut from: Box<dyn Read + Send>,
    marks: &Marks,
    seen: &Sender<ShellOutput>,
    mut pass: impl FnMut(&str) -> bool,
) {
    let (mut held, mut buffer) = (String::new(), [0u8; 4096]);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        held.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let mut is_read = true;
        let mut send = |text: String| {
            let _ = seen.send(ShellOutput::Errors(text.clone()));
            is_read &= pass(&text);
        };
        while let Some((place, event)) = first_mark(&held, marks) {
            let rest = held.split_off(place.end);
            held.truncate(place.start);
            send(std::mem::replace(&mut held, rest));
            let _ = seen.send(event.clone());
        }
        // The tail may be the beginning of a mark.
        let tail = marks.iter().map(|(mark, _)| mark.beginning(&held)).max();
        let rest = held.split_off(held.len() - tail.unwrap_or(0));
        send(std::mem::replace(&mut held, rest));
        // The reader was dropped: the command sees a closed pipe.
        if !is_read {
            return;
        }
    }
}

/// Returns where the first mark stands, and its event.
fn first_mark<'a>(text: &str, marks: &'a Marks) -> Option<(Range<usize>, &'a ShellOutput)> {
    let found = marks.iter().filter_map(|(mark, event)| Some((mark.find(text)?, event)));
    found.min_by_key(|(place, _)| place.start)
}

struct ChannelReader {
    receiver: Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.recv() {
                Ok(bytes) => self.rest = bytes,
                Err(_) => return Ok(0),
            }
        }
        let take = buffer.len().min(self.rest.len());
        buffer[..take].copy_from_slice(&self.rest[..take]);
        self.rest.drain(..take);
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn words(words: &[(&str, ShellOutput)]) -> Marks {
        let mark = |(word, event): &(&str, ShellOutput)| (Mark::Word((*word).to_owned()), event.clone());
        words.iter().map(mark).collect()
    }

    fn texts(seen: &Receiver<ShellOutput>) -> Vec<String> {
        let texts = seen.iter().map(|event| format!("{event:?}"));
        texts.filter(|text| text != "Errors(\"\")").collect()
    }

    #[test]
    fn prompts_are_found_across_chunks_and_removed() {
        let (sender, seen) = channel();
        let mut rest = watch_stderr(
            Box::new(Pieces(vec![b"warn\nSHELLPRO", b"MPT:tail"])),
            words(&[("PROMPT:", ShellOutput::Prompt), ("SHELL", ShellOutput::ErrorsOfSudo)]),
            sender,
        );
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "warn\ntail");
        let expected = [
            "Errors(\"warn\\n\")",
            "ErrorsOfSudo",
            "Prompt",
            "Errors(\"tail\")",
            "ErrorsEnded",
        ];
        assert_eq!(texts(&seen), expected);
    }

    #[test]
    fn only_the_prompt_of_doas_is_its_prompt() {
        let watch = |pieces: &[&'static [u8]]| {
            let (sender, seen) = channel();
            let marks = vec![(Mark::DoasPrompt, ShellOutput::DoasPrompt)];
            watch_to_end(
                Box::new(Pieces(pieces.to_vec())),
                marks,
                ShellOutput::TerminalEnded,
                sender,
            );
            texts(&seen)
        };
        let prompt = ["Errors(\"\\r\")", "DoasPrompt", "TerminalEnded"];
        assert_eq!(watch(&[b"\rdoas (ann@cp-1) password: "]), prompt);
        assert_eq!(watch(&[b"\r", b"do", b"as (a", b"nn@cp-1) pass", b"word: "]), prompt);
        for other in [
            &b"Verification code: "[..],
            b"doas: Authentication failed\n",
            b"doas (\n) password: ",
            b"Current password: ",
        ] {
            assert!(!watch(&[other]).contains(&"DoasPrompt".to_owned()), "{other:?}");
        }
    }
}
