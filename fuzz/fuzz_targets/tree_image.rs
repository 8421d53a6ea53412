//! Any bytes as the image of a tree: no panic, and what is a tree is one again when an image is made of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_cache::tree::Kind;
use rbuild_cache::tree::erofs::{image, read};

/// How many blocks packs have here.
const PACK_BLOCKS: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Some(tree) = read(bytes) else { return };
    let places = || {
        tree.inodes().filter_map(|(_, inode)| match &inode.kind {
            Kind::File(content) => Some((content.place?, content.size_bytes)),
            _ => None,
        })
    };
    // The writer is given places that are in packs.
    let pack_bytes = PACK_BLOCKS * 512;
    let is_inside = places().all(|(place, size)| place.offset_bytes.saturating_add(size) <= pack_bytes);
    let packs = places().map(|(place, _)| usize::from(place.pack) + 1).max().unwrap_or(0);
    if !is_inside || packs > 30 {
        return;
    }
    if let Ok(again) = image(&tree, &vec![PACK_BLOCKS; packs]) {
        assert!(read(&again) == Some(tree), "an image of it is read as the same tree");
    }
});
