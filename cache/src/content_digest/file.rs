//! The second pass: what the files are and hold.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use rayon::prelude::*;
use rbuild_image::KeyHasher;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::{Errno, read};

use super::fold::{Facts, whiteout_digest};
use super::stat_cache::{DirectoryId, Fingerprint, Names, Remembered, Row, Substance, Times, encode};
use super::tree::substance_of;
use super::walk::{Dir, KeptRow, Top, Walk};
use super::{Blake3, Error, Selected, TreeOwner, digest_of_link};
use crate::layer::whiteout::{is_overlay_attribute, is_whiteout};
use crate::root_dir::At;
use crate::root_dir::xattr::{self, Xattrs};
use crate::snapshot::{KnownDirectory, KnownLayers};

/// How many files of a directory make a unit of work, and how many of these a thread takes at most, so that none has much left when the
/// others are done.
const GROUP_FILES: usize = 256;
const GROUPS_AT_ONCE: usize = 4;

/// The buffer through which contents are read; each thread of the pool has one.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Fewer files are read in less time than their layers' trees.
const LAYERS_FILES_MIN: usize = 64;

/// The domain of attribute digests.
const XATTRS_DOMAIN: &str = "rbuild.xattrs.v1";

/// Attributes of a namespace that otherwise belongs to the machine, and yet are a file's own.
const OWN_ATTRIBUTES: [&[u8]; 3] =
    [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
/// Attributes whose namespace belongs to the machine.
const FOREIGN_NAMESPACES: [&[u8]; 2] = [b"security.", b"system."];

/// A file that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) substance: Substance,
    /// The digest of that and its attributes.
    pub(super) digest: Blake3,
    /// How many bytes were read to know.
    pub(super) read_bytes: u64,
    pub(super) stat: Stat,
    /// What there is to be remembered.
    news: News,
}

impl Looked {
    /// Whether it held what its attributes say, as far as these say anything.
    pub(super) fn is_steady(&self) -> bool {
        self.news != News::Unfit
    }
}

/// Whether a file's attributes and substance, or the names in a directory, are to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// They are the remembered ones.
    None,
    /// They are worth it.
    Some,
    /// They are not: nothing was read, the file changed meanwhile, or a change would not show.
    Unfit,
}

impl News {
    /// Whether what has this time is to be in a row.
    fn is_worth_it(self, stat: &Stat, is_local: bool, now_ns: i64) -> bool {
        match self {
            Self::None => true,
            Self::Some => Times::of(stat).is_settled(now_ns, is_local),
            Self::Unfit => false,
        }
    }
}

/// What was learnt by reading.
struct Learnt {
    stat: Stat,
    substance: Substance,
    read_bytes: u64,
    news: News,
}

/// What is known of the files of a directory.
#[derive(Default)]
struct Known<'a> {
    remembered: Option<&'a Row>,
    /// Whether they are of a file system that is known.
    is_local: bool,
    /// Where in it the next name is, most likely: both are sorted.
    next: Cell<usize>,
    in_layers: Option<KnownDirectory<'a>>,
}

impl Known<'_> {
    /// What a file with these attributes is known to be, and its digest if that is known.
    fn file(&self, name: &OsStr, stat: &Stat) -> Option<(Substance, Option<Blake3>)> {
        let remembered = self.remembered.and_then(|row| row.file_from(name, &self.next));
        let remembered = remembered.filter(|file| {
            file.fingerprint == Fingerprint::of(stat) && file.fingerprint.times.is_believed(self.is_local)
        });
        let in_layers = || Some((substance_of(self.in_layers.as_ref()?.file(name)?, stat)?, None));
        remembered.map(|file| (file.substance, Some(file.digest))).or_else(in_layers)
    }
}

