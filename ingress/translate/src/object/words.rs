//! Text that many objects have in common (namespaces, classes, names of ports and annotations), kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Texts before the first look for those that nobody has any more.
const FEW: usize = 256;

/// Every text that was asked for.
#[derive(Debug)]
pub struct Words {
    known: HashSet<Arc<str>>,
    /// Texts at which those that nobody has any more are dropped.
    full: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            full: FEW,
        }
    }
}

impl Words {
    /// The one copy of this text.
    pub fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.known.get(text) {
            return Arc::clone(word);
        }
        if self.known.len() >= self.full {
            self.known.retain(|word| Arc::strong_count(word) > 1);
            self.full = FEW.max(self.known.len() * 2);
        }
        let word: Arc<str> = text.into();
        self.known.insert(Arc::clone(&word));
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_only_as_long_as_somebody_has_it() {
        let mut words = Words::default();
        let (one, two) = (words.word("kept"), words.word("kept"));
        assert!(Arc::ptr_eq(&one, &two));
        for i in 0..10 * FEW {
            words.word(&i.to_string());
        }
        assert!(words.known.len() <= FEW, "{}", words.known.len());
        assert!(Arc::ptr_eq(&one, &words.word("kept")));
    }
}
