//! What is known of directories that are planned.

use std::sync::{Arc, Mutex};

use rbuild_cache::content_digest::{
    DigestOptions, KnownContext, MemoryStatCache, Selected, TreeOwner, look_at_tree,
};

use rbuild_llb::Chmod;

use super::super::Planned;
use super::*;

const SOURCE: &[&str] =
    &["src/a/1=one", "src/a/2=two", "src/a/below/3=three", "src/b/link->1", "src/b/empty/", "src/4=four"];

/// The directories of which a plan knows what a digest has of them.
fn known(bed: &Bed, change: impl Fn(&mut CopyAction)) -> Vec<&'static str> {
    let (from, to) = (RootDir::open(bed.from.path()).unwrap(), RootDir::open(bed.to.path()).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let digest =
        DigestOptions { pool: &pool, owner: TreeOwner::Zero, memory: None, layers: None, cancel: None };
    let (_, seen) = look_at_tree(&from, &[Selected::tree(Path::new("src"))], &digest).unwrap();
    let known = KnownContext { seen: vec![Arc::new(seen)], cache: &MemoryStatCache::default() };
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
    let plan = plan.into_inner().unwrap().expect("it was planned");
    let is_known = |path: &&str| {
        let id = plan.tree.directory_at(Path::new(path)).expect("it was taken");
        plan.known.contains_key(&id)
    };
    ["a", "a/below", "b", "b/empty"].into_iter().filter(is_known).collect()
}

#[test]
fn directories_that_are_taken_as_they_were_seen_are_known() {
    let bed = Bed::new(SOURCE);
    assert_eq!(known(&bed, |_| {}), ["a", "a/below", "b", "b/empty"]);
}

#[test]
fn what_counts_otherwise_than_it_was_seen_is_not_known() {
    let bed = Bed::new(SOURCE);
    let without = |name: &str| known(&bed, |copy| copy.exclude = vec![name.to_owned()]);
    assert_eq!(without("a/below/3"), ["b", "b/empty"]);
    assert_eq!(without("a/1"), ["a/below", "b", "b/empty"]);
    assert_eq!(known(&bed, |copy| copy.mode = Some(Chmod::Octal(0o700))), [""; 0]);
    let bed = Bed::new(&["src/a/1=one:600", "src/a/below/3=three:755", "src/b/2=two:755", "src/b/empty/"]);
    let all_executable = known(&bed, |copy| copy.mode = Some(Chmod::Octal(0o755)));
    assert_eq!(all_executable, ["a/below", "b", "b/empty"], "those that had the mode already");
}

#[test]
fn what_has_changed_since_is_not_known() {
    let bed = Bed::new(SOURCE);
    // Between the walk and the copy.
    let known = known(&bed, |_| fs::write(bed.source("src/a/below/new"), "new").unwrap());
    assert_eq!(known, ["b", "b/empty"]);
}
