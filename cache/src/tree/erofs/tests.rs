use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags, makedev, openat, readlinkat, statat};

use super::*;
use crate::layer::reader::Time;
use crate::root_dir::{RootDir, list, xattr};
use crate::snapshot::mount_image;
use crate::tree::{Content, Place};

/// What can be seen of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: FileType,
    attributes: Attributes,
    names: u32,
    /// Content, or the target of a link.
    bytes: Vec<u8>,
    device: u64,
    /// The first name of the file.
    first: PathBuf,
}

fn seen_in(root: BorrowedFd<'_>) -> BTreeMap<PathBuf, Seen> {
    let (mut seen, mut firsts) = (BTreeMap::new(), HashMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let root = RootDir::from_fd(root.try_clone_to_owned().unwrap());
        let dir = root.open_dir(&path).unwrap();
        let mut names: Vec<OsString> = list(dir.as_fd()).unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        if path.as_os_str().is_empty() {
            names.insert(0, ".".into());
        }
        for name in names {
            let at = if name == "." { PathBuf::new() } else { path.join(&name) };
            let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let kind = FileType::from_raw_mode(stat.st_mode);
            let first = firsts.entry(stat.st_ino).or_insert_with(|| at.clone()).clone();
            let bytes = match kind {
                FileType::RegularFile => fs::read(crate::root_dir::proc_path(&dir).join(&name)).unwrap(),
                FileType::Symlink => readlinkat(&dir, &name, Vec::new()).unwrap().into_bytes(),
                _ => Vec::new(),
            };
            if kind == FileType::RegularFile {
                assert_eq!(stat.st_size as usize, bytes.len());
            }
            let attributes = Attributes {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
                xattrs: xattr::read_all(dir.as_fd(), &name, |_| true).unwrap(),
            };
            let names = stat.st_nlink as u32;
            seen.insert(at.clone(), Seen { kind, attributes, names, bytes, device: stat.st_rdev, first });
            if kind == FileType::Directory && name != "." {
                todo.push(at);
            }
        }
    }
    seen
}

/// The same of a tree, whose contents are in `pack`.
fn expected_of(tree: &Tree, packs: &[Vec<u8>]) -> BTreeMap<PathBuf, Seen> {
    let (names, _) = tree.count_names();
    let (mut seen, mut firsts) = (BTreeMap::new(), HashMap::new());
    let mut todo = vec![(PathBuf::new(), InodeId::ROOT)];
    while let Some((path, id)) = todo.pop() {
        let inode = tree.inode(id);
        let bytes = match &inode.kind {
            Kind::File(Content { place: None, .. }) | Kind::Directory(_) | Kind::Special(..) => Vec::new(),
            Kind::File(Content { size_bytes, place: Some(place), .. }) => {
                let start = place.offset_bytes as usize;
                packs[usize::from(place.pack)][start..start + *size_bytes as usize].to_vec()
            }
            Kind::Symlink(target) => target.clone(),
        };
        let device = if let Kind::Special(_, device) = inode.kind { device } else { 0 };
        firsts
            .entry(id)
            .and_modify(|first: &mut PathBuf| *first = path.clone().min(first.clone()))
            .or_insert(path.clone());
        let attributes = inode.attributes.clone();
        let names = names[id.index()];
        seen.insert(
            path.clone(),
            (id, Seen { kind: inode.file_type(), attributes, names, bytes, device, first: PathBuf::new() }),
        );
        todo.extend(tree.entries(id).into_iter().flatten().map(|(name, child)| (path.join(name), *child)));
    }
    seen.into_iter().map(|(path, (id, seen))| (path, Seen { first: firsts[&id].clone(), ..seen })).collect()
}

/// Pads contents as a pack does.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(round_up(bytes.len().max(1), BLOCK_BYTES as usize), 0);
    bytes
}

fn blocks_of(packs: &[Vec<u8>]) -> Vec<u64> {
    packs.iter().map(|pack| pack.len() as u64 / BLOCK_BYTES).collect()
}

/// Writes the image and its packs to files below `directory`, which is not in memory: EROFS wants a file system with pages.
fn write_files(directory: &Path, tree: &Tree, packs: &[Vec<u8>]) -> (PathBuf, Vec<PathBuf>) {
    let path = directory.join("image");
    fs::write(&path, image(tree, &blocks_of(packs)).unwrap()).unwrap();
    let paths = packs.iter().enumerate().map(|(index, pack)| {
        let path = directory.join(format!("pack-{index}"));
        fs::write(&path, pack).unwrap();
        path
    });
    (path, paths.collect())
}

