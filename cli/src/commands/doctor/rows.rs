//! The rows: what each thing found means for rbuild, in words.

use std::path::{Path, PathBuf};

use rbuild_cache::{Area, Snapshot, Store, Trees};
use rbuild_executor::Stubs;
use rbuild_executor::cgroup::{CgroupSupport, Controller, Limits, Refusal, Version};
use rbuild_executor::network::{Missing as Unmet, NetworkSupport, Obstacle};
use rbuild_executor::probe::Probe;
use rbuild_executor::rootless::{Error, Privilege, SingleId};
use rbuild_solver::local::make_stubs;

use super::State::{Less, Missing, Ok as Fine};
use super::{Row, single};
use crate::app::App;
use crate::format::size;

/// As many ids as `useradd` gives to a user, and where it begins to.
const IDS: u64 = 65_536;
const IDS_MIN: u64 = 100_000;
/// A store on less is full soon.
const FREE_BYTES_MIN: u64 = 5_000_000_000;

pub(super) fn kernel(probe: &Probe) -> Row {
    let found = format!("Linux {} ({})", probe.kernel, std::env::consts::ARCH);
    Row::new("kernel", Fine, found, "what it can do is tried below")
}

/// Who rbuild is, and how it becomes root of something.
pub(super) fn user(uid: u32, privilege: &Result<Privilege, Error>) -> Row {
    let privilege = match privilege {
        Ok(privilege) => privilege,
        Err(error) => return no_user_namespace(uid, error),
    };
    match (privilege, single(privilege)) {
        (Privilege::Root { in_user_namespace: false }, _) => {
            Row::new("user", Fine, "root", "steps run as root, with Docker's capabilities")
        }
        (Privilege::Root { in_user_namespace: true }, _) => {
            Row::new("user", Fine, "root of a user namespace", "steps run as that root")
        }
        (Privilege::Chroot { .. }, _) => {
            let effect =
                "isolation `chroot`: builds without namespaces, on the machine's network; no containers";
            Row::new("user", Less, "root without CAP_SYS_ADMIN", effect).remedy(remedy_for_namespaces())
        }
        (_, Some(reason)) => {
            let effect = "a user namespace with one id: all files belong to one user, and a step that gives files to others fails";
            Row::new("user", Less, format!("user {uid}; {reason}"), effect)
                .remedy(remedy_for_single(uid, reason))
        }
        (Privilege::UserNamespace { uids, gids, .. }, None) => {
            let found = format!("user {uid}, with {uids} user and {gids} group ids");
            let effect = match uid {
                0 => {
                    "a user namespace, in which steps run as root without rights outside, and still own root's files"
                }
                _ => "a user namespace, in which steps run as root",
            };
            Row::new("user", Fine, found, effect)
        }
    }
}

fn remedy_for_single(uid: u32, reason: SingleId) -> String {
    match reason {
        SingleId::NoRanges => {
            let files =
                ["/etc/subuid", "/etc/subgid"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
            let first = free_ids_from(&files.concat());
            let range = format!("{first}-{}", first + IDS - 1);
            format!("as root: `usermod --add-subuids {range} --add-subgids {range} $(id -nu {uid})`")
        }
        SingleId::NoHelper => {
            "as root: install newuidmap and newgidmap (Debian: `apt-get install uidmap`)".to_owned()
        }
    }
}

/// Where no user has a range yet, by the lines of `/etc/subuid` and `/etc/subgid`: who shares a range with another user gets at that
/// user's files.
fn free_ids_from(lines: &str) -> u64 {
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).map(str::parse::<u64>);
        fields.next()?.ok()?.checked_add(fields.next()?.ok()?)
    };
    lines.lines().filter_map(end).fold(IDS_MIN, u64::max)
}

fn no_user_namespace(uid: u32, error: &Error) -> Row {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let found = format!("user {uid}; {error}{source}");
    Row::new("user", Missing, found, "nothing: steps need a user namespace, or root")
        .remedy(remedy_for_namespaces())
}

/// The switch that is off.
fn remedy_for_namespaces() -> String {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))
            .is_ok_and(|text| text.trim() == value)
    };
    let switches = [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let off = switches.into_iter().find(|(name, off, _)| is(name, off));
    off.map_or_else(
        || "run it as root, or outside of the container that forbids user namespaces".to_owned(),
        |(name, _, on)| format!("as root: `sysctl -w {name}={on}`"),
    )
}

