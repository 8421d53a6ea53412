//! A corpus of hostile archives: every way that is known to lead out of a tree, with everything that could be put there; and
//! headers that disagree with themselves.
//!
//! Archives are put together byte by byte here, because no writer would write them. Each is applied as a layer and as a plain archive.
//! Nothing outside may change; what becomes of the archive is in the snapshot, where a change of it has to be meant.

use rayon::prelude::*;

use super::hostile::Yard;
use super::*;

/// How many archives the corpus has to have at least.
const ARCHIVES_MIN: usize = 200;
/// Stands for the path of the directory that holds the target, and what must not change.
const OUTER: &str = "{outer}";

/// An archive as bytes.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

/// The header of an entry, as it stands in the archive.
#[derive(Clone)]
struct Header {
    name: Vec<u8>,
    prefix: Vec<u8>,
    link: Vec<u8>,
    kind: u8,
    mode: u32,
    size: Vec<u8>,
    magic: &'static [u8; 8],
}

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";
const OLD: &[u8; 8] = &[0; 8];

impl Header {
    fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        let (prefix, link) = (Vec::new(), Vec::new());
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self { name: name.as_ref().to_vec(), prefix, link, kind, mode, size: octal(0), magic: USTAR }
    }

    fn to(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }

    fn bytes(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8], max: usize| {
            let bytes = &bytes[..bytes.len().min(max)];
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &self.name, 100);
        put(100, format!("{:07o}", self.mode).as_bytes(), 8);
        put(108, b"0000000", 8);
        put(116, b"0000000", 8);
        put(124, &self.size, 12);
        put(136, b"07346545000", 12);
        put(156, &[self.kind], 1);
        put(157, &self.link, 100);
        put(257, self.magic, 8);
        put(329, b"0000001", 8);
        put(337, b"0000003", 8);
        put(345, &self.prefix, 155);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}").into_bytes()
}

impl Raw {
    fn header(mut self, header: &Header) -> Self {
        self.0.extend(header.bytes());
        self
    }

    /// An entry with content, and a header that says so.
    fn entry(self, header: Header, content: impl AsRef<[u8]>) -> Self {
        let size = octal(content.as_ref().len());
        self.header(&Header { size, ..header }).content(content.as_ref())
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(Header::new(b'0', name), "x")
    }

    fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(b'5', name))
    }

    fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(b'2', name).to(target))
    }

    fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(b'1', name).to(target))
    }

    /// Records for the next entry, or with `g` for all that follow.
    fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let text = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect::<Vec<_>>();
        self.entry(Header::new(kind, "pax"), text)
    }

    /// The name (`L`) or target (`K`) of the next entry, as GNU tar writes long ones.
    fn gnu(self, kind: u8, text: impl AsRef<[u8]>) -> Self {
        let header = Header { magic: GNU, ..Header::new(kind, "././@LongLink") };
        self.entry(header, [text.as_ref(), b"\0"].concat())
    }

    fn end(mut self, outer: &Path) -> Vec<u8> {
        self.0.extend([0; 1024]);
        replace(&self.0, outer)
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let digits = |size: usize| size.to_string().len();
    let mut size = rest.len() + digits(rest.len());
    size = rest.len() + digits(size);
    [size.to_string().as_bytes(), &rest].concat()
}

