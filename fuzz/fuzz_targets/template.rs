//! Any text as a Go template, on values like those that `inspect` and lists give it: no panic.
#![no_main]

// The command has no library: these are its own files.
#[path = "../../cli/src/format.rs"]
#[expect(dead_code, reason = "templates need one of its functions")]
mod format;
#[path = "../../cli/src/template/mod.rs"]
mod template;

use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// Loops in loops take as long as they are told to, here as in Go: who writes them waits.
const LOOPS_MAX: usize = 3;

fuzz_target!(|text: &str| {
    if text.matches("range").count() > LOOPS_MAX {
        return;
    }
    let value = json!({
        "Name": "app", "Id": "0123456789abcdef", "Count": 3, "Running": true, "Empty": "", "Nil": null, "Part": 0.5,
        "State": { "Status": "running", "Pid": -7 },
        "Labels": { "a.b": "c", "ä": "\u{1b}" },
        "Args": ["-c", "true", "ä"],
        "Mounts": [{ "Source": "/a", "RW": true }, { "Source": "/b", "RW": false }],
    });
    drop(template::list(text, &json!({ "Name": "NAME" }), &[value]));
});
