//! Copying between a container and this machine: from a path in one tree to a path in another, or from and to a tar.
//!
//! Where things go is Docker's to say, and depends on what is there: into a directory under their own name, or in place of what the
//! target names; a source that ends in `/.` is what is in the directory. Both sides are trees beneath a descriptor, which no link
//! leads out of; a copied link stays a link.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use rbuild_cache::layer::compression::decompress;
use rbuild_cache::layer::{self, ApplyOptions, ArchiveOptions, Devices, Owners};
use rbuild_cache::piped;
use rbuild_cache::root_dir::{FileType, PathError, RootDir};
use thiserror::Error;

/// Why something could not be copied. The words are Docker's.
#[derive(Debug, Error)]
pub enum CopyError {
    /// It is not there, or the directory that it would be in is not, in a container.
    #[error("Could not find the file {} in container {container}", path.display())]
    MissingInContainer {
        /// What is missing.
        path: PathBuf,
        /// The container as it was named.
        container: String,
    },
    /// It is not there, on this machine.
    #[error("lstat {}: no such file or directory", path.display())]
    Missing {
        /// What is missing.
        path: PathBuf,
    },
    /// The directory that it would be in is not there, on this machine.
    #[error("invalid output path: directory \"{}\" does not exist", path.display())]
    MissingParent {
        /// The directory.
        path: PathBuf,
    },
    /// The target asks for a directory that is not there.
    #[error("no such directory")]
    NoSuchDirectory,
    /// The path asks for a directory, and something else is there.
    #[error("not a directory")]
    NotADirectory,
    /// A directory cannot take the place of a file.
    #[error("cannot copy directory")]
    DirectoryOntoFile,
    /// An archive can be unpacked into a directory only.
    #[error("destination \"{target}\" must be a directory")]
    ArchiveOntoFile {
        /// The target as it was named.
        target: String,
    },
    /// The target cannot be written to.
    #[error("{what} is marked read-only")]
    ReadOnly {
        /// `container rootfs` or `mounted volume`.
        what: &'static str,
    },
    /// A path could not be followed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Files could not be read or written.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

/// A path in a tree.
#[derive(Debug)]
pub struct Place {
    root: RootDir,
    path: PathBuf,
    /// The container whose tree it is, as it was named; none for this machine's.
    container: Option<String>,
    /// What of it cannot be written to.
    readonly: Option<&'static str>,
    /// Whether it names what is in the directory, and not the directory.
    contents: bool,
    /// Whether it can only be a directory.
    directory: bool,
}

/// What is copied.
struct Source<'a> {
    root: &'a RootDir,
    /// Without links.
    path: PathBuf,
    /// Its own name; none for the root.
    name: Option<PathBuf>,
    is_directory: bool,
    contents: bool,
}

impl Place {
    /// A path of this machine, absolute; `text` is how it was written, whose end says what is meant.
    ///
    /// # Errors
    /// When the root cannot be opened.
    pub fn of_machine(path: PathBuf, text: &str) -> Result<Self, CopyError> {
        Ok(Self::new(RootDir::open("/")?, path, text, None, None))
    }

    /// A path of a container, found by [`Files::place`](crate::Files::place).
    pub(crate) fn in_container(
        root: RootDir,
        path: PathBuf,
        text: &str,
        container: &str,
        readonly: Option<&'static str>,
    ) -> Self {
        Self::new(root, path, text, Some(container.to_owned()), readonly)
    }

    fn new(
        root: RootDir,
        path: PathBuf,
        text: &str,
        container: Option<String>,
        readonly: Option<&'static str>,
    ) -> Self {
        let contents = text == "." || text.ends_with("/.");
        let directory = contents || text.ends_with('/') || text == ".." || text.ends_with("/..");
        Self { root, path, container, readonly, contents, directory }
    }

    fn missing(&self, path: &Path) -> CopyError {
        let path = Path::new("/").join(path);
        match self.container.clone() {
            Some(container) => CopyError::MissingInContainer { path, container },
            None => CopyError::Missing { path },
        }
    }

