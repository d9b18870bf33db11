//! The last lines of an agent's standard error, which errors about it show.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Longest line in bytes; a longer one is kept as several.
const MAX_LINE_BYTES: u64 = 4 * 1024;
/// How many lines are kept.
const MAX_LINES: usize = 20;

#[derive(Debug, Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// Reads standard error on a thread of its own until its end.
    pub fn of(stderr: Box<dyn Read + Send>) -> Self {
        let lines = Self::default();
        let kept = lines.clone();
        thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            loop {
                let mut line = Vec::new();
                match stderr.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                    Ok(read) if read > 0 => kept.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
                    _ => return,
                }
            }
        });
        lines
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns what has been read so far.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}
