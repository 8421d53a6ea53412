use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::layer::reader::{Kind, TarReader};

/// What the sink of the tests saw.
#[derive(Default)]
struct Collected {
    parts: Vec<Vec<u8>>,
    digests: bool,
    /// All that it wants.
    only: Option<usize>,
}

impl PartSink for Collected {
    fn begin(&mut self, part: usize) -> Taking {
        assert_eq!(part, self.parts.len());
        self.parts.push(Vec::new());
        if self.only.is_some_and(|only| only != part) {
            return Taking::Nothing;
        }
        if self.digests { Taking::Digest } else { Taking::All }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.parts.last_mut().unwrap().extend_from_slice(bytes);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// Entries by path, in the order of an archive.
type Layer = BTreeMap<Vec<String>, (Node, i64)>;

fn path_of(names: &[String]) -> String {
    names.join("/")
}

/// How many names the files have that have several.
fn names_of(layer: &Layer) -> BTreeMap<String, u64> {
    let mut names = BTreeMap::new();
    for (node, _) in layer.values() {
        if let Node::Link(first) = node {
            *names.entry(first.clone()).or_insert(1) += 1;
        }
    }
    names
}

/// Gives what is wanted of a layer, and says how many entries that were.
fn give(layer: &Layer, out: &mut dyn Entries) -> usize {
    let (names, mut unwanted, mut given) = (names_of(layer), None, 0);
    for (path, (node, mtime)) in layer {
        if unwanted.is_some_and(|directory| path.starts_with(directory)) {
            continue;
        }
        let names_of_path = path;
        given += 1;
        let path = path_of(path);
        let kind = match node {
            Node::Directory => TarKind::Directory,
            Node::File(content) => TarKind::File { size_bytes: content.len() as u64 },
            Node::Link(target) => TarKind::HardLink { target: target.as_bytes() },
        };
        let entry =
            TarEntry { path: path.as_bytes(), kind, mode: 0o700, uid: 5, gid: 6, mtime: *mtime, xattrs: &[] };
        let follows = out.entry(&entry, names.get(&path).copied().unwrap_or(1)).unwrap();
        match node {
            Node::File(content) if follows => out.content(&mut &content[..], content.len() as u64).unwrap(),
            Node::File(content) => out.digest(blake3::hash(content).as_bytes()).unwrap(),
            Node::Directory if !out.wants(path.as_bytes()) => unwanted = Some(names_of_path.as_slice()),
            _ => {}
        }
    }
    given
}

fn cuts_of(layer: &Layer, size_bytes: u64) -> Cuts {
    let mut measure = Measure::new(size_bytes);
    assert_eq!(give(layer, &mut measure), layer.len());
    measure.finish()
}

fn cut(layer: &Layer, size_bytes: u64, digests: bool) -> Vec<Vec<u8>> {
    let cuts = cuts_of(layer, size_bytes);
    let mut parts = Parts::new(Collected { digests, ..Collected::default() }, &cuts);
    assert_eq!(give(layer, &mut parts), layer.len());
    parts.finish().unwrap().parts
}

/// What somebody sees who puts archives on top of one another.
fn shown<'p>(parts: impl IntoIterator<Item = &'p Vec<u8>>) -> BTreeMap<String, (Node, u32, i64)> {
    let mut shown = BTreeMap::new();
    for part in parts {
        let mut own = BTreeSet::new();
        let mut reader = TarReader::new(&part[..]);
        while let Some(entry) = reader.next_entry().unwrap() {
            let path = String::from_utf8(entry.path.clone()).unwrap().trim_end_matches('/').to_owned();
            assert!(own.insert(path.clone()), "`{path}` is once in a part");
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(own.contains(parent), "`{path}` has its directory before it");
            }
            let node = match entry.kind {
                Kind::Directory => Node::Directory,
                Kind::HardLink { target } => {
                    let first = String::from_utf8(target).unwrap();
                    assert!(own.contains(&first), "`{first}` is in the part of its link");
                    Node::Link(first)
                }
                Kind::File { .. } => {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).unwrap();
                    Node::File(content)
                }
                kind => panic!("{kind:?}"),
            };
            shown.insert(path, (node, entry.mode, entry.mtime.seconds));
        }
    }
    shown
}

