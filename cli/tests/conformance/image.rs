//! An image as text: its config, its history, and the files in which it differs from the base image.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read as _;
use std::rc::Rc;

use flate2::read::GzDecoder;
use rbuild_image::Digest;
use serde_json::Value;
use tar::{Archive, EntryType};

/// What rbuild and BuildKit set where a base image says nothing; every image has it.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a frontend's own history says it is by.
const FRONTEND: &str = "buildkit.dockerfile.v0";
/// A longer text is told by its digest.
const TEXT_BYTES_MAX: usize = 200;

/// An image out of an OCI layout.
#[derive(Debug)]
pub(super) struct Image {
    config: Value,
    files: Files,
    /// The lowest layer alone, and what it is called.
    base: (String, Files),
}

type Files = BTreeMap<String, Rc<Entry>>;

/// A file. The names of a hard-linked one share it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

impl Image {
    /// Reads an archive of one image.
    pub(super) fn read(archive: &[u8]) -> Self {
        let blobs = blobs(archive);
        let json = |path: &str| -> Value { serde_json::from_slice(&blobs[path]).unwrap() };
        let blob = |descriptor: &Value| {
            format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
        };
        let index = json("index.json");
        let manifest = json(&blob(&index["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        let mut files = Files::new();
        let mut base = (String::new(), Files::new());
        for (number, layer) in list(&manifest["layers"]).iter().enumerate() {
            apply(&mut files, &decompressed(&blobs[&blob(layer)]));
            if number == 0 {
                base = (config["rootfs"]["diff_ids"][0].as_str().unwrap().to_owned(), files.clone());
            }
        }
        Self { config, files, base }
    }

    /// Tells all that two builders must agree on. `mtimes` are the paths whose times are told.
    pub(super) fn describe(&self, base: &Self, mtimes: &[&str]) -> String {
        let unchanged = if self.base.0 == base.base.0 { &base.base.1 } else { &Files::new() };
        let mut text = self.describe_config();
        text += "history\n";
        for entry in list(&self.config["history"]) {
            text += &describe_history(entry);
        }
        writeln!(text, "layers {}", list(&self.config["rootfs"]["diff_ids"]).len()).unwrap();
        text += "tree\n";
        text + &self.describe_files(unchanged, mtimes)
    }

    fn describe_config(&self) -> String {
        let mut text = String::from("config\n");
        let host = rbuild_image::Platform::host();
        let platform = (self.config["os"].as_str(), self.config["architecture"].as_str());
        if platform != (Some(host.os.as_str()), Some(host.architecture.as_str())) {
            writeln!(text, "  platform {platform:?}").unwrap();
        }
        if let Some(author) = self.config["author"].as_str() {
            writeln!(text, "  Author {author}").unwrap();
        }
        let fields: BTreeMap<&String, &Value> =
            self.config["config"].as_object().into_iter().flatten().collect();
        for (name, value) in fields {
            match value {
                Value::Null => {}
                Value::Array(list) if name == "Env" => list.iter().for_each(|variable| {
                    let variable = variable.as_str().unwrap().replace(DEFAULT_PATH, "PATH=(default)");
                    writeln!(text, "  Env {}", variable.escape_debug()).unwrap();
                }),
                Value::String(value) if value.is_empty() => {}
                value => writeln!(text, "  {name} {value}").unwrap(),
            }
        }
        text
    }

    fn describe_files(&self, unchanged: &Files, mtimes: &[&str]) -> String {
        let mut first_names: HashMap<*const Entry, &str> = HashMap::new();
        let mut lines = Vec::new();
        for (path, entry) in &self.files {
            let first = *first_names.entry(Rc::as_ptr(entry)).or_insert(path);
            let is_changed = unchanged.get(path).is_none_or(|before| !before.is_like(entry));
            if first != path {
                lines.push((path, format!("/{path} = /{first}")));
            } else if is_changed || mtimes.contains(&format!("/{path}").as_str()) {
                let mut line = entry.describe(path);
                if mtimes.contains(&format!("/{path}").as_str()) {
                    write!(line, " mtime={}", entry.mtime).unwrap();
                }
                lines.push((path, line));
            }
        }
        let is_gone = |path: &&String| !self.files.contains_key(*path);
        lines.extend(unchanged.keys().filter(is_gone).map(|path| (path, format!("removed /{path}"))));
        lines.sort();
        lines.into_iter().map(|(_, line)| format!("  {line}\n")).collect()
    }
}

impl Entry {
    /// Equal but for the time.
    fn is_like(&self, other: &Self) -> bool {
        let facts = |entry: &'_ Self| (entry.mode, entry.owner);
        facts(self) == facts(other) && self.kind == other.kind && self.xattrs == other.xattrs
    }

    fn describe(&self, path: &str) -> String {
        let mode = format!("{:04o}", self.mode);
        let mut line = match &self.kind {
            Kind::Directory => format!("/{path}/ {mode}"),
            Kind::File(content) => format!("/{path} {mode} {}", describe_content(content)),
            Kind::Symlink(target) => format!("/{path} -> {target}"),
            Kind::Fifo => format!("/{path} {mode} fifo"),
            Kind::Char(major, minor) => format!("/{path} {mode} char={major}:{minor}"),
            Kind::Block(major, minor) => format!("/{path} {mode} block={major}:{minor}"),
        };
        if self.owner != (0, 0) {
            write!(line, " owner={}:{}", self.owner.0, self.owner.1).unwrap();
        }
        for (name, value) in &self.xattrs {
            write!(line, " {name}=\"{}\"", value.escape_ascii()).unwrap();
        }
        line
    }
}

/// An array; Go writes an empty one as `null`.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `+` made a layer, `-` did not.
fn describe_history(entry: &Value) -> String {
    let sign = if entry["empty_layer"] == true { '-' } else { '+' };
    let comment = entry["comment"].as_str().filter(|comment| *comment != FRONTEND);
    let comment = comment.map(|comment| format!(" ({comment})")).unwrap_or_default();
    let by = entry["created_by"].as_str().unwrap_or_default().replace('\n', "\\n");
    format!("  {sign} {by}{comment}\n")
}

fn describe_content(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if text.len() <= TEXT_BYTES_MAX && !text.contains('\0') => format!("{text:?}"),
        _ => format!("{} bytes, {}", content.len(), &Digest::of(content).to_string()[..19]),
    }
}

/// The files of an archive.
fn blobs(archive: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    });
    entries.collect()
}