/// The store: whether steps can have a writable layer on it, and how much room there is.
pub(super) fn store(app: &App) -> Vec<Row> {
    let place = app.root().display().to_string();
    let store = match app.store() {
        Ok(store) => store,
        Err(failure) => {
            return vec![
                Row::new("store", Missing, format!("{place}: {}", failure.message), "nothing")
                    .remedy("`--root DIR` or `RBUILD_ROOT` names another place"),
            ];
        }
    };
    let mut rows = vec![overlay(store, place), trees(store)];
    if let Ok(disk) = store.disk() {
        let found = format!("{} free of {}", size(disk.free_bytes), size(disk.size_bytes));
        let state = if disk.free_bytes < FREE_BYTES_MIN { Less } else { Fine };
        let row = Row::new(
            "disk",
            state,
            found,
            "the cache keeps to a tenth of it, unless `--cache-size` says otherwise",
        );
        rows.push(if state == Less {
            row.remedy("`rbuild prune`, or `--root` on another disk")
        } else {
            row
        });
    }
    rows
}

/// The very mount that a step gets.
fn overlay(store: &Store, place: String) -> Row {
    let tried = make_stubs(&store.area(Area::Stubs), Stubs::STEP)
        .map_err(|error| with_sources(&error))
        .and_then(|stubs| try_mount(store, &stubs).map_err(|error| with_sources(&error)));
    match tried {
        Ok(()) if store.trees() == Trees::Plain => {
            Row::new("overlay", Less, format!("no mounts; copies on {place}"), "each step gets a copy of its whole tree")
        }
        Ok(()) => Row::new("overlay", Fine, format!("works on {place}"), "layers are directories that are joined, never copied"),
        Err(error) => Row::new("overlay", Missing, error, "nothing: steps need an overlay file system")
            .remedy("Linux 6.7 or newer, and a store (`--root`) on ext4, xfs, btrfs or tmpfs, not on an overlay or a network"),
    }
}

/// Whether layers can be trees. A layer that cannot be one is a directory, which nothing but its cost tells.
fn trees(store: &Store) -> Row {
    match store.tree_support() {
        Ok(()) => {
            Row::new("EROFS", Fine, "images can be mounted", "a copy of many files costs what of it is new")
        }
        Err(reason) => Row::new(
            "EROFS",
            Fine,
            reason,
            match store.delta_support() {
                Ok(()) => {
                    "with `[store] layers = \"auto\"` a copy of many files writes what has changed since the last"
                }
                Err(_) => "a copy of many files writes all of them",
            },
        ),
    }
}

fn try_mount(store: &Store, stubs: &Path) -> rbuild_cache::Result<()> {
    store.prepare(&Snapshot::empty())?.mount(Some(stubs)).map(drop)
}

fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// What the kernel has to confine and limit with.
pub(super) fn machine(probe: &Probe, is_root: bool) -> Vec<Row> {
    let seccomp = if probe.seccomp {
        Row::new("seccomp", Fine, "filters", "steps make the system calls of Docker's default profile only")
    } else {
        Row::new("seccomp", Less, "no filters", "system calls are not filtered")
            .remedy("a kernel with CONFIG_SECCOMP_FILTER")
    };
    let landlock = probe.landlock.map_or_else(|| "none".to_owned(), |version| format!("version {version}"));
    let label = match (probe.apparmor, probe.selinux) {
        (true, _) => ("AppArmor", "steps have `docker-default` where that profile is loaded"),
        (_, true) => ("SELinux", "steps have no labels of their own"),
        _ => ("none", "namespaces, capabilities and the filter hold steps"),
    };
    vec![
        cgroups(&probe.cgroups, is_root),
        input_and_output(&probe.cgroups),
        seccomp,
        Row::new("Landlock", Fine, landlock, "holds the steps of isolation `chroot`; not used otherwise"),
        Row::new("labels", Fine, label.0, label.1),
        idmapped(probe.idmapped_mounts),
        emulators(probe),
        device("/dev/fuse", probe.fuse, "only `RUN --security=insecure` sees it"),
    ]
}

fn cgroups(support: &CgroupSupport, is_root: bool) -> Row {
    let name = "control groups";
    if let Some(refusal) = support.refusal() {
        let row = Row::new(name, Less, refusal.to_string(), "no limits: asking for one is a warning");
        return match refusal {
            Refusal::NotDelegated if !is_root => row.remedy(
                "`systemd-run --user --scope -p Delegate=yes rbuild …`, where systemd runs and has version 2",
            ),
            Refusal::NotDelegated | Refusal::ReadOnly => row.remedy(
                "run the container that rbuild is in with `--cgroupns=private` and a writable /sys/fs/cgroup",
            ),
            Refusal::NotMounted => row.remedy("as root: `mount -t cgroup2 none /sys/fs/cgroup`"),
        };
    }
    let controllers = support.controllers();
    let version = match (controllers.iter().any(|(_, one)| *one == Version::V1), controllers.is_empty()) {
        (_, true) => "no controllers",
        (true, false) => "version 1",
        (false, false) => "version 2",
    };
    let names: Vec<&str> = controllers.iter().map(|(controller, _)| controller.name()).collect();
    let missing: Vec<&str> = [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::CpuSet]
        .into_iter()
        .filter(|one| !controllers.iter().any(|(controller, _)| controller == one))
        .map(Controller::name)
        .collect();
    let found = format!("{version}: {}", names.join(" "));
    if missing.is_empty() {
        let swap =
            support.keep(Limits { memory_bytes: Some(1), ..Limits::default() }).0.memory_swap.is_some();
        let effect = if swap { "limits are kept" } else { "limits are kept, but swap is not counted" };
        return Row::new(name, Fine, found, effect);
    }
    Row::new(name, Less, found, format!("no limits of {}", missing.join(", ")))
}

