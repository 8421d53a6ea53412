//! Any text as a Go template, on values like those that `inspect` and lists give it: no panic, and no text without end.
#![no_main]

// The command has no library: these are its own files.
#[path = "../../cli/src/format.rs"]
#[expect(dead_code, reason = "templates need one of its functions")]
mod format;
#[path = "../../cli/src/template/mod.rs"]
mod template;

use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// No template that a person writes makes that much of so little.
const TEXT_BYTES_MAX: usize = 16 << 20;

fuzz_target!(|text: &str| {
    let value = json!({
        "Name": "app", "Id": "0123456789abcdef", "Count": 3, "Running": true, "Empty": "", "Nil": null, "Part": 0.5,
        "State": { "Status": "running", "Pid": -7 },
        "Labels": { "a.b": "c", "ä": "\u{1b}" },
        "Args": ["-c", "true", "ä"],
        "Mounts": [{ "Source": "/a", "RW": true }, { "Source": "/b", "RW": false }],
    });
    if let Ok(rendered) = template::list(text, &json!({ "Name": "NAME" }), &[value]) {
        assert!(rendered.len() < TEXT_BYTES_MAX, "{} bytes of {text:?}", rendered.len());
    }
});