/// All files that count, in the order of the walk.
pub(super) struct AllLooked {
    /// By directory, in the order of [`Dir::listing`]'s files.
    pub(super) in_dirs: Vec<Vec<Looked>>,
    /// By selected path, for those that are no directories.
    pub(super) tops: Vec<Option<Looked>>,
}

/// Looks at all files that a walk found, and has what is new of them remembered.
pub(super) fn look(walk: &Walk<'_>, tops: &[Top], selected: &[Selected<'_>]) -> Result<AllLooked, Error> {
    debug_assert_eq!(tops.len(), selected.len(), "a top for each selected path");
    let groups: Vec<(usize, &[OsString])> = walk
        .dirs
        .iter()
        .enumerate()
        .flat_map(|(index, dir)| dir.listing.files.chunks(GROUP_FILES).map(move |files| (index, files)))
        .collect();
    let count: usize = groups.iter().map(|(_, files)| files.len()).sum();
    let layers = walk.options.layers.filter(|_| count >= LAYERS_FILES_MIN);
    let looked: Vec<Vec<Looked>> = groups
        .par_iter()
        .with_max_len(GROUPS_AT_ONCE)
        .map(|(index, files)| look_at_group(walk, &walk.dirs[*index], files, layers))
        .collect::<Result<_, _>>()?;
    let mut in_dirs: Vec<Vec<Looked>> = walk.dirs.iter().map(|_| Vec::new()).collect();
    for ((index, _), group) in groups.iter().zip(looked) {
        let dir = &mut in_dirs[*index];
        // Most directories are one group.
        if dir.is_empty() { *dir = group } else { dir.extend(group) }
    }
    let (tops, mut new) = look_at_tops(walk, tops)?;
    if let Some(memory) = walk.options.memory {
        new.extend(rows(walk, &in_dirs, memory.now_ns));
        memory.cache.put(new);
    }
    Ok(AllLooked { in_dirs, tops })
}

fn look_at_group(
    walk: &Walk<'_>,
    dir: &Dir,
    files: &[OsString],
    layers: Option<&KnownLayers>,
) -> Result<Vec<Looked>, Error> {
    if walk.options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
        return Err(Error::Cancelled);
    }
    let fd = walk.root.open_dir(&dir.path)?;
    let known = Known {
        remembered: Some(&dir.listing.remembered),
        is_local: dir.listing.is_local,
        next: Cell::new(0),
        in_layers: layers.map(|it| it.directory(&dir.path)),
    };
    let mut looked = Vec::with_capacity(files.len());
    for name in files {
        looked.push(look_at(walk, fd.as_fd(), name, &known).at_name("read", &dir.path, name)?);
    }
    Ok(looked)
}

/// Looks at what is selected by itself and no directory. Of such a file a row of its own is kept, under its own number.
fn look_at_tops(walk: &Walk<'_>, tops: &[Top]) -> Result<(Vec<Option<Looked>>, Vec<KeptRow>), Error> {
    let paths: Vec<&Path> = tops.iter().filter_map(Top::file).collect();
    let remembered = match walk.options.memory {
        None => vec![None; paths.len()],
        Some(memory) => {
            let id = |path: &&Path| Ok(DirectoryId::of(&walk.root.lstat(path)?));
            memory.cache.get(&paths.iter().map(id).collect::<Result<Vec<DirectoryId>, Error>>()?)
        }
    };
    let look = |(path, row): (&&Path, Option<Vec<u8>>)| look_at_top(walk, path, row);
    let looked = paths.par_iter().zip(remembered).map(look).collect::<Result<Vec<_>, Error>>()?;
    let (looked, new): (Vec<Looked>, Vec<Option<KeptRow>>) = looked.into_iter().unzip();
    let mut looked = looked.into_iter();
    let in_place = tops.iter().map(|top| top.file().and_then(|_| looked.next())).collect();
    Ok((in_place, new.into_iter().flatten().collect()))
}

