//! Any text as a word: no panic, and no result without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::expand::{EXPANDED_SIZE_BYTES_MAX, Expander, Quotes, Variables};

/// Names that begin with a vowel are set.
struct Vowels;

impl Variables for Vowels {
    fn get(&self, name: &str) -> Option<&str> {
        name.starts_with(['a', 'e', 'i', 'o', 'u']).then_some("value of a*b?c\nd")
    }
}

fuzz_target!(|word: &str| {
    for escape in ['\\', '`'] {
        for quotes in [Quotes::Remove, Quotes::Keep, Quotes::Ignore] {
            let expander =
                Expander { escape, quotes, keep_escapes: false, keep_unset: quotes == Quotes::Keep };
            if let Ok(expanded) = expander.expand(word, &Vowels) {
                assert!(expanded.text.len() <= EXPANDED_SIZE_BYTES_MAX);
            }
        }
    }
});