    /// What is there to be copied.
    fn source(&self, follow: bool) -> Result<Source<'_>, CopyError> {
        let missing = |error: PathError| {
            if error.is_not_found() { self.missing(&self.path) } else { error.into() }
        };
        let last = self.path.components().next_back();
        let name = if let Some(Component::Normal(name)) = last { Some(PathBuf::from(name)) } else { None };
        let path = match &name {
            Some(name) if !follow && !self.directory => {
                let parent = self.path.parent().unwrap_or(Path::new(""));
                self.root.resolve(parent).map_err(missing)?.join(name)
            }
            _ => self.root.resolve(&self.path).map_err(missing)?,
        };
        let stat = self.root.lstat(&path).map_err(missing)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.directory && !is_directory {
            return Err(CopyError::NotADirectory);
        }
        let name = name.or_else(|| path.file_name().map(PathBuf::from));
        let contents = self.contents || name.is_none();
        Ok(Source { root: &self.root, path, name, is_directory, contents })
    }

    /// Where it goes: a directory that is there, and the name in it; none where the contents go into it.
    fn target(&self, source: &Source<'_>) -> Result<(RootDir, Option<PathBuf>), CopyError> {
        self.check_writable()?;
        if let Some(is_directory) = self.existing()? {
            return match (is_directory, source.is_directory) {
                (true, _) => {
                    let name = if source.contents { None } else { source.name.clone() };
                    Ok((self.root.subroot(&self.path)?, name))
                }
                (false, _) if self.directory => Err(CopyError::NotADirectory),
                (false, true) => Err(CopyError::DirectoryOntoFile),
                (false, false) => self.in_parent(),
            };
        }
        if self.directory && !source.is_directory {
            return Err(CopyError::NoSuchDirectory);
        }
        self.in_parent()
    }

    fn check_writable(&self) -> Result<(), CopyError> {
        self.readonly.map_or(Ok(()), |what| Err(CopyError::ReadOnly { what }))
    }

    /// Whether it is a directory; `None` where nothing is there.
    fn existing(&self) -> Result<Option<bool>, CopyError> {
        match self.root.stat(&self.path) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn in_parent(&self) -> Result<(RootDir, Option<PathBuf>), CopyError> {
        let missing = |error: PathError| match (&self.container, error.is_not_found()) {
            (_, false) => error.into(),
            (Some(_), true) => self.missing(self.path.parent().unwrap_or(Path::new(""))),
            (None, true) => {
                CopyError::MissingParent { path: self.path.parent().unwrap_or(Path::new("/")).to_owned() }
            }
        };
        let path = self.root.resolve(&self.path).map_err(missing)?;
        let parent = self.root.subroot(path.parent().unwrap_or(Path::new(""))).map_err(missing)?;
        Ok((parent, path.file_name().map(PathBuf::from)))
    }
}

impl Source<'_> {
    /// Writes it as a tar, under this name; without one, what is in it.
    fn write(&self, name: Option<&Path>, out: &mut dyn Write) -> Result<u64, layer::Error> {
        let options = ArchiveOptions::default();
        let stats = match name {
            Some(name) => layer::export_as(self.root, &self.path, name, &options, out)?,
            None => layer::export(&self.root.subroot(&self.path)?, &options, out)?,
        };
        Ok(stats.size_bytes)
    }
}

/// Copies from one place to another. Links at the end of the source are followed where `follow` says so. Returns the size of the
/// archive that it would be, in bytes.
///
/// # Errors
/// When the source is not there, or cannot take the place of what the target names.
pub fn copy(source: &Place, target: &Place, follow: bool, owners: Owners) -> Result<u64, CopyError> {
    let source = source.source(follow)?;
    let (target, name) = target.target(&source)?;
    let write = |out: &mut dyn Write| source.write(name.as_deref(), out);
    Ok(through(write, |input| layer::apply(input, &target, &options(owners)).map(drop))?)
}

/// Writes what is at a place as a tar.
///
/// # Errors
/// When it is not there or cannot be read or written.
pub fn write_archive(source: &Place, follow: bool, out: &mut dyn Write) -> Result<u64, CopyError> {
    let source = source.source(follow)?;
    let name = source.name.as_deref().filter(|_| !source.contents);
    Ok(source.write(name, out)?)
}

/// Unpacks a tar, compressed or not, into a directory.
///
/// # Errors
/// When the target is none, or the archive cannot be read or written.
pub fn read_archive(
    input: impl Read + Send,
    target: &Place,
    named: &str,
    owners: Owners,
) -> Result<(), CopyError> {
    target.check_writable()?;
    match target.existing()? {
        None => return Err(target.missing(&target.path)),
        Some(false) => return Err(CopyError::ArchiveOntoFile { target: named.to_owned() }),
        Some(true) => {}
    }
    let mut input = decompress(input)?;
    layer::apply(&mut input, &target.root.subroot(&target.path)?, &options(owners))?;
    Ok(())
}

fn options(owners: Owners) -> ApplyOptions<'static> {
    ApplyOptions { owners, replaces: false, devices: Devices::Refuse, ..ApplyOptions::literal() }
}

