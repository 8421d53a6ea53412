//! The base image: the installed static busybox with all its applets, as a tar.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tar::{Builder, EntryType, Header};

/// Where `scripts/test.sh` has busybox installed.
const BUSYBOX: &str = "/bin/busybox";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const DIRECTORIES: [(&str, u32); 9] = [
    ("bin/", 0o755),
    ("dev/", 0o755),
    ("etc/", 0o755),
    ("proc/", 0o755),
    ("root/", 0o700),
    ("sys/", 0o755),
    ("tmp/", 0o1777),
    ("usr/", 0o755),
    ("var/", 0o755),
];

/// The tar, made once in this process; why there is none.
pub(super) fn tar() -> Result<&'static [u8], String> {
    static TAR: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    TAR.get_or_init(make).as_deref().map_err(Clone::clone)
}

fn make() -> Result<Vec<u8>, String> {
    let busybox = fs::read(BUSYBOX).map_err(|error| format!("no {BUSYBOX}: {error}"))?;
    // A dynamic program names its interpreter right after its headers.
    if busybox[..4096].windows(3).any(|window| window == b"/ld") {
        return Err(format!("{BUSYBOX} is not static"));
    }
    let mut tar = Builder::new(Vec::new());
    for (path, mode) in DIRECTORIES {
        tar.append_data(&mut header(EntryType::Directory, mode, 0), path, &[][..]).unwrap();
    }
    file(&mut tar, "etc/passwd", 0o644, PASSWD.as_bytes());
    file(&mut tar, "etc/group", 0o644, GROUP.as_bytes());
    file(&mut tar, "bin/busybox", 0o755, &busybox);
    for applet in applets().lines().filter(|applet| *applet != "busybox") {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, Path::new("bin").join(applet), "busybox").unwrap();
    }
    Ok(tar.into_inner().unwrap())
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    tar.append_data(&mut header(EntryType::Regular, mode, content.len()), path, content).unwrap();
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

#[expect(clippy::disallowed_methods, reason = "busybox alone knows its applets")]
fn applets() -> String {
    let output = std::process::Command::new(BUSYBOX).arg("--list").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
