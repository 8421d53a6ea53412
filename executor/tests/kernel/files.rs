//! What a process finds in its file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rbuild_executor::{Access, Error, Mount, MountFlags, MountSource, Root, TmpfsOptions};

use super::fixture::{Fixture, succeeded};

pub(crate) fn devices(fixture: &Fixture) {
    let list = fixture.sh("ls /dev");
    let names: Vec<&str> = list.lines().collect();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        fixture.sh("echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c"),
        "3\n3\n"
    );
    assert_eq!(fixture.sh("stat -c '%a %t:%T' /dev/null /dev/tty"), "666 1:3\n666 5:0\n");
    assert_eq!(fixture.sh("echo fine >/dev/shm/x && cat /dev/shm/x; stat -c %a /dev/shm"), "fine\n1777\n");
    let mut container = fixture.shell("grep -E ' /dev(/shm)? ' /proc/self/mounts");
    container.shm_size_bytes = 1 << 20;
    let mounts = succeeded(fixture.run(container));
    assert!(mounts.contains("size=65536k") && mounts.contains("size=1024k"), "{mounts}");
}

pub(crate) fn hosts_and_resolv_conf(fixture: &Fixture) {
    let mut container = fixture.shell("cat /etc/hosts /etc/resolv.conf");
    container.extra_hosts = vec![("db".to_owned(), "10.0.0.2".to_owned())];
    container.dns.servers = vec!["10.0.0.1".parse().unwrap()];
    container.dns.search = vec![".".to_owned()];
    container.dns.options = vec!["rotate".to_owned()];
    assert_eq!(
        succeeded(fixture.run(container)),
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\nnameserver 10.0.0.1\noptions rotate\n"
    );
    let output =
        fixture.run(fixture.shell("echo x >>/etc/hosts; grep /etc/ /proc/self/mounts | cut -d' ' -f4"));
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
    assert!(output.stdout.lines().all(|line| line.starts_with("ro,nosuid,nodev,noexec")), "{output:?}");
    assert_eq!(fs::read_to_string(fixture.root().join("etc/hosts")).unwrap(), "");
}

fn bind(source: &Path, target: &str) -> Mount {
    Mount {
        target: target.into(),
        source: MountSource::Bind(source.to_owned()),
        flags: MountFlags::default(),
    }
}

fn tmpfs(target: &str) -> Mount {
    let source = MountSource::Tmpfs(TmpfsOptions { size_bytes: Some(1 << 20), ..TmpfsOptions::default() });
    Mount { target: target.into(), source, flags: MountFlags::default() }
}

pub(crate) fn binds_and_tmpfs(fixture: &Fixture) {
    let data = fixture.beside("data");
    fs::write(data.join("file"), "content").unwrap();
    let mut container = fixture.shell(
        "cat /mnt/data/file /mnt/alone; echo new >/mnt/data/new; echo x >/mnt/ro/y; stat -c %a /mnt/tmp /home/ada; echo in >/mnt/tmp/in",
    );
    let mut readonly = bind(&data, "/mnt/ro");
    readonly.flags.readonly = true;
    let open = fs::File::open(data.join("file")).unwrap();
    let alone = Mount {
        target: "/mnt/alone".into(),
        source: MountSource::BindOpen(open.into()),
        flags: MountFlags::default(),
    };
    container.mounts = vec![bind(&data, "/mnt/data"), readonly, alone, tmpfs("/mnt/tmp"), tmpfs("/home/ada")];
    let output = fixture.run(container);
    assert_eq!(output.stdout, "contentcontent1777\n755\n");
    assert!(output.stderr.contains("/mnt/ro/y: Read-only file system"), "{output:?}");
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "new\n");
    assert!(!fixture.root().join("mnt").exists(), "mount targets that were made are removed");
}

pub(crate) fn flags(fixture: &Fixture) {
    let mut container = fixture.shell("grep ' /tmp/all ' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1-4");
    let mut mount = tmpfs("/tmp/all");
    mount.flags = MountFlags { readonly: true, nosuid: true, nodev: true, noexec: true };
    container.mounts = vec![mount];
    assert_eq!(succeeded(fixture.run(container)), "ro,nosuid,nodev,noexec\n");
}