/// Lets what one side writes be what the other side reads.
pub(crate) fn through<T: Send>(
    write: impl FnOnce(&mut dyn Write) -> Result<T, layer::Error> + Send,
    read: impl FnOnce(&mut (dyn Read + Send)) -> Result<(), layer::Error>,
) -> Result<T, layer::Error> {
    let (written, done) = piped(|out| write(out), |input| read(input)).map_err(layer::Error::Read)?;
    // Where both failed, the reader's failure is the writer's reason; but what could not be read was never written whole.
    match (done, written) {
        (Err(layer::Error::Truncated { .. }), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(()), written) => written,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree with a file `f`, a directory `d` with a file in it, and links to both.
    fn tree(root: &Path) {
        fs::create_dir_all(root.join("d/sub")).unwrap();
        fs::write(root.join("f"), "file").unwrap();
        fs::write(root.join("d/sub/x"), "x").unwrap();
        symlink("f", root.join("lf")).unwrap();
        symlink("d", root.join("ld")).unwrap();
        symlink("/etc", root.join("out")).unwrap();
    }

    fn place(root: &Path, text: &str) -> Place {
        let path = Path::new("/").join(text);
        Place::in_container(RootDir::open(root).unwrap(), path, text, "box", None)
    }

    /// What is below a directory: `name`, `name/`, `name -> target`.
    fn list(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                if let Ok(target) = fs::read_link(&path) {
                    found.push(format!("{name} -> {}", target.display()));
                } else if path.is_dir() {
                    found.push(name + "/");
                    directories.push(path);
                } else {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn things_go_where_docker_puts_them() {
        // The target has a directory `there`, a file `file` and a link to the machine's `/etc`.
        type Expected<'a> = Result<&'a [&'a str], &'a str>;
        let cases: [(&str, &str, bool, Expected<'_>); 17] = [
            ("f", "there", false, Ok(&["there/f"])),
            ("f", "new", false, Ok(&["new"])),
            ("f", "file", false, Ok(&[])),
            ("f", "no/new", false, Err("Could not find the file /no in container box")),
            ("f", "new/", false, Err("no such directory")),
            ("f", "file/", false, Err("not a directory")),
            ("d", "new", false, Ok(&["new/", "new/sub/", "new/sub/x"])),
            ("d", "there", false, Ok(&["there/d/", "there/d/sub/", "there/d/sub/x"])),
            ("d/.", "there", false, Ok(&["there/sub/", "there/sub/x"])),
            ("d/.", "new", false, Ok(&["new/", "new/sub/", "new/sub/x"])),
            ("d", "file", false, Err("cannot copy directory")),
            ("lf", "there", false, Ok(&["there/lf -> f"])),
            ("lf", "there", true, Ok(&["there/lf"])),
            ("ld/", "new", false, Ok(&["new/", "new/sub/", "new/sub/x"])),
            ("f/", "there", false, Err("not a directory")),
            ("none", "there", false, Err("Could not find the file /none in container box")),
            ("out", "new", true, Err("Could not find the file /out in container box")),
        ];
        for (from, to, follow, expected) in cases {
            let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            tree(source.path());
            fs::create_dir(target.path().join("there")).unwrap();
            fs::write(target.path().join("file"), "before").unwrap();
            let before = list(target.path());
            let (from_place, to_place) = (place(source.path(), from), place(target.path(), to));
            let copied = copy(&from_place, &to_place, follow, Owners::Squash);
            match expected {
                Err(message) => assert_eq!(copied.unwrap_err().to_string(), message, "{from} {to}"),
                Ok(new) => {
                    copied.unwrap();
                    let mut after = list(target.path());
                    after.retain(|name| !before.contains(name));
                    assert_eq!(after, new, "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn links_of_a_target_lead_nowhere_else() {
        let (machine, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(machine.path());
        symlink(machine.path(), target.path().join("link")).unwrap();
        let before = list(machine.path());
        let copied = copy(&place(machine.path(), "f"), &place(target.path(), "link"), false, Owners::Squash);
        assert!(copied.is_err());
        // A directory does not take the place of a link, nor does it go through it.
        let copied = copy(&place(machine.path(), "d"), &place(target.path(), "."), false, Owners::Squash);
        copied.unwrap();
        fs::remove_dir_all(target.path().join("d")).unwrap();
        symlink(machine.path(), target.path().join("d")).unwrap();
        let copied = copy(&place(machine.path(), "d"), &place(target.path(), "/"), false, Owners::Squash);
        assert!(copied.unwrap_err().to_string().contains("cannot overwrite a non-directory"));
        assert_eq!(list(machine.path()), before);
    }

    #[test]
    fn archives_go_into_directories_only() {
        let target = tempfile::tempdir().unwrap();
        tree(target.path());
        let mut archive = Vec::new();
        write_archive(&place(target.path(), "d"), false, &mut archive).unwrap();
        fs::create_dir(target.path().join("new")).unwrap();
        read_archive(&*archive, &place(target.path(), "new"), "box:new", Owners::Squash).unwrap();
        assert_eq!(list(&target.path().join("new")), ["d/", "d/sub/", "d/sub/x"]);
        read_archive(&b""[..], &place(target.path(), "new"), "box:new", Owners::Squash).unwrap();
        let refused = read_archive(&*archive, &place(target.path(), "f"), "box:/f", Owners::Squash);
        assert_eq!(refused.unwrap_err().to_string(), "destination \"box:/f\" must be a directory");
    }
}
