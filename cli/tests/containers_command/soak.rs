//! Many containers, life after life and at once, and nothing left of any. `scripts/soak.sh` takes more of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::{detached, printed, processes, rbuild};
use crate::common::{TestEnvironment, say};

/// How many lives; `RBUILD_TEST_CYCLES` says otherwise, and that nobody else uses the machine.
const CYCLES: usize = 500;
/// How many of them are on their way at once.
const WORKERS: usize = 8;
/// How many at once; `RBUILD_TEST_TOGETHER` says otherwise.
const TOGETHER: usize = 8;

/// How often it is counted anew what is left.
const COUNTS_MAX: usize = 20;

/// What could be left of containers, counted.
type Counts = BTreeMap<&'static str, usize>;

/// What is this test's alone: files of the store, mounts and processes that show it, and what the monitor of `witness` holds.
fn own_counts(test: &TestEnvironment, witness: &str) -> Counts {
    let (_, monitor) = processes(test, witness);
    let of_monitor = |name: &str| fs::read_dir(format!("/proc/{monitor}/{name}")).map_or(0, Iterator::count);
    let store = test.store().to_str().unwrap();
    BTreeMap::from([
        ("rows", printed(test, &["ps", "-aq"]).lines().count()),
        ("directories", test.store_entries("containers")),
        ("volumes", printed(test, &["volume", "ls", "-q"]).lines().count()),
        ("files", count_below(test.store())),
        ("mounts of the store", lines_of("/proc/self/mountinfo", store)),
        ("processes with a file of the store", processes_with_files_below(store)),
        ("descriptors of a monitor", of_monitor("fd")),
        ("threads of a monitor", of_monitor("task")),
    ])
}

/// What others on the machine have some of as well.
fn machine_counts() -> Counts {
    let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
    BTreeMap::from([
        ("mounts", lines_of("/proc/self/mountinfo", "")),
        ("processes", entries("/proc")),
        ("interfaces", entries("/sys/class/net")),
        ("control groups", count_directories(Path::new("/sys/fs/cgroup"), 4)),
        ("leases of addresses", count_below(Path::new("/run/rbuild/networks"))),
        ("tables of the packet filter", tables()),
    ])
}

fn lines_of(file: &str, text: &str) -> usize {
    fs::read_to_string(file).unwrap().lines().filter(|line| line.contains(text)).count()
}

/// Those that are rbuild's; none where they cannot be listed.
#[expect(clippy::disallowed_methods, reason = "the system's own program, as the program under test calls it")]
fn tables() -> usize {
    let listed = Command::new("nft").args(["list", "tables"]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter(|line| line.contains(" rb")).count()
}

/// The database's own files come and go, and so does the older part of the log of events.
fn count_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let passes = |name: &str| name.ends_with("-wal") || name.ends_with("-shm") || name == "events.old";
    let entries = entries.filter(|entry| !passes(&entry.file_name().to_string_lossy()));
    let below = |path: &Path| if path.is_dir() && !path.is_symlink() { count_below(path) } else { 0 };
    entries.map(|entry| 1 + below(&entry.path())).sum()
}

fn count_directories(directory: &Path, depth: u32) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = |path: &Path| if depth > 0 { count_directories(path, depth - 1) } else { 0 };
    directories.map(|entry| 1 + below(&entry.path())).sum()
}

fn processes_with_files_below(path: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let has_one = |process: &fs::DirEntry| {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| target.starts_with(path))
    };
    all.filter(has_one).count()
}

#[expect(clippy::disallowed_methods, reason = "the switch of scripts/soak.sh")]
fn wanted(name: &str, otherwise: usize) -> (usize, bool) {
    let given = std::env::var(name).ok().and_then(|count| count.parse().ok());
    (given.unwrap_or(otherwise), given.is_some())
}

/// Does something between two counts, which are to be the same.
fn leaves_nothing(test: &TestEnvironment, what: &str, alone: bool, work: impl FnOnce()) {
    // What is made once and stays: a bridge, directories of the store, threads.
    warm(test);
    let (own, machine) = (own_counts(test, "witness"), machine_counts());
    let begun = Instant::now();
    work();
    let seconds = begun.elapsed().as_secs_f64();
    // What a user's own network namespaces left is for the next process with such a one to remove.
    warm(test);
    // The last monitor may not be quite gone when its client is.
    let mut own_after = own_counts(test, "witness");
    for _ in 0..COUNTS_MAX {
        if own_after != own {
            own_after = own_counts(test, "witness");
        }
    }
    let machine_after = machine_counts();
    if alone {
        say(&format!(
            "{what} in {seconds:.1} s\nbefore {own:?} {machine:?}\nafter  {own_after:?} {machine_after:?}"
        ));
    }
    assert_eq!(own_after, own, "{what}");
    test.assert_sound();
}

fn warm(test: &TestEnvironment) {
    cycle(test, "warm", &[]);
    cycle(test, "warm", &["--network", "none"]);
}

/// The whole life of a container.
fn cycle(test: &TestEnvironment, name: &str, flags: &[&str]) {
    let own = ["create", "--name", name, "-v", "/scratch"];
    printed(test, &[&own[..], flags, &["busybox", "sleep", "1000"]].concat());
    printed(test, &["start", name]);
    assert_eq!(printed(test, &["exec", name, "echo", "here"]), "here\n");
    printed(test, &["stop", "-t", "0", name]);
    printed(test, &["rm", "-v", name]);
}

#[test]
fn one_life_after_the_other() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let (count, alone) = wanted("RBUILD_TEST_CYCLES", CYCLES);
    detached(&test, "witness", &["sleep", "100000"]);
    leaves_nothing(&test, &format!("{count} lives of containers"), alone, || {
        let next = AtomicUsize::new(0);
        let work = |worker: usize| {
            let name = format!("cycle-{worker}");
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    number if number >= count => break,
                    // One in eight also has an address, rules for a port and a name server.
                    number if number % 8 == 0 => {
                        cycle(&test, &name, &["-p", "127.0.0.1::80"]);
                        printed(&test, &["exec", "witness", "true"]);
                    }
                    _ => cycle(&test, &name, &["--network", "none"]),
                }
            }
        };
        thread::scope(|scope| (0..WORKERS).for_each(|worker| drop(scope.spawn(move || work(worker)))));
    });
    printed(&test, &["rm", "-f", "witness"]);
}

#[test]
fn many_containers_at_once() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let (count, alone) = wanted("RBUILD_TEST_TOGETHER", TOGETHER);
    detached(&test, "witness", &["sleep", "100000"]);
    leaves_nothing(&test, &format!("{count} containers at once"), alone, || {
        let names: Vec<String> = (0..count).map(|number| format!("one-{number}")).collect();
        let each = |work: &(dyn Fn(&str) + Sync)| {
            thread::scope(|scope| names.iter().for_each(|name| drop(scope.spawn(move || work(name)))));
        };
        each(&|name| drop(printed(&test, &["run", "-d", "--name", name, "busybox", "sleep", "1000"])));
        assert_eq!(printed(&test, &["ps", "-q"]).lines().count(), count + 1);
        each(&|name| assert_eq!(printed(&test, &["exec", name, "echo", name]), format!("{name}\n")));
        let all = names.iter().map(String::as_str);
        rbuild(&test, &["rm", "-f"].into_iter().chain(all).collect::<Vec<_>>()).succeeds();
    });
    printed(&test, &["rm", "-f", "witness"]);
}