/// Input and output are counted for `stats` and for nothing else: there is no option that limits them.
fn input_and_output(support: &CgroupSupport) -> Row {
    let found = support.controllers().into_iter().find(|(controller, _)| *controller == Controller::Io);
    let name = "io controller";
    match found {
        Some((_, version)) => {
            let found = if version == Version::V1 { "version 1 (blkio)" } else { "version 2" };
            Row::new(name, Fine, found, "counts what containers read and write")
        }
        None => Row::new(name, Less, "none here", "what containers read and write is not counted")
            .remedy("version 2, as root: `echo +io >/sys/fs/cgroup/cgroup.subtree_control`"),
    }
}

/// Only the owner of a file system may show it with other owners, and a user namespace owns none that a store is on.
fn idmapped(has: bool) -> Row {
    let found = if has { "can be made" } else { "not by this user" };
    Row::new(
        "idmapped mounts",
        Fine,
        found,
        "not used: files of layers are stored with the ids that steps see",
    )
}

fn emulators(probe: &Probe) -> Row {
    if probe.emulators.is_empty() {
        return Row::new("emulators", Fine, "none", "steps for other machines do not run")
            .remedy("as root, for other platforms: `apt-get install qemu-user-static binfmt-support`");
    }
    Row::new("emulators", Fine, probe.emulators.join(" "), "steps for these machines run, slowly")
}

fn device(name: &'static str, there: bool, effect: &str) -> Row {
    Row::new(name, Fine, if there { "can be opened" } else { "none for this user" }, effect)
}

/// What rbuild runs, where it is asked for something that needs it.
pub(super) fn programs(directories: &[PathBuf]) -> Vec<Row> {
    let has = |name: &str| directories.iter().any(|directory| is_program(&directory.join(name)));
    let git = if has("git") {
        Row::new("git", Fine, "there", "git sources are fetched with it")
    } else {
        Row::new("git", Less, "not found", "git sources are refused").remedy("as root: `apt-get install git`")
    };
    vec![git]
}

/// The network that a step gets.
pub(super) fn network(app: &App) -> Row {
    let name = "network";
    if app.needs_mounts().is_err() {
        return Row::new(name, Less, "no namespaces", "steps are on the machine's network");
    }
    let networks = app.networks();
    match (networks.support(), networks.obstacle()) {
        (NetworkSupport::Host, Some(Obstacle { table, chain, remedy })) => Row::new(
            name,
            Less,
            format!("bridges; the table `{table}` drops what is forwarded (chain {chain})"),
            "steps have a network of their own, and reach nothing outside",
        )
        .remedy(format!("as root: `{remedy}`")),
        (NetworkSupport::Host, None) => {
            Row::new(name, Fine, "bridges", "steps have a network of their own, on a bridge")
        }
        (NetworkSupport::Relayed, _) => Row::new(
            name,
            Fine,
            "a relay",
            "steps have a network of their own, behind a program of the user's",
        ),
        (NetworkSupport::Lacking(lack), _) => {
            let effect = "steps have none, or with `--allow network.host` the machine's";
            let row = Row::new(name, Less, lack.to_string(), effect);
            match lack.missing {
                Unmet::Nft => row.remedy("as root: `apt-get install nftables`"),
                Unmet::Relay => row.remedy("as root: `apt-get install passt`"),
                Unmet::Tun => row.remedy("as root: `modprobe tun; chmod 0666 /dev/net/tun`"),
                Unmet::Permission | Unmet::Kernel => row,
            }
        }
    }
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ids_are_nobody_else_s() {
        let cases = [
            ("", 100_000),
            ("ada:100000:65536\n", 165_536),
            ("ada:200000:65536\nbob:100000:65536\n", 265_536),
            ("# comment\nbroken:x:1\nlow:1:5\n", 100_000),
        ];
        for (lines, first) in cases {
            assert_eq!(free_ids_from(lines), first, "{lines}");
        }
    }
}