fn look_at_top(
    walk: &Walk<'_>,
    path: &Path,
    remembered: Option<Vec<u8>>,
) -> Result<(Looked, Option<KeptRow>), Error> {
    let owner = walk.options.owner;
    let fd = walk.root.open_dir(path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let remembered = remembered.and_then(|row| Row::decode(row, owner)).unwrap_or_default();
    let is_local = walk.is_local(fd.as_fd(), path)?;
    let known = Known { remembered: Some(&remembered), is_local, ..Known::default() };
    let looked = look_at(walk, fd.as_fd(), name, &known).at("read", path)?;
    let Some(memory) = walk.options.memory.filter(|_| looked.news == News::Some) else {
        return Ok((looked, None));
    };
    let (stat, substance) = (looked.stat, looked.substance);
    let row = looked.news.is_worth_it(&stat, is_local, memory.now_ns).then(|| {
        let file = Remembered { name, fingerprint: Fingerprint::of(&stat), substance, digest: looked.digest };
        (DirectoryId::of(&stat), encode(&[file], None, owner))
    });
    Ok((looked, row))
}

fn look_at(walk: &Walk<'_>, dir: BorrowedFd<'_>, name: &OsStr, known: &Known<'_>) -> Result<Looked, Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let whiteout = match walk.marks {
        Some(marks) => is_whiteout(dir, name, &stat, marks)?,
        None => false,
    };
    let (learnt, digest) = match known.file(name, &stat) {
        Some((substance, digest)) => (Learnt { stat, substance, read_bytes: 0, news: News::None }, digest),
        None => (learn(walk, dir, name, stat)?, None),
    };
    let Learnt { stat, substance, read_bytes, news } = learnt;
    let owner = walk.options.owner;
    let digest = match digest {
        _ if whiteout => whiteout_digest(),
        // Owners may be shown otherwise from one mount to the next, and the file is the same.
        Some(digest) if owner == TreeOwner::Zero => digest,
        _ => Facts::of(&stat, owner).digest(substance.content, substance.xattrs),
    };
    Ok(Looked { substance, digest, read_bytes, stat, news })
}

fn learn(walk: &Walk<'_>, dir: BorrowedFd<'_>, name: &OsStr, stat: Stat) -> Result<Learnt, Errno> {
    let xattrs = attributes_digest(dir, name, walk.options.owner)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => read_file(dir, name, &stat, xattrs),
        FileType::Symlink => {
            let target = readlinkat(dir, name, Vec::new())?;
            let content = Some(digest_of_link(target.to_bytes()));
            Ok(Learnt { stat, substance: Substance { content, xattrs }, read_bytes: 0, news: News::Some })
        }
        _ => Ok(Learnt {
            stat,
            substance: Substance { content: None, xattrs },
            read_bytes: 0,
            news: News::Unfit,
        }),
    }
}

/// Reads a file. If it changes meanwhile, its attributes are the later ones, and it is not remembered.
fn read_file(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    seen: &Stat,
    xattrs: Option<Blake3>,
) -> Result<Learnt, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    let (content, read_bytes) = content_digest(file.as_fd())?;
    let stat = fstat(&file)?;
    let same = Fingerprint::of(seen) == Fingerprint::of(&stat) && read_bytes == stat.st_size.unsigned_abs();
    let news = if same { News::Some } else { News::Unfit };
    Ok(Learnt { stat, substance: Substance { content: Some(content), xattrs }, read_bytes, news })
}

/// The digest of what an open file holds, from where it is read to its end, and how much that is.
pub(super) fn content_digest(file: BorrowedFd<'_>) -> Result<(Blake3, u64), Errno> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(READ_BUFFER_BYTES, 0);
        let (mut hasher, mut size_bytes) = (blake3::Hasher::new(), 0);
        loop {
            let count = match read(file, &mut *buffer) {
                Err(Errno::INTR) => continue,
                count => count?,
            };
            if count == 0 {
                return Ok((*hasher.finalize().as_bytes(), size_bytes));
            }
            hasher.update(&buffer[..count]);
            size_bytes += count as u64;
        }
    })
}

