//! Well-formed archives of any entries, with names that meet each other: no panic, and nothing outside of the target changes.
#![no_main]

#[path = "../yard.rs"]
mod yard;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rbuild_cache::layer::tar::{TarEntry, TarKind, TarWriter};
use yard::{Yard, options};

/// What names are made of: few, so that entries replace, hide and lead to each other.
const PARTS: [&str; 12] =
    ["a", "b", "..", ".", "", "outside", "secret", "neighbour", ".wh.a", ".wh..wh..opq", ".wh.b", "l"];

#[derive(Debug, Arbitrary)]
struct Entry {
    path: Vec<u8>,
    target: Vec<u8>,
    absolute: bool,
    kind: u8,
    mode: u16,
    owner: u32,
    xattr: Option<u8>,
    content: u8,
}

fuzz_target!(|input: (u8, Vec<Entry>)| {
    let (flags, entries) = input;
    let mut tar = TarWriter::new(Vec::new());
    for entry in entries.iter().take(40) {
        write(&mut tar, entry);
    }
    let Ok(archive) = tar.finish() else { return };
    Yard::new().apply(&archive, &options(flags));
});

fn write(tar: &mut TarWriter<Vec<u8>>, entry: &Entry) {
    let (path, target) = (path_of(&entry.path, entry.absolute), path_of(&entry.target, entry.absolute));
    let content = vec![entry.content; usize::from(entry.content % 8)];
    let kind = match entry.kind % 6 {
        0 => TarKind::File { size_bytes: content.len() as u64 },
        1 => TarKind::Directory,
        2 => TarKind::Symlink { target: target.as_bytes() },
        3 => TarKind::HardLink { target: target.as_bytes() },
        4 => TarKind::CharDevice { major: u32::from(entry.content % 3), minor: u32::from(entry.content) },
        _ => TarKind::Fifo,
    };
    let names = ["user.overlay.redirect", "trusted.overlay.opaque", "user.x", "security.capability"];
    let xattrs: Vec<_> = entry
        .xattr
        .map(|which| {
            (names[usize::from(which) % names.len()].as_bytes().to_vec(), target.clone().into_bytes())
        })
        .into_iter()
        .collect();
    let header = TarEntry {
        path: path.as_bytes(),
        kind,
        mode: u32::from(entry.mode) & 0o7777,
        uid: entry.owner,
        gid: entry.owner,
        mtime: i64::from(entry.owner),
        xattrs: &xattrs,
    };
    let content = if matches!(kind, TarKind::File { .. }) { &content[..] } else { &[] };
    // What cannot be written is no archive.
    drop(tar.entry_with(&header, content));
}

fn path_of(parts: &[u8], absolute: bool) -> String {
    let names: Vec<&str> = parts.iter().take(6).map(|part| PARTS[usize::from(*part) % PARTS.len()]).collect();
    format!("{}{}", if absolute { "/" } else { "" }, names.join("/"))
}