/// Puts the real path where [`OUTER`] stands, in fields that are long enough for both.
fn replace(archive: &[u8], outer: &Path) -> Vec<u8> {
    let path = outer.to_str().unwrap().as_bytes();
    let mut blocks: Vec<u8> = archive.to_vec();
    for block in blocks.chunks_exact_mut(512) {
        let Some(at) = block.windows(OUTER.len()).position(|window| window == OUTER.as_bytes()) else {
            continue;
        };
        let field_end = at + block[at..].iter().position(|byte| *byte == 0).unwrap();
        let rest = block[at + OUTER.len()..field_end].to_vec();
        block[at..at + path.len()].copy_from_slice(path);
        block[at + path.len()..at + path.len() + rest.len()].copy_from_slice(&rest);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    blocks
}

/// Ways out: what makes the way, and the path that then leads to what must not change.
fn ways() -> Vec<(&'static str, Raw, &'static str)> {
    let raw = Raw::default;
    vec![
        ("parent", raw(), "../"),
        ("parent after a name", raw(), "a/../../"),
        ("parent after a directory", raw().dir("a").dir("a/b"), "a/b/../../../"),
        ("parent after dots", raw(), "./.././"),
        ("absolute", raw(), "{outer}/"),
        ("absolute, two slashes", raw(), "//{outer}//"),
        ("link to the parent", raw().link("l", ".."), "l/"),
        ("link to the grandparent's child", raw().link("l", "../../{outer}"), "l/"),
        ("absolute link", raw().link("l", "{outer}"), "l/"),
        ("link to the root", raw().link("l", "/"), "l/{outer}/"),
        ("chain of links", raw().link("a", "b/c").link("b", "../..").link("c", "."), "a/"),
        ("link in a directory", raw().dir("d").link("d/l", "../.."), "d/l/"),
        ("link below a link", raw().link("l", "d").dir("d").link("l/m", "../.."), "d/m/"),
        ("directory, then a link", raw().dir("l").file("l/f").link("l", ".."), "l/"),
        ("link, then a directory", raw().link("l", "..").dir("l"), "l/"),
        ("link with a slash", raw().link("l/", ".."), "l/"),
        ("hard link to a link", raw().link("s", "..").hard("l", "s"), "l/"),
        ("hard link to a directory link", raw().dir("d").link("d/s", "../..").hard("l", "d/s"), "l/"),
        ("link and parent", raw().dir("d").link("l", "d"), "l/../../"),
        ("file, then a link", raw().file("l").link("l", ".."), "l/"),
        ("whiteout, then a link", raw().file(".wh.l").link("l", ".."), "l/"),
        ("link, then a whiteout", raw().link("l", "..").file(".wh.l"), "l/"),
        ("opaque link", raw().link("l", "..").file("l/.wh..wh..opq"), "l/"),
        ("link through the process", raw().link("l", "/proc/self/cwd"), "l/"),
        ("link through a descriptor", raw().link("l", "/proc/self/fd/3/.."), "l/"),
    ]
}

/// Puts something at the end of a way.
type Burden = fn(Raw, &str) -> Raw;

fn burdens() -> Vec<(&'static str, Burden)> {
    vec![
        ("a file", |raw, way| raw.file(format!("{way}neighbour"))),
        ("a file in a directory", |raw, way| raw.file(format!("{way}outside/secret"))),
        ("a directory", |raw, way| raw.dir(format!("{way}neighbour"))),
        ("a link", |raw, way| raw.link(format!("{way}neighbour"), "x")),
        ("a hard link", |raw, way| raw.hard("stolen", format!("{way}outside/secret"))),
        ("a hard link there", |raw, way| raw.file("f").hard(format!("{way}neighbour"), "f")),
        ("a device", |raw, way| raw.header(&Header::new(b'3', format!("{way}neighbour")))),
        ("a pipe", |raw, way| raw.header(&Header::new(b'6', format!("{way}neighbour")))),
        ("a whiteout", |raw, way| raw.file(format!("{way}.wh.neighbour"))),
        ("an opaque mark", |raw, way| raw.file(format!("{way}outside/.wh..wh..opq"))),
    ]
}

/// Headers that disagree: with what follows, with each other, with themselves.
fn confusions() -> Vec<(&'static str, Raw)> {
    let raw = Raw::default;
    let header = Header::new;
    let path = |path: &'static [u8]| raw().pax(b'x', &[("path", path)]).file("harmless");
    vec![
        ("a PAX path that leads out", path(b"../neighbour")),
        ("a PAX path that is absolute", path(b"/outside/secret")),
        ("a PAX path with a NUL", path(b"a\0/../neighbour")),
        ("a PAX path that is empty", path(b"")),
        ("a PAX path of dots", path(b"..")),
        (
            "a PAX path for all that leads out",
            raw().pax(b'g', &[("path", b"../neighbour")]).file("a").file("b"),
        ),
        (
            "a PAX target that leads out",
            raw().pax(b'x', &[("linkpath", b"../outside/secret")]).hard("h", "f"),
        ),
        ("a PAX target with a NUL", raw().pax(b'x', &[("linkpath", b"f\0g")]).link("l", "t")),
        ("two PAX headers", raw().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"../b")]).file("c")),
        ("PAX, then GNU", raw().pax(b'x', &[("path", b"pax")]).gnu(b'L', "../gnu").file("c")),
        ("GNU, then PAX", raw().gnu(b'L', "../gnu").pax(b'x', &[("path", b"pax")]).file("c")),
        ("a GNU name that leads out", raw().gnu(b'L', "../neighbour").file("harmless")),
        ("a GNU name with a NUL", raw().gnu(b'L', "a\0../neighbour").file("harmless")),
        ("a GNU target that leads out", raw().gnu(b'K', "../outside/secret").hard("h", "f")),
        ("two GNU names", raw().gnu(b'L', "a").gnu(b'L', "../b").file("c")),
        ("a GNU name for nothing", raw().gnu(b'L', "a")),
        ("a PAX header for nothing", raw().pax(b'x', &[("path", b"a")])),
        (
            "a prefix that leads out",
            raw().entry(Header { prefix: b"..".to_vec(), ..header(b'0', "neighbour") }, "x"),
        ),
        (
            "a prefix of another format",
            raw().entry(Header { prefix: b"..".to_vec(), magic: GNU, ..header(b'0', "a") }, "x"),
        ),
        (
            "a prefix without a format",
            raw().entry(Header { prefix: b"..".to_vec(), magic: OLD, ..header(b'0', "a") }, "x"),
        ),
        ("a name without an end", raw().file([b'n'; 100])),
        ("a target without an end", raw().link("l", [b't'; 100])),
        ("a name that is not text", raw().file(b"\xff\xfe\x01\x7f")),
        ("a name with line breaks", raw().file("a\nb\r\x1b[31mc")),
        ("a name that looks like a record", raw().file("12 path=../x\n")),
        (
            "a PAX size that is smaller",
            raw().pax(b'x', &[("size", b"0")]).entry(header(b'0', "a"), "content").file("b"),
        ),
        (
            "a PAX size that is larger",
            raw().pax(b'x', &[("size", b"99999")]).entry(header(b'0', "a"), "content"),
        ),
        ("a PAX size without end", raw().pax(b'x', &[("size", b"18446744073709551615")]).file("a")),
        ("a PAX size that is negative", raw().pax(b'x', &[("size", b"-1")]).file("a")),
        ("a PAX owner without end", raw().pax(b'x', &[("uid", b"99999999999999999999")]).file("a")),
        ("a PAX time without end", raw().pax(b'x', &[("mtime", b"1e400")]).file("a")),
        ("a PAX time that is far away", raw().pax(b'x', &[("mtime", b"9223372036854775807.9")]).file("a")),
        (
            "a PAX record that is longer than it says",
            raw().entry(header(b'x', "pax"), "9 path=aaaaaaaaaa\n").file("a"),
        ),
        ("a PAX record that says nothing", raw().entry(header(b'x', "pax"), "0 =\n").file("a")),
        ("a PAX record without a length", raw().entry(header(b'x', "pax"), "path=../x\n").file("a")),
        ("a PAX record that is cut", raw().entry(header(b'x', "pax"), "100 path=a\n").file("a")),
        ("a PAX header of a gigabyte", raw().header(&Header { size: octal(1 << 30), ..header(b'x', "pax") })),
        (
            "a GNU name of a gigabyte",
            raw().header(&Header { size: octal(1 << 30), magic: GNU, ..header(b'L', "l") }),
        ),
        (
            "a file of eight exabytes",
            raw().header(&Header {
                size: b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
                ..header(b'0', "a")
            }),
        ),
        (
            "a sparse file of an exabyte",
            raw().pax(b'x', &sparse(b"1152921504606846976")).entry(header(b'0', "a"), sparse_map(&["0"])),
        ),
        (
            "a sparse file that overlaps",
            raw()
                .pax(b'x', &sparse(b"20"))
                .entry(header(b'0', "a"), sparse_map(&["2", "5", "10", "0", "10"])),
        ),
        (
            "a sparse file beyond its size",
            raw().pax(b'x', &sparse(b"20")).entry(header(b'0', "a"), sparse_map(&["1", "15", "10"])),
        ),
        (
            "a sparse file of many parts",
            raw().pax(b'x', &sparse(b"20")).entry(header(b'0', "a"), sparse_map(&["4000000000"])),
        ),
        (
            "a sparse name that leads out",
            raw()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.name", b"../neighbour"),
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"1"),
                    ],
                )
                .entry(header(b'0', "a"), sparse_map(&["0"])),
        ),
        (
            "an attribute that redirects",
            raw().pax(b'x', &[("SCHILY.xattr.trusted.overlay.redirect", b"/outside")]).dir("d"),
        ),
        ("an attribute with a NUL", raw().pax(b'x', &[("SCHILY.xattr.user.a\0b", b"c")]).file("a")),
        ("an attribute without a name", raw().pax(b'x', &[("SCHILY.xattr.", b"c")]).file("a")),
        (
            "a capability that is none",
            raw().pax(b'x', &[("SCHILY.xattr.security.capability", b"\xff")]).file("a"),
        ),
        ("a type that nobody knows", raw().entry(header(b'Z', "a"), "x").file("b")),
        ("a volume label", raw().entry(Header { magic: GNU, ..header(b'V', "../label") }, "").file("b")),
        ("a continued file", raw().entry(Header { magic: GNU, ..header(b'M', "a") }, "x").file("b")),
        ("a directory with content", raw().entry(header(b'5', "d"), "x").file("d/f")),
        ("a file with a slash", raw().entry(header(b'0', "d/"), "x").file("b")),
        ("a mode of everything", raw().entry(Header { mode: 0o7_777_777, ..header(b'0', "a") }, "x")),
        ("names that differ by dots", raw().file("a").file("./a").file(".//a/.").file("a/")),
        ("a root that is a file", raw().file("./")),
        ("a root that is a link", raw().link(".", "/outside")),
        ("whiteouts of whiteouts", raw().file(".wh..wh.a").file(".wh..wh..wh.b")),
        ("a whiteout of the parent", raw().file("d/.wh...")),
        ("a whiteout with a slash", raw().file(".wh.a/")),
    ]
}

