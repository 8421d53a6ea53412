//! Files of the store that somebody or something has changed: found, named, and healed by building and fetching again.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Scene;

/// Damages a store, and says what a check has to say of it.
type Damage = fn(&Path) -> String;

const CASES: [(&str, Damage); 7] = [
    ("a flipped byte in a blob", |store| {
        let path = find(&store.join("content"), |path| fs::metadata(path).unwrap().len() > 1000).unwrap();
        flip(&path, 500);
        format!("blob `sha256:{}` has the content of", path.file_name().unwrap().to_str().unwrap())
    }),
    ("a flipped byte in a layer that was built", |store| change_layer(store, "count", b"")),
    ("a flipped byte in a file that was copied", |store| change_layer(store, "a", b"")),
    ("a flipped byte in a directory that was copied", |store| change_layer(store, "same", b"same")),
    ("a flipped byte in a layer that was fetched", |store| change_layer(store, "passwd", b"root:x:0:0:")),
    ("a missing layer", |store| {
        let layer = layer_of(store, &find(&store.join("layers"), |path| path.ends_with("count")).unwrap());
        let moved = store.with_extension("elsewhere");
        drop(fs::remove_dir_all(&moved));
        fs::rename(&layer, moved).unwrap();
        format!("layer {} is missing", layer.file_name().unwrap().to_str().unwrap())
    }),
    ("a flipped byte in the metadata", |store| {
        flip(&store.join("metadata.db"), 4096);
        "the metadata is damaged".to_owned()
    }),
];

#[test]
fn damage_is_found_named_and_healed() {
    let Some(mut scene) = Scene::new() else { return };
    for (what, damage) in CASES {
        scene.renew();
        // Sound, and checked: so nothing of the metadata is in the log only.
        scene.assert_builds();
        let text = damage(scene.test.store());
        let found = scene.test.rbuild(&["system", "check"]).outcome().exits(3);
        let said = format!("{}{}", found.stdout, found.stderr);
        assert!(said.contains(&text), "{what}: no {text:?} in\n{said}");
        found.says(&["system check --repair"]);
        scene.test.rbuild(&["system", "check", "--repair"]).outcome().succeeds();
        scene.assert_recovers();
    }
}

#[test]
fn a_log_that_lost_its_end_loses_no_more_than_that() {
    let Some(mut scene) = Scene::new() else { return };
    let mut left_after = |commands: usize| {
        scene.renew();
        scene.commands().take(commands).for_each(|command| drop(command.outcome().succeeds()));
        let log = scene.test.store().join("metadata.db-wal");
        let size_bytes = fs::metadata(&log).unwrap().len();
        (size_bytes > 0).then_some((log, size_bytes))
    };
    // A log that has grown is folded into the database when a command ends; the first does not write so much.
    let (log, size_bytes) = left_after(usize::MAX).or_else(|| left_after(1)).expect("a log is left");
    flip(&log, size_bytes / 2);
    scene.assert_recovers();
}

/// Changes a file of a layer, or what it begins with in a pack if the layer is a tree.
fn change_layer(store: &Path, name: &str, content: &[u8]) -> String {
    if let Some(path) = find(&store.join("layers"), |path| path.ends_with(name)) {
        flip(&path, 0);
        return format!(
            "layer {} has been changed",
            layer_of(store, &path).file_name().unwrap().to_str().unwrap()
        );
    }
    let place = |path: &Path| {
        let pack = fs::read(path).unwrap();
        pack.windows(content.len()).position(|bytes| bytes == content)
    };
    let pack = find(&store.join("packs"), |path| place(path).is_some()).unwrap();
    flip(&pack, place(&pack).unwrap() as u64);
    " has been changed".to_owned()
}

/// Changes one bit, leaving the times as they are.
fn flip(path: &Path, at: u64) {
    let metadata = fs::metadata(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode())).unwrap();
    fs::File::open(path).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
}

/// A file below a directory.
fn find(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    fn search(directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
        let mut entries: Vec<_> = fs::read_dir(directory).ok()?.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.into_iter().find_map(|path| match fs::symlink_metadata(&path).unwrap().file_type() {
            kind if kind.is_dir() => search(&path, wanted),
            kind => (kind.is_file() && wanted(&path)).then_some(path),
        })
    }
    search(directory, &wanted)
}

/// The directory of the layer that a file is in.
fn layer_of(store: &Path, file: &Path) -> PathBuf {
    let layers = store.join("layers");
    layers.join(file.strip_prefix(&layers).unwrap().components().next().unwrap())
}
