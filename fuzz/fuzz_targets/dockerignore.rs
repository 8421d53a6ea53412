//! Any bytes as a `.dockerignore`: no panic, and rules that are one line each and say something.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::dockerignore::parse;

fuzz_target!(|text: &[u8]| {
    for rule in parse(text).unwrap_or_default() {
        assert!(!rule.is_empty() && rule != "!" && !rule.contains('\n'), "{rule:?}");
    }
});