fn layer_of(files: &[(Vec<u8>, Vec<u8>, i64)]) -> Layer {
    let mut layer = Layer::new();
    for (at, (names, content, mtime)) in files.iter().enumerate() {
        let names: Vec<String> = names.iter().map(|name| format!("d{name}")).collect();
        for depth in 1..=names.len() {
            layer.insert(names[..depth].to_vec(), (Node::Directory, *mtime));
        }
        let path = [names, vec![format!("f{at}")]].concat();
        layer.insert(path, (Node::File(content.clone()), *mtime));
    }
    layer
}

/// Makes each file whose number a multiple of this another name of the first such file in the order of the archive.
fn link(layer: &mut Layer, every: usize) {
    let files: Vec<Vec<String>> = layer
        .iter()
        .filter(|(_, (node, _))| matches!(node, Node::File(_)))
        .map(|(path, _)| path.clone())
        .collect();
    let mut linked = files.iter().step_by(every).take(3);
    let Some(first) = linked.next() else { return };
    for other in linked {
        layer.get_mut(other).unwrap().0 = Node::Link(path_of(first));
    }
}

fn layers() -> impl Strategy<Value = Layer> {
    let content = prop::collection::vec(any::<u8>(), 0..3000);
    let names = prop::collection::vec(0..6_u8, 0..4);
    let files = prop::collection::vec((names, content, 0..1_000_000_i64), 0..120);
    (files, 2..60_usize).prop_map(|(files, every)| {
        let mut layer = layer_of(&files);
        link(&mut layer, every);
        layer
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_on_top_of_one_another_show_the_layer(layer in layers(), size_bytes in 512..40_000_u64) {
        let whole = cut(&layer, 0, false);
        prop_assert_eq!(whole.len(), 1);
        let parts = cut(&layer, size_bytes, false);
        prop_assert_eq!(shown(&parts), shown(&whole));
    }

    #[test]
    fn one_part_is_what_it_is_among_all(layer in layers(), size_bytes in 512..40_000_u64, at: prop::sample::Index) {
        let all = cut(&layer, size_bytes, false);
        let (cuts, only) = (cuts_of(&layer, size_bytes), at.index(all.len()));
        let mut parts = Parts::new(Collected { only: Some(only), ..Collected::default() }, &cuts);
        give(&layer, &mut parts);
        prop_assert_eq!(&parts.finish().unwrap().parts[only], &all[only]);
    }

    #[test]
    fn a_layer_is_one_archive_until_it_is_cut(layer in layers(), size_bytes in 512..200_000_u64) {
        let mut whole = Whole::new(Collected::default(), size_bytes);
        give(&layer, &mut whole);
        let cuts = cuts_of(&layer, size_bytes);
        match whole.finish().unwrap() {
            Ok(archive) => {
                prop_assert!(cuts.is_none());
                prop_assert_eq!(archive.parts, cut(&layer, 0, false));
            }
            Err(found) => prop_assert_eq!(found, cuts),
        }
    }

    #[test]
    fn digests_change_with_the_parts_that_they_are_of(layer in layers(), size_bytes in 512..40_000_u64, at: prop::sample::Index) {
        let mut other = layer.clone();
        let files: Vec<_> = other.values_mut().filter_map(|(node, _)| if let Node::File(it) = node { Some(it) } else { None }).collect();
        prop_assume!(!files.is_empty());
        let at = at.index(files.len());
        if let Some(byte) = files.into_iter().nth(at).unwrap().first_mut() { *byte ^= 1; }
        let (parts, others) = (cut(&layer, size_bytes, false), cut(&other, size_bytes, false));
        let (digests, other_digests) = (cut(&layer, size_bytes, true), cut(&other, size_bytes, true));
        prop_assert_eq!(parts.len(), others.len());
        let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a.iter().zip(b).map(|(a, b)| a == b).collect::<Vec<_>>();
        prop_assert_eq!(same(&digests, &other_digests), same(&parts, &others));
        prop_assert!(same(&parts, &others).iter().filter(|same| !**same).count() <= 1);
    }
}

fn many(files: usize) -> Layer {
    let file = |at: usize| (vec![(at / 500) as u8, (at / 50 % 10) as u8], vec![at as u8; 900], 7);
    layer_of(&(0..files).map(file).collect::<Vec<_>>())
}

#[test]
fn who_wants_one_part_is_given_little_of_others() {
    let layer = many(4_000);
    let cuts = cuts_of(&layer, 500_000);
    let mut parts = Parts::new(Collected { only: Some(4), ..Collected::default() }, &cuts);
    let given = give(&layer, &mut parts);
    assert!(given < 1_500, "{given} of {}", layer.len());
}

fn changed(before: &[Vec<u8>], after: &[Vec<u8>]) -> usize {
    let before: BTreeSet<&Vec<u8>> = before.iter().collect();
    after.iter().filter(|part| !before.contains(part)).count()
}

#[test]
fn a_new_file_and_the_time_of_its_directory_change_few_parts() {
    let layer = many(4_000);
    let before = cut(&layer, 100_000, false);
    assert!((20..60).contains(&before.len()), "{}", before.len());
    let (mut most, mut all) = (0, 0);
    for at in 0..80_usize {
        let mut layer = layer.clone();
        let directory = vec![format!("d{}", at / 10), format!("d{}", at % 10)];
        layer.get_mut(&directory).unwrap().1 += 1;
        layer.insert([directory, vec!["new".to_owned()]].concat(), (Node::File(vec![1; 5_000]), 8));
        let changed = changed(&before, &cut(&layer, 100_000, false));
        (most, all) = (most.max(changed), all + changed);
    }
    // The one that it is in; the last, if its directory is cut; now and then what comes after it.
    assert!(all < 80 * 4, "{all}, at most {most}");
}

#[test]
fn the_time_of_the_outermost_directory_changes_one_part() {
    let mut layer = many(4_000);
    for (path, entry) in std::mem::take(&mut layer) {
        layer.insert([vec!["app".to_owned()], path].concat(), entry);
    }
    layer.insert(vec!["app".to_owned()], (Node::Directory, 1));
    let before = cut(&layer, 100_000, false);
    layer.insert(vec!["app".to_owned()], (Node::Directory, 2));
    assert_eq!(changed(&before, &cut(&layer, 100_000, false)), 1);
}

#[test]
fn parts_grow_with_their_number() {
    let layer = many(12_000);
    let sizes: Vec<usize> = cut(&layer, 20_000, false).iter().map(Vec::len).collect();
    assert!(sizes.len() < 120, "{}", sizes.len());
    let (first, later) = (&sizes[..12], &sizes[24..36]);
    assert!(first.iter().all(|size| (20_000..70_000).contains(size)), "{first:?}");
    assert!(later.iter().all(|size| (80_000..200_000).contains(size)), "{later:?}");
}

#[test]
fn marks_stay_with_what_they_are_about() {
    let mut layer = Layer::new();
    for at in 0..200 {
        let directory = vec![format!("d{at:03}")];
        layer.insert([directory.clone(), vec![".wh..wh..opq".to_owned()]].concat(), (Node::File(vec![]), 0));
        layer.insert([directory.clone(), vec!["f".to_owned()]].concat(), (Node::File(vec![1; 2_000]), 0));
        layer.insert(directory, (Node::Directory, 0));
    }
    let parts = cut(&layer, 10_000, false);
    assert!(parts.len() > 5);
    for part in &parts {
        let shown = shown([part]);
        let marked = |path: &String| shown.contains_key(&format!("{path}/.wh..wh..opq"));
        let begun = shown.iter().filter(|(path, (_, mode, _))| path.len() == 4 && *mode == 0o700);
        assert!(begun.clone().all(|(path, _)| marked(path)) || begun.clone().all(|(path, _)| !marked(path)));
    }
}