pub(crate) fn links_cannot_lead_out(fixture: &Fixture) {
    let (root, outside) = (fixture.root(), fixture.beside("outside"));
    let data = fixture.beside("inside");
    fs::write(data.join("mark"), "").unwrap();
    symlink(&outside, root.join("tmp/absolute")).unwrap();
    symlink("../../../../../../../../../../../../outside", root.join("tmp/relative")).unwrap();
    symlink("/proc/self/root", root.join("tmp/magic")).unwrap();
    let mut container = fixture.shell("ls /tmp/absolute /tmp/relative");
    container.mounts = vec![bind(&data, "/tmp/absolute"), bind(&data, "/tmp/relative/deep/../deep")];
    let output = fixture.run(container);
    assert!(output.stdout.contains("mark") && output.exit.success(), "{output:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!root.join("outside").exists(), "what a dangling link led to is removed again");
    let mut container = fixture.container(&["true"]);
    container.mounts = vec![bind(&data, "/tmp/magic/tmp/x")];
    let error = fixture.try_run(container).unwrap_err();
    assert!(matches!(error, Error::Setup { ref step, .. } if step == "open the mount target"), "{error:?}");
    for name in ["absolute", "relative", "magic"] {
        fs::remove_file(root.join("tmp").join(name)).unwrap();
    }
}

pub(crate) fn missing_targets_come_and_go(fixture: &Fixture) {
    use std::os::unix::fs::MetadataExt as _;
    let root = fixture.root();
    for stub in ["etc/hosts", "etc/resolv.conf"] {
        fs::remove_file(root.join(stub)).unwrap();
    }
    fs::remove_dir(root.join("sys")).unwrap();
    let modified = || {
        let metadata = fs::metadata(root.join("etc")).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let before = modified();
    let mut container = fixture.shell("cat /etc/hosts >/dev/null && test -d /sys/class && echo x >/a/b/full");
    container.mounts = vec![tmpfs("/a/b/c"), tmpfs("/a/empty")];
    succeeded(fixture.run(container));
    assert!(!root.join("etc/hosts").exists() && !root.join("sys").exists());
    assert_eq!(modified(), before);
    assert!(root.join("a/b/full").exists(), "what the process wrote beside a target stays");
    assert!(!root.join("a/b/c").exists() && !root.join("a/empty").exists());
    fs::remove_dir_all(root.join("a")).unwrap();
    // A failed start leaves nothing either.
    fixture.try_run(fixture.container(&["nosuch"])).unwrap_err();
    assert!(!root.join("etc/hosts").exists() && !root.join("sys").exists());
}

pub(crate) fn order_of_mounts(fixture: &Fixture) {
    let data = fixture.beside("order");
    fs::write(data.join("mark"), "").unwrap();
    let mut container = fixture.shell("ls /m/deep");
    container.mounts = vec![bind(&data, "/m/deep/"), tmpfs("/m/./")];
    assert_eq!(succeeded(fixture.run(container)), "mark\n");
}

pub(crate) fn readonly_root(fixture: &Fixture) {
    let mut container = fixture.shell("touch /x; touch /tmp/y && echo fine");
    container.readonly_root = true;
    container.mounts = vec![tmpfs("/tmp")];
    let output = fixture.run(container);
    assert_eq!(output.stdout, "fine\n");
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
}

pub(crate) fn errors_name_the_step(fixture: &Fixture) {
    let mut container = fixture.container(&["true"]);
    container.mounts = vec![bind(Path::new("/no/such/source"), "/tmp/x")];
    let error = fixture.try_run(container).unwrap_err();
    assert_eq!(error.to_string(), "failed to open the source of a mount `/no/such/source`");
    let mut container = fixture.container(&["true"]);
    container.mounts = vec![tmpfs("/bin/busybox/x")];
    let error = fixture.try_run(container).unwrap_err();
    assert_eq!(error.to_string(), "failed to open the mount target `bin/busybox/x`");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("Not a directory"), "{source}");
}

pub(crate) fn detached_root(fixture: &Fixture) {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(rustix::fs::CWD, fixture.root(), flags).unwrap();
    let mut container = fixture.container(&["echo", "attached"]);
    container.root = Root::Detached(mount);
    assert_eq!(succeeded(fixture.run(container)), "attached\n");
}

pub(crate) fn files_in_memory(fixture: &Fixture) {
    let access = |mode| Access { uid: 0, gid: 0, mode };
    let flags = MountFlags { readonly: true, nosuid: true, nodev: true, noexec: true };
    let (listener, socket) = MountSource::memory_socket(access(0o660)).unwrap();
    let file = MountSource::memory_file(b"content", access(0o440)).unwrap();
    let mut container =
        fixture.shell("stat -c '%a %F' /run/file /run/socket; cat /run/file; touch /run/file; rm /run/file");
    container.mounts = vec![
        Mount { target: "/run/file".into(), source: file, flags },
        Mount { target: "/run/socket".into(), source: socket, flags },
    ];
    let output = fixture.run(container);
    assert_eq!(output.stdout, "440 regular file\n660 socket\ncontent");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 1, "{output:?}");
    assert_eq!(output.stderr.matches("busy").count(), 1, "{output:?}");
    assert!(!fixture.root().join("run").exists());
    drop(listener);
}

pub(crate) fn files_in_memory_have_owners(fixture: &Fixture) {
    let source = MountSource::memory_file(b"content", Access { uid: 1234, gid: 2345, mode: 0o400 });
    if !fixture.has_ids() {
        assert!(source.unwrap_err().to_string().contains("make a file in memory"));
        return;
    }
    let mut container = fixture.shell("stat -c '%u %g' /file; cat /file");
    container.process.user = "ada".to_owned();
    container.mounts =
        vec![Mount { target: "/file".into(), source: source.unwrap(), flags: MountFlags::default() }];
    assert_eq!(succeeded(fixture.run(container)), "1234 2345\ncontent");
}