fn decompressed(layer: &[u8]) -> Vec<u8> {
    if !layer.starts_with(&[0x1f, 0x8b]) {
        return layer.to_vec();
    }
    let mut tar = Vec::new();
    GzDecoder::new(layer).read_to_end(&mut tar).unwrap();
    tar
}

/// Puts a layer on top.
fn apply(files: &mut Files, layer: &[u8]) {
    let mut made = Files::new();
    for entry in Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            remove_below(files, directory);
        } else if let Some(name) = name.strip_prefix(".wh.") {
            let path = [directory, name].join("/").trim_start_matches('/').to_owned();
            remove_below(files, &path);
            files.remove(&path);
        } else if entry.header().entry_type() == EntryType::Link {
            let target = entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned();
            let target = target.trim_start_matches("./").trim_matches('/');
            let shared = made.get(target).or_else(|| files.get(target)).unwrap().clone();
            made.insert(path, shared);
        } else if !path.is_empty() && path != "." {
            made.insert(path, Rc::new(read_entry(&mut entry)));
        }
    }
    for (path, entry) in made {
        if entry.kind != Kind::Directory {
            remove_below(files, &path);
        }
        files.insert(path, entry);
    }
}

fn remove_below(files: &mut Files, directory: &str) {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    files.retain(|path, _| !path.starts_with(&prefix));
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>) -> Entry {
    let mut xattrs = BTreeMap::new();
    for record in entry.pax_extensions().unwrap().into_iter().flatten() {
        let record = record.unwrap();
        if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
        }
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let header = entry.header();
    let device = || (header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap());
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular => Kind::File(content),
        EntryType::Symlink => Kind::Symlink(entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned()),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::Char(device().0, device().1),
        EntryType::Block => Kind::Block(device().0, device().1),
        other => panic!("{other:?} in a layer"),
    };
    let (mode, mtime) = (header.mode().unwrap() & 0o7777, header.mtime().unwrap());
    Entry { kind, mode, owner: (header.uid().unwrap(), header.gid().unwrap()), mtime, xattrs }
}