fn sparse(size: &'static [u8]) -> [(&'static str, &'static [u8]); 4] {
    [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", size),
    ]
}

fn sparse_map(numbers: &[&str]) -> Vec<u8> {
    let mut map = format!("{}\n", numbers.join("\n")).into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map.extend([b'd'; 64]);
    map
}

fn corpus() -> Vec<(String, Raw)> {
    let mut corpus = Vec::new();
    for (way_name, way, path) in ways() {
        for (burden_name, burden) in burdens() {
            corpus.push((format!("{way_name}: {burden_name}"), burden(way.clone(), path)));
        }
    }
    corpus.extend(confusions().into_iter().map(|(name, raw)| (name.to_owned(), raw)));
    corpus
}

/// All archives, by what they try.
pub(crate) fn archives(outer: &Path) -> Vec<(String, Vec<u8>)> {
    corpus().into_iter().map(|(name, raw)| (name, raw.end(outer))).collect()
}

/// What became of an archive, in a line that is the same on every machine.
fn outcome(raw: &Raw, options: &ApplyOptions<'_>) -> String {
    let yard = Yard::new();
    let outer = yard.outer().to_owned();
    let said = match yard.apply(&raw.clone().end(&outer), options) {
        Ok(_) => yard.tree().join(", "),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("refused: {error}{}", source.unwrap_or_default())
        }
    };
    let relative = outer.strip_prefix("/").unwrap().to_str().unwrap();
    let said = said.replace(outer.to_str().unwrap(), OUTER).replace(relative, "outer");
    said.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

#[test]
fn nothing_of_the_corpus_leads_out() {
    let corpus = corpus();
    assert!(corpus.len() >= ARCHIVES_MIN, "{}", corpus.len());
    let said = |(name, raw): &(String, Raw)| {
        let layer = outcome(raw, &ApplyOptions::layer(XATTRS));
        let literal = outcome(raw, &ApplyOptions::literal());
        let differs = if literal == layer { String::new() } else { format!("\n  as an archive: {literal}") };
        format!("{name}\n  {layer}{differs}")
    };
    let text: Vec<String> = corpus.par_iter().map(said).collect();
    insta::assert_snapshot!(text.join("\n"));
}

/// Writes the corpus where the fuzzer begins: `cargo test -p rbuild-cache -- --ignored seeds_of_the_fuzzer`.
#[test]
#[ignore = "writes into the repository"]
fn seeds_of_the_fuzzer() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/fuzz/layer");
    fs::create_dir_all(&directory).unwrap();
    for (name, raw) in confusions() {
        // The first byte of a seed chooses how it is applied.
        let archive = [&[0], &raw.end(Path::new("/outer"))[..]].concat();
        fs::write(directory.join(name.replace([' ', ','], "_")), archive).unwrap();
    }
}
