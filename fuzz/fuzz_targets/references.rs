//! Any text as an image reference: no panic, and every way to write what was read means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_image::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    for written in [reference.to_string(), reference.familiar()] {
        assert_eq!(written.parse().as_ref(), Ok(&reference), "{written}");
    }
    let name: Reference = reference.familiar_name().parse().expect("a name without tag is a reference");
    assert_eq!((name.registry(), name.repository()), (reference.registry(), reference.repository()));
});
