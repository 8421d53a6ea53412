//! Any bytes as the archive of a layer, or as one for `ADD`: no panic, and nothing outside of the target changes.
#![no_main]

#[path = "../yard.rs"]
mod yard;

use libfuzzer_sys::fuzz_target;
use rbuild_cache::layer::compression::Decoder;
use std::io::Read as _;
use yard::{Yard, options};

/// The most that a compressed archive may expand to here.
const SIZE_BYTES_MAX: u64 = 4 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((flags, bytes)) = input.split_first() else { return };
    let yard = Yard::new();
    let mut archive = Vec::new();
    match Decoder::new(bytes, SIZE_BYTES_MAX) {
        Ok(decoder) if flags & 4 != 0 => drop(decoder.take(SIZE_BYTES_MAX).read_to_end(&mut archive)),
        _ => archive.extend(bytes),
    }
    yard.apply(&archive, &options(*flags));
});