/// Mounts a tree and compares it with what is mounted.
fn check_mounted(tree: &Tree, packs: &[Vec<u8>]) {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let (image, packs_written) = write_files(directory.path(), tree, packs);
    let files: Vec<File> = packs_written.iter().map(|path| File::open(path).unwrap()).collect();
    let mounted = mount_image(&File::open(image).unwrap(), &files).unwrap();
    let root = openat(mounted.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    // What an inode is called first depends on the order of the walk; the tree says which names are one.
    let (mut seen, mut expected) = (seen_in(root.as_fd()), expected_of(tree, packs));
    for all in [&mut seen, &mut expected] {
        let mut least: HashMap<PathBuf, PathBuf> = HashMap::new();
        for (path, file) in all.iter() {
            let first = least.entry(file.first.clone()).or_insert_with(|| path.clone());
            *first = first.clone().min(path.clone());
        }
        all.values_mut().for_each(|file| file.first = least[&file.first].clone());
    }
    assert_eq!(seen, expected);
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

fn file(mode: u32, size_bytes: u64, place: Option<(u16, u64)>) -> Inode {
    let place = place.map(|(pack, offset_bytes)| Place { pack, offset_bytes });
    Inode { attributes: attributes(mode), kind: Kind::File(Content { size_bytes, digest: None, place }) }
}

/// One of everything.
fn sample() -> (Tree, Vec<Vec<u8>>) {
    let mut tree = Tree::new(attributes(0o755));
    let mut with_xattrs = file(0o4755, 5, Some((0, 0)));
    with_xattrs.attributes = Attributes {
        mode: 0o4755,
        uid: 70_000,
        gid: 1_000_000,
        mtime: Time { seconds: -5, nanoseconds: 123_456_789 },
        xattrs: [
            (c"security.capability".to_owned(), b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            (c"trusted.overlay.opaque".to_owned(), b"y".to_vec()),
            (c"user.empty".to_owned(), Vec::new()),
        ]
        .into(),
    };
    let linked = tree.add(with_xattrs);
    tree.name(InodeId::ROOT, "linked".into(), linked);
    let empty = tree.add(file(0o600, 0, None));
    tree.name(InodeId::ROOT, "empty".into(), empty);
    let second = tree.add(file(0o644, 700, Some((1, 512))));
    tree.name(InodeId::ROOT, "second".into(), second);
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("gone", FileType::CharacterDevice, 0),
        ("disk", FileType::BlockDevice, makedev(259, 70_000)),
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
    ] {
        let id = tree.add(Inode { attributes: attributes(0o620), kind: Kind::Special(kind, device) });
        tree.name(InodeId::ROOT, name.into(), id);
    }
    let link = tree.add(Inode { attributes: attributes(0o777), kind: Kind::Symlink(vec![b'a'; 600]) });
    tree.name(InodeId::ROOT, "link".into(), link);
    let dir = tree.add(Inode { attributes: attributes(0o1777), kind: Kind::Directory(Entries::new()) });
    tree.name(InodeId::ROOT, "dir".into(), dir);
    tree.name(dir, OsString::from_vec(vec![0xff; 255]), linked);
    // More than a block of entries, and names before and behind `.`.
    for index in 0..100 {
        let id = tree.add(file(0o644, 3, Some((0, 512))));
        tree.name(dir, format!("!{index}").into(), id);
        tree.name(dir, format!("x{index}").into(), id);
    }
    let packs = vec![[padded(b"hello".to_vec()), padded(b"abc".to_vec())].concat(), padded(vec![7; 1300])];
    (tree, packs)
}

#[test]
fn kernel_an_image_shows_the_tree() {
    crate::testing::require_overlay!();
    let (tree, packs) = sample();
    check_mounted(&tree, &packs);
}

#[test]
fn kernel_an_image_without_packs_shows_the_tree() {
    crate::testing::require_overlay!();
    check_mounted(&Tree::new(attributes(0o700)), &[]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a program to compare with")]
fn the_checker_of_the_format_finds_nothing_wrong() {
    // The one that Debian has knows blocks of a page only.
    const PAGE_BITS: u8 = 12;
    let directory = tempfile::tempdir().unwrap();
    let (mut tree, _) = sample();
    for inode in &mut tree.inodes {
        if let Kind::File(Content { size_bytes, place: Some(place), .. }) = &mut inode.kind {
            (*size_bytes, place.offset_bytes) = (4000, u64::from(place.pack) * 4096);
        }
    }
    let (path, pack) = (directory.path().join("image"), directory.path().join("pack"));
    fs::write(&path, Writer::new(&tree, &[2, 2], PAGE_BITS).unwrap().write().unwrap()).unwrap();
    fs::write(&pack, [7; 8192]).unwrap();
    let device = format!("--device={}", pack.display());
    let checked = Command::new("fsck.erofs").args([&device, &device]).arg(&path).output();
    let Ok(checked) = checked else {
        eprintln!("SKIPPED: fsck.erofs is not installed");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn an_image_is_read_as_the_tree_that_it_was_made_of() {
    let (tree, packs) = sample();
    let bytes = image(&tree, &blocks_of(&packs)).unwrap();
    assert_eq!(read(&bytes), Some(tree));
    let bare = Tree::new(attributes(0o700));
    assert_eq!(read(&image(&bare, &[]).unwrap()), Some(bare));
}

#[test]
fn what_is_damaged_is_read_without_harm() {
    let (tree, packs) = sample();
    let bytes = image(&tree, &blocks_of(&packs)).unwrap();
    for at in (SUPERBLOCK_OFFSET..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        drop(read(&damaged).map(|tree| tree.count_names()));
        drop(read(&bytes[..at]).map(|tree| tree.count_names()));
    }
    assert_eq!(read(b""), None);
    let mut empty = bytes;
    empty[SUPERBLOCK_OFFSET + 16..][..8].fill(0);
    assert_eq!(read(&empty), None);
}

#[test]
fn a_directory_in_itself_is_no_tree() {
    let mut tree = Tree::new(attributes(0o700));
    let dir = tree.add(Inode { attributes: attributes(0o700), kind: Kind::Directory(Entries::new()) });
    tree.name(InodeId::ROOT, "dir".into(), dir);
    tree.name(dir, "again".into(), dir);
    assert_eq!(read(&image(&tree, &[]).unwrap()), None);
}

#[test]
fn images_stay_what_they_are() {
    let (tree, packs) = sample();
    let blocks = blocks_of(&packs);
    let bytes = image(&tree, &blocks).unwrap();
    assert_eq!(bytes, image(&tree, &blocks).unwrap());
    insta::assert_snapshot!(blake3::hash(&bytes).to_hex().as_str());
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let tree = Tree::new(attributes(0o755));
    assert_eq!(image(&tree, &[1 << 32]), Err(ImageError::TooManyBlocks));
    assert_eq!(image(&tree, &[u64::from(u32::MAX)]), Err(ImageError::TooManyBlocks));
    assert_eq!(image(&tree, &vec![0; 65_536]), Err(ImageError::TooManyPacks));
    let with = |name: &str, bytes: usize| {
        let xattrs = [(CString::new(name).unwrap(), vec![0; bytes])].into();
        image(&Tree::new(Attributes { xattrs, ..Attributes::default() }), &[])
    };
    assert_eq!(with("system.other", 1), Err(ImageError::UnknownAttribute));
    assert_eq!(with("user.large", 65_536), Err(ImageError::AttributesTooLarge));
}

#[derive(Debug, Clone)]
enum Part {
    File(Vec<u8>),
    Link(Vec<u8>),
    Special(u8, u64),
    Directory(BTreeMap<Vec<u8>, (Self, u32, i64)>),
}

fn part() -> impl Strategy<Value = Part> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1500).prop_map(Part::File),
        prop::collection::vec(1..=255_u8, 1..900).prop_map(Part::Link),
        (0..4_u8, 0..4096_u32, 0..1_u32 << 20)
            .prop_map(|(kind, major, minor)| Part::Special(kind, makedev(major, minor))),
    ];
    leaf.prop_recursive(4, 60, 12, |inner| {
        let name = prop::collection::vec(prop_oneof![1..b'/', (b'/' + 1)..=255_u8], 1..=255);
        prop::collection::btree_map(name, (inner, 0..0o10000_u32, any::<i32>().prop_map(i64::from)), 0..12)
            .prop_map(Part::Directory)
    })
}

fn plant(tree: &mut Tree, pack: &mut Vec<u8>, at: InodeId, entries: &BTreeMap<Vec<u8>, (Part, u32, i64)>) {
    for (name, (part, mode, seconds)) in entries.iter().filter(|(name, _)| *name != b"." && *name != b"..") {
        let kind = match part {
            Part::File(bytes) if bytes.is_empty() => {
                Kind::File(Content { size_bytes: 0, digest: None, place: None })
            }
            Part::File(bytes) => {
                let place = Some(Place { pack: 0, offset_bytes: pack.len() as u64 });
                pack.extend(padded(bytes.clone()));
                Kind::File(Content { size_bytes: bytes.len() as u64, digest: None, place })
            }
            Part::Link(target) => Kind::Symlink(target.clone()),
            Part::Special(0, device) => Kind::Special(FileType::CharacterDevice, *device),
            Part::Special(1, device) => Kind::Special(FileType::BlockDevice, *device),
            Part::Special(2, _) => Kind::Special(FileType::Fifo, 0),
            Part::Special(_, _) => Kind::Special(FileType::Socket, 0),
            Part::Directory(_) => Kind::Directory(Entries::new()),
        };
        let mtime = Time { seconds: *seconds, nanoseconds: mode * 1000 };
        let id =
            tree.add(Inode { attributes: Attributes { mode: *mode, mtime, ..Attributes::default() }, kind });
        tree.name(at, OsString::from_vec(name.clone()), id);
        if let Part::Directory(entries) = part {
            plant(tree, pack, id, entries);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_any_tree_is_shown(entries in prop::collection::btree_map(
        prop::collection::vec(prop_oneof![1..b'/', (b'/' + 1)..=255_u8], 1..=255),
        (part(), 0..0o10000_u32, any::<i32>().prop_map(i64::from)),
        0..30,
    )) {
        let (mut tree, mut pack) = (Tree::new(attributes(0o755)), Vec::new());
        plant(&mut tree, &mut pack, InodeId::ROOT, &entries);
        let packs = [padded(pack)];
        let bytes = image(&tree, &blocks_of(&packs)).unwrap();
        prop_assert_eq!(read(&bytes), Some(tree.clone()));
        if crate::testing::overlay_works() {
            check_mounted(&tree, &packs);
        }
    }
}
