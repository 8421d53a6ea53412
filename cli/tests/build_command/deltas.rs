//! Copies told from what the same copy left before: the same images as of whole directories, and little to write when little has changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::trees::{DOCKERFILES, context};
use crate::common::{Context, TestEnvironment};

/// All that programs see of files, times and link counts among it.
const EVERYTHING_SEEN: &str = "FROM busybox\nCOPY . /app\nCOPY d /other\nRUN cd / && \
    find app other ! -type d -exec stat -c '%n %f %u %g %s %h %y' {} + | sort >/seen && \
    find app/* other/* -type d -exec stat -c '%n %f %u %g %y' {} + | sort >>/seen && \
    find app other -type f -exec md5sum {} + | sort >>/seen && \
    find app other bin seen -type f -exec stat -c %d {} + | uniq | wc -l >>/seen\n";

/// What people do to a directory between two builds.
const CHANGES: [fn(&Context); 5] = [
    |context| {
        context.write("b", "changed").chmod("run.sh", 0o644).write("d/new/z", "new");
        fs::remove_file(context.path.join("d/in/two/y")).unwrap();
    },
    |context| {
        let path = |name: &str| context.path.join(name);
        fs::remove_file(path("d/a")).unwrap();
        fs::remove_dir_all(path("d/in/one")).unwrap();
        fs::remove_file(path("link")).unwrap();
        fs::remove_file(path("d/twin")).unwrap();
        context.write("d/a/deep/x", "1").write("d/in/one", "a file now").symlink("b", "link");
    },
    |context| {
        let file = fs::File::open(context.path.join("d/in/two/x")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::hard_link(context.path.join("d/large"), context.path.join("d/large-too")).unwrap();
    },
    |context| {
        fs::rename(context.path.join("d/in"), context.path.join("d/out")).unwrap();
        fs::set_permissions(context.path.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    },
    |_| {},
];

/// Builds without what is known of steps, and gives the digests of the layers.
fn layers(test: &TestEnvironment, context: &Context, form: &str) -> Value {
    let build = test.build_command(context, &["-t", "app", "--no-cache", "--layers", form]);
    // Directories that the build makes have its time.
    build.env("SOURCE_DATE_EPOCH", "1").outcome().succeeds();
    test.inspect("app")["RootFS"]["Layers"].take()
}

/// Builds before and after each change, once as deltas and once as directories.
fn assert_same_layers(dockerfile: &str, changes: &[fn(&Context)]) {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let stores = [test.store().to_owned(), test.path("directories")];
    let context = context(&test, dockerfile);
    layers(&test, &context, "delta");
    test.set_store(&stores[1]);
    test.import_base();
    for change in changes {
        change(&context);
        let [as_deltas, as_directories] =
            [("delta", &stores[0]), ("directory", &stores[1])].map(|(form, store)| {
                test.set_store(store);
                layers(&test, &context, form)
            });
        assert_eq!(as_deltas, as_directories, "{dockerfile}");
    }
    test.set_store(&stores[0]);
    test.assert_sound();
}

#[test]
fn what_programs_see_does_not_depend_on_the_form_of_layers() {
    assert_same_layers(EVERYTHING_SEEN, &CHANGES);
}

#[test]
fn images_built_again_do_not_depend_on_the_form_of_layers() {
    // One makes a file where a change makes a directory, which is an error.
    let possible = |dockerfile: &&&str| !dockerfile.contains(">d/a");
    let at_once: fn(&Context) = |context| CHANGES[..2].iter().for_each(|change| change(context));
    DOCKERFILES.iter().filter(possible).for_each(|dockerfile| assert_same_layers(dockerfile, &[at_once]));
}

/// How many files there are in all layers.
fn files_in(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() { files_in(&entry.path()) } else { 1 }
    };
    entries.map(count).sum()
}

#[test]
fn one_changed_file_is_one_written_file_and_what_it_is_told_from_stays() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let files = [("Dockerfile", "FROM busybox\nCOPY . /app\n"), ("a", "1"), ("b", "2"), ("d/c", "3")];
    let context = test.context("context", &files);
    let build = || test.build_command(&context, &["-t", "app", "--layers", "delta"]).outcome().succeeds();
    let layers = test.store().join("layers");
    build();
    let before = files_in(&layers);
    context.write("d/c", "4");
    build();
    assert_eq!(files_in(&layers) - before, 1);
    test.rbuild(&["prune", "-a", "-f"]).outcome().succeeds();
    test.assert_sound();
    assert_eq!(files_in(&layers) - before, 1, "the image needs both");
    assert_eq!(test.run("app", "cat /app/a /app/d/c"), "14");
    context.write("a", "5");
    build();
    assert_eq!(test.run("app", "cat /app/a /app/d/c"), "54");
    test.rbuild(&["image", "prune", "-a", "-f"]).outcome().succeeds();
    test.rbuild(&["prune", "-a", "-f"]).outcome().succeeds();
    assert_eq!(test.store_entries("layers"), 0);
    test.assert_sound();
}