/// The digest of the attributes that count; `None` if there are none.
pub(super) fn attributes_digest(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    owner: TreeOwner,
) -> Result<Option<Blake3>, Errno> {
    Ok(digest_attributes(&xattr::read_all(dir, name, |name| counts(name, owner))?))
}

/// The digest of attributes that count; `None` if there are none.
pub(super) fn digest_attributes(attributes: &Xattrs) -> Option<Blake3> {
    if attributes.is_empty() {
        return None;
    }
    let attributes: Vec<_> = attributes.iter().collect();
    let mut hasher = KeyHasher::new(XATTRS_DOMAIN);
    hasher.list(&attributes, |hasher, (name, value)| {
        hasher.bytes(name.to_bytes()).bytes(value);
    });
    Some(hasher.finish())
}

pub(super) fn counts(name: &CStr, owner: TreeOwner) -> bool {
    let name = name.to_bytes();
    if OWN_ATTRIBUTES.contains(&name) {
        return owner == TreeOwner::Keep;
    }
    !is_overlay_attribute(name) && !FOREIGN_NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
}

/// The rows of directories that are no longer what they were.
fn rows(walk: &Walk<'_>, looked: &[Vec<Looked>], now_ns: i64) -> Vec<KeptRow> {
    let changed = |(dir, looked): (&Dir, &Vec<Looked>)| {
        let row = remember(dir, looked, now_ns, walk.options.owner)?;
        Some((DirectoryId::of(&dir.listing.stat), row))
    };
    walk.dirs.par_iter().zip(looked).filter_map(changed).collect()
}

/// What is to be remembered of a directory; `None` if that is what is remembered already.
fn remember(dir: &Dir, looked: &[Looked], now_ns: i64, owner: TreeOwner) -> Option<Vec<u8>> {
    let listing = &dir.listing;
    let is_worth_it = |news: News, stat: &Stat| news.is_worth_it(stat, listing.is_local, now_ns);
    let is_fit = |file: &Looked| is_worth_it(file.news, &file.stat);
    let keeps_names = is_worth_it(listing.news, &listing.stat);
    let is_passed_over = |file: &Remembered<'_>| {
        listing.passed_over.binary_search_by(|(name, _)| name.as_os_str().cmp(file.name)).is_ok()
    };
    let unseen = (!listing.passed_over.is_empty()).then(|| listing.remembered.files().filter(is_passed_over));
    let unseen = unseen.into_iter().flatten();
    let kept = looked.iter().filter(|file| file.news == News::None).count() + unseen.clone().count();
    let is_new = looked.iter().any(|file| file.news == News::Some && is_fit(file));
    let has_new_names = listing.news == News::Some && keeps_names;
    if !is_new && !has_new_names && kept == listing.remembered.len() {
        return None;
    }
    let seen = listing.files.iter().zip(looked).filter(|(_, file)| is_fit(file)).map(|(name, file)| {
        let (substance, digest) = (file.substance, file.digest);
        Remembered { name, fingerprint: Fingerprint::of(&file.stat), substance, digest }
    });
    let mut files: Vec<Remembered<'_>> = seen.chain(unseen).collect();
    files.sort_unstable_by_key(|file| file.name);
    let names = keeps_names.then(|| {
        let seen = listing.files.iter().zip(looked);
        let seen = seen.map(|(name, file)| (name.as_os_str(), FileType::from_raw_mode(file.stat.st_mode)));
        let is_beside = |name: &OsStr| files.binary_search_by(|file| file.name.cmp(name)).is_err();
        let beside = seen.chain(listing.others()).filter(|(name, _)| is_beside(name)).collect();
        Names { times: Times::of(&listing.stat), beside }
    });
    Some(encode(&files, names.as_ref(), owner))
}
