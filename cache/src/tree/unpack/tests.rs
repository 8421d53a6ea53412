use std::collections::BTreeMap;
use std::fs::File;

use super::*;
use crate::content_digest::content_digest;
use crate::layer::tar::{Attribute, TarEntry, TarKind, TarWriter};
use crate::layer::tests::corpus;
use crate::layer::{Applied, OverlayXattrs, apply, apply_to};
use crate::root_dir::RootDir;
use crate::testing::{TestStore, require_overlay};
use crate::tree::Content;
use crate::tree::absorb::absorb;
use crate::tree::tests::in_user_namespace;

/// A time that nothing has of its own.
const NOW: Time = Time { seconds: 77, nanoseconds: 0 };

/// Every path with what is there, the first path of the same file, and what is said of it; times of directories that no entry describes aside.
fn shown(tree: &Tree, implied: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let (mut shown, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    let mut todo = vec![(PathBuf::new(), InodeId::ROOT)];
    while let Some((path, id)) = todo.pop() {
        let Inode { attributes, kind } = tree.inode(id);
        let what = match kind {
            Kind::Directory(entries) => {
                let below = entries.iter().rev().map(|(name, child)| (path.join(name), *child));
                todo.extend(below);
                "directory".to_owned()
            }
            Kind::File(content) => format!("{} {:?}", content.size_bytes, content.digest),
            other => format!("{other:?}"),
        };
        let first = firsts.entry(id).or_insert_with(|| path.clone()).clone();
        let is_timed =
            !path.as_os_str().is_empty() && !implied.contains(&path) && !tree.inode(id).is_whiteout();
        let time = is_timed.then_some(attributes.mtime);
        let Attributes { mode, uid, gid, xattrs, .. } = attributes;
        shown.insert(path, format!("{what} {first:?} {mode:o} {uid}:{gid} {time:?} {xattrs:?}"));
    }
    shown
}

type Outcome = Result<(BTreeMap<PathBuf, String>, Vec<PathBuf>, u64), String>;

fn said(error: &Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// Unpacks an archive into a directory, and reads that.
fn as_directory(archive: &[u8]) -> Outcome {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = RootDir::open(directory.path()).unwrap();
    let options = ApplyOptions::layer(OverlayXattrs::Trusted);
    let Applied { implied, entries, .. } =
        apply(&mut &*archive, &root, &options).map_err(|error| said(&error))?;
    let mut take = |file: &File| {
        let (digest, size_bytes) = content_digest(file).unwrap();
        Ok(Content { size_bytes, digest: Some(digest), place: None })
    };
    let mut tree = absorb(&root, &mut take).unwrap();
    tree.inode_mut(InodeId::ROOT).attributes.mode = IMPLIED_MODE;
    Ok((shown(&tree, &implied), implied, entries))
}

/// Unpacks it into a tree.
fn as_tree(packs: &Packs, archive: &[u8]) -> Outcome {
    let options = ApplyOptions::layer(OverlayXattrs::Trusted);
    let planter = Planter::new(&options, packs, NOW);
    let (planter, applied) = apply_to(&mut &*archive, planter, &options).map_err(|error| said(&error))?;
    let (tree, implied) = planter.finish();
    Ok((shown(&tree, &implied), implied, applied.entries))
}

/// Entries in the order in which they meet each other.
fn meetings() -> Vec<Vec<u8>> {
    let (file, directory) = (TarKind::File { size_bytes: 0 }, TarKind::Directory);
    let (symlink, hard) = (TarKind::Symlink { target: b"d" }, TarKind::HardLink { target: b"f" });
    let (null, fifo) = (TarKind::CharDevice { major: 1, minor: 3 }, TarKind::Fifo);
    let plain =
        [("d", directory), ("d/f", file), ("f", file), ("d/s/g", file), (".wh.d", file), (".wh.f", file)];
    let special = [
        ("d/.wh..wh..opq", file),
        ("f", symlink),
        ("h", hard),
        ("d", null),
        ("f", fifo),
        ("f/x", file),
        (".wh..wh..opq", file),
    ];
    let all: Vec<(&str, TarKind<'_>)> = plain.into_iter().chain(special).collect();
    let count = all.len();
    let three = (0..count * count * count).map(|n| [n / count / count, n / count % count, n % count]);
    let archive = |places: [usize; 3]| {
        let mut tar = TarWriter::new(Vec::new());
        for (at, place) in places.into_iter().enumerate() {
            let (path, kind) = all[place];
            let numbers = (at as u32 + 1) * 7;
            let xattrs: [Attribute; 1] = [(format!("user.{at}").into_bytes(), vec![1])];
            tar.entry(&TarEntry {
                path: path.as_bytes(),
                kind,
                mode: 0o600 + numbers,
                uid: numbers,
                gid: 0,
                mtime: i64::from(numbers),
                xattrs: &xattrs,
            })
            .unwrap();
        }
        tar.finish().unwrap()
    };
    three.map(archive).collect()
}

#[test]
fn kernel_a_tree_is_what_the_directory_would_have_been() {
    require_overlay!();
    if !rustix::process::geteuid().is_root() || in_user_namespace() {
        return;
    }
    let (store, directory) = (TestStore::new(), tempfile::tempdir_in("/var/tmp").unwrap());
    let packs = Packs::newest(&store, directory.path(), store.inventory().unwrap()).unwrap();
    let hostile = corpus::archives(Path::new("/nowhere"));
    let met = meetings().into_iter().enumerate().map(|(at, archive)| (format!("meeting {at}"), archive));
    // Times that are later than file systems' last ones.
    let all = hostile.into_iter().chain(met).filter(|(name, _)| !name.contains("far away"));
    let differ = all.filter_map(|(name, archive)| {
        let (tree, directory) = (as_tree(&packs, &archive), as_directory(&archive));
        (tree != directory).then(|| format!("{name}\n{tree:?}\n{directory:?}"))
    });
    let differ: Vec<String> = differ.collect();
    assert!(differ.is_empty(), "{}: {}", differ.len(), differ.join("\n"));
}

#[test]
fn kernel_capabilities_are_kept_as_the_kernel_keeps_them() {
    require_overlay!();
    if !rustix::process::geteuid().is_root() || in_user_namespace() {
        return;
    }
    let (store, directory) = (TestStore::new(), tempfile::tempdir_in("/var/tmp").unwrap());
    let packs = Packs::newest(&store, directory.path(), store.inventory().unwrap()).unwrap();
    let second = [&[1, 0, 0, 2][..], &[9; 16]].concat();
    let third = |root: u8| [&[1, 0, 0, 3][..], &[9; 16], &[root, 0, 0, 0]].concat();
    for value in [second.clone(), third(0), third(5), second[..8].to_vec(), vec![7; 24]] {
        let xattrs: [Attribute; 1] = [(b"security.capability".to_vec(), value)];
        let mut tar = TarWriter::new(Vec::new());
        let kind = TarKind::File { size_bytes: 0 };
        tar.entry(&TarEntry { path: b"ping", kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: &xattrs })
            .unwrap();
        let archive = tar.finish().unwrap();
        assert_eq!(as_tree(&packs, &archive), as_directory(&archive), "{xattrs:?}");
    }
}

#[test]
fn links_lead_no_deeper_than_a_path_may() {
    let below = vec!["a"; 400].join("/");
    let link = TarKind::Symlink { target: below.as_bytes() };
    let mut tar = TarWriter::new(Vec::new());
    for (path, kind) in [("one", link), ("one/two", link), ("one/two/x", TarKind::File { size_bytes: 0 })] {
        let path = path.as_bytes();
        tar.entry(&TarEntry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: &[] }).unwrap();
    }
    let archive = tar.finish().unwrap();
    let (store, directory) = (TestStore::new(), tempfile::tempdir_in("/var/tmp").unwrap());
    let packs = Packs::newest(&store, directory.path(), store.inventory().unwrap()).unwrap();
    let error = as_tree(&packs, &archive).unwrap_err();
    assert_eq!(error, "failed to enter `one/two`: File name too long (os error 36)");
}
