//! What is known of directories that are planned.

use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use rbuild_cache::content_digest::{
    DigestOptions, KnownContext, MemoryStatCache, Selected, TreeOwner, Verdict, look_at_tree,
};
use rbuild_cache::tree::InodeId;
use rbuild_llb::Chmod;

use super::super::Planned;
use super::*;

const SOURCE: &[&str] =
    &["src/a/1=one", "src/a/2=two", "src/a/below/3=three", "src/b/link->1", "src/b/empty/", "src/4=four"];

/// A walk of the source: a path, and what below it does not count.
type Look = (&'static str, &'static [&'static str]);

const ALL: &[Look] = &[("src", &[])];

/// The directories of which a plan knows what a digest has of them, after these walks.
fn known(bed: &Bed, looks: &[Look], change: impl Fn(&mut CopyAction)) -> Vec<String> {
    let (from, to) = (RootDir::open(bed.from.path()).unwrap(), RootDir::open(bed.to.path()).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let digest =
        DigestOptions { pool: &pool, owner: TreeOwner::Zero, memory: None, layers: None, cancel: None };
    let look = |(path, skipped): &Look| {
        let skips = |path: &Path| skipped.iter().any(|skipped| path == Path::new(skipped));
        let filter = |path: &Path, _: bool| if skips(path) { Verdict::SkipTree } else { Verdict::Take };
        let selected = Selected { filter: Some(&filter), ..Selected::tree(Path::new(path)) };
        Arc::new(look_at_tree(&from, &[selected], &digest).unwrap().1)
    };
    let known = KnownContext { seen: looks.iter().map(look).collect(), cache: &MemoryStatCache::default() };
    let plan = Mutex::new(None);
    let compare = |planned: &Planned| {
        *plan.lock().unwrap() = Some(planned.clone());
        Ok(None)
    };
    let options = FileOptions {
        now_ns: NOW_NS,
        cancel: &bed.cancel,
        progress: &|_| {},
        pool: &pool,
        directories: Directories::Compared { files_min: 1, compare: &compare },
        known: Some(&known),
        single_id: bed.single_id,
    };
    let source = CopySource { root: &from, kind: SourceKind::Context, exclude: None, layers: None };
    let mut action = copy_action("src", "/to/");
    change(&mut action);
    apply(&FileAction::Copy(action), &to, &|_| Some(source), &options).unwrap();
    let Planned { tree, known, .. } = plan.into_inner().unwrap().expect("it was planned");
    let (mut found, mut todo) = (Vec::new(), vec![(String::new(), InodeId::ROOT)]);
    while let Some((path, id)) = todo.pop() {
        if known.contains_key(&id) {
            found.push(path.clone());
        }
        let below = |(name, id): (&OsString, &InodeId)| (format!("{path}/{}", name.display()), *id);
        todo.extend(tree.entries(id).into_iter().flatten().map(below));
    }
    found.sort();
    found
}

#[test]
fn directories_that_are_taken_as_they_were_seen_are_known() {
    let bed = Bed::new(SOURCE);
    assert_eq!(known(&bed, ALL, |_| {}), ["/a", "/a/below", "/b", "/b/empty"]);
    fs::hard_link(bed.source("src/a/1"), bed.source("src/b/1")).unwrap();
    assert_eq!(known(&bed, ALL, |_| {}), ["/a", "/a/below", "/b", "/b/empty"], "with hard links, too");
}

#[test]
fn what_counts_otherwise_than_it_was_seen_is_not_known() {
    let bed = Bed::new(SOURCE);
    let without = |name: &str| known(&bed, ALL, |copy| copy.exclude = vec![name.to_owned()]);
    assert_eq!(without("a/below/3"), ["/b", "/b/empty"]);
    assert_eq!(without("a/1"), ["/a/below", "/b", "/b/empty"]);
    let with_mode = |mode| known(&bed, ALL, |copy| copy.mode = Some(Chmod::Octal(mode)));
    assert_eq!(with_mode(0o700), ["/b/empty"], "in which there is nothing");
    for file in ["a/below/3", "4"] {
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bed.source("src").join(file), executable).unwrap();
    }
    assert_eq!(with_mode(0o755), ["/a/below", "/b", "/b/empty"], "those that had the mode already");
}

#[test]
fn what_has_changed_since_is_not_known() {
    let bed = Bed::new(SOURCE);
    // Between the walk and the copy.
    let known = known(&bed, ALL, |_| fs::write(bed.source("src/a/below/new"), "new").unwrap());
    assert_eq!(known, ["/b", "/b/empty"]);
}

#[test]
fn what_several_walks_have_seen_is_not_mixed() {
    let bed = Bed::new(SOURCE);
    let looks: &[Look] = &[("src", &[]), ("src/a/below", &["3"])];
    let without_3 = known(&bed, looks, |copy| copy.exclude = vec!["a/below/3".to_owned()]);
    assert_eq!(
        without_3,
        ["/a/below", "/b", "/b/empty"],
        "of the one that holds it, the first walk has another digest"
    );
    let bed = Bed::new(&["src/p/a/1=one", "src/p/b/2=two", "src/p/c/3=three"]);
    let looks: &[Look] = &[("src", &["p/c"]), ("src", &["p/b"])];
    let without_a = known(&bed, looks, |copy| copy.exclude = vec!["p/a".to_owned()]);
    assert_eq!(without_a, ["/p/b", "/p/c"], "as many directories were seen, but others");
}
