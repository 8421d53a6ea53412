//! What only root may do. Elsewhere these tests say so, and fail where they are required.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};

use rbuild_llb::{ChownId, FileAction, FileInput, InputIndex, MkdirAction, Owner};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};

use super::super::{FileError, SourceKind, Warning};
use super::{Bed, is_root};

const CAPABILITY: &str = "security.capability";
/// Version 2, `cap_net_raw+ep`.
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[expect(clippy::disallowed_methods, reason = "the switch that says whether a skip is a failure")]
fn root_is_missing() -> bool {
    let required = std::env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(is_root() || !required, "root is required, and this is not root");
    if !is_root() {
        eprintln!("SKIPPED: needs root");
    }
    !is_root()
}

fn ids(path: &std::path::Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn named(name: &str) -> ChownId {
    ChownId::Name { name: name.into(), lookup: FileInput::Input(InputIndex(0)) }
}

/// Gives the destination users and groups.
fn with_users(bed: Bed) -> Bed {
    let bed = bed.with_dest(&["etc/"]);
    fs::write(bed.dest("etc/passwd"), "root:x:0:0::/root:\napp:x:1234:2345::/:\n").unwrap();
    fs::write(bed.dest("etc/group"), "staff:x:3456:\n").unwrap();
    bed
}

#[test]
fn kernel_a_context_belongs_to_root_and_a_tree_keeps_its_owners() {
    if root_is_missing() {
        return;
    }
    for (kind, expected) in [(SourceKind::Context, (0, 0)), (SourceKind::Tree, (7, 8))] {
        let bed = Bed::new(&["d/s/f=1:4755", "d/s/l->f"]).of_kind(kind);
        for path in ["d", "d/s", "d/s/f"] {
            chown(bed.source(path), Some(7), Some(8)).unwrap();
        }
        std::os::unix::fs::lchown(bed.source("d/s/l"), Some(7), Some(8)).unwrap();
        fs::set_permissions(bed.source("d/s/f"), std::os::unix::fs::PermissionsExt::from_mode(0o4755))
            .unwrap();
        bed.copy("/d", "/x").unwrap();
        assert_eq!(ids(&bed.dest("x")), (0, 0));
        for path in ["x/s", "x/s/f", "x/s/l"] {
            assert_eq!(ids(&bed.dest(path)), expected, "{kind:?} {path}");
        }
        assert_eq!(fs::metadata(bed.dest("x/s/f")).unwrap().mode() & 0o7777, 0o4755);
    }
}

#[test]
fn kernel_chown_takes_names_of_the_destination_and_numbers() {
    if root_is_missing() {
        return;
    }
    let (id, name) = (|id| Some(ChownId::Id(id)), |name| Some(named(name)));
    let unknown_user = Warning::UnknownUser { name: "nosuch".into() };
    let unknown_group = |used| Warning::UnknownGroup { name: "nosuch".into(), used };
    let cases = [
        (name("app"), None, (1234, 2345), vec![]),
        (name("app"), name("staff"), (1234, 3456), vec![]),
        (name("app"), id(5), (1234, 5), vec![]),
        (id(77), None, (77, 77), vec![]),
        (id(77), name("staff"), (77, 3456), vec![]),
        (None, name("staff"), (0, 3456), vec![]),
        (name("nosuch"), None, (0, 0), vec![unknown_user]),
        (id(77), name("nosuch"), (77, 77), vec![unknown_group(77)]),
        (name("app"), name("nosuch"), (1234, 2345), vec![unknown_group(2345)]),
    ];
    for (user, group, expected, warnings) in cases {
        let bed = with_users(Bed::new(&["d/s/f=1", "d/s/l->f"]).of_kind(SourceKind::Tree));
        let owner = Owner { user, group };
        let stats = bed.copy_with("/d", "/new/x", |action| action.owner = Some(owner.clone())).unwrap();
        for path in ["new", "new/x", "new/x/s", "new/x/s/f", "new/x/s/l"] {
            assert_eq!(ids(&bed.dest(path)), expected, "{owner:?} {path}");
        }
        assert_eq!(stats.warnings, warnings, "{owner:?}");
    }
}

#[test]
fn kernel_names_are_unknown_in_a_tree_without_users_and_a_strange_list_is_an_error() {
    if root_is_missing() {
        return;
    }
    let owner = Owner { user: Some(named("app")), group: None };
    let bed = Bed::new(&["f=1"]);
    let stats = bed.copy_with("/f", "/f", |action| action.owner = Some(owner.clone())).unwrap();
    assert_eq!(stats.warnings, [Warning::UnknownUser { name: "app".into() }]);
    let strange = Bed::new(&["f=1"]).with_dest(&["etc/passwd/"]);
    let error = strange.copy_with("/f", "/f", |action| action.owner = Some(owner.clone())).unwrap_err();
    assert!(matches!(error, FileError::Owner(_)), "{error}");
}

#[test]
fn kernel_workdir_belongs_to_the_user_with_all_that_is_made() {
    if root_is_missing() {
        return;
    }
    let bed = with_users(Bed::new(&[])).with_dest(&["w/"]);
    let owner = Some(Owner { user: Some(named("app")), group: None });
    let action = MkdirAction {
        path: "/w/new/deep".into(),
        mode: 0o755,
        make_parents: true,
        owner,
        timestamp_ns: None,
    };
    bed.apply(&FileAction::Mkdir(action)).unwrap();
    assert_eq!(ids(&bed.dest("w")), (0, 0));
    assert_eq!(ids(&bed.dest("w/new")), (1234, 2345));
    assert_eq!(ids(&bed.dest("w/new/deep")), (1234, 2345));
}

#[test]
fn kernel_devices_are_made_again_as_what_they_were() {
    if root_is_missing() {
        return;
    }
    let bed = Bed::new(&["d/"]).of_kind(SourceKind::Tree);
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, bed.source("d/c"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    mknodat(CWD, bed.source("d/b"), FileType::BlockDevice, mode, makedev(7, 9)).unwrap();
    bed.copy("/d", "/").unwrap();
    let (char, block) = (fs::metadata(bed.dest("c")).unwrap(), fs::metadata(bed.dest("b")).unwrap());
    assert!(char.file_type().is_char_device() && block.file_type().is_block_device());
    assert_eq!((char.rdev(), block.rdev()), (makedev(1, 3), makedev(7, 9)));
    assert_eq!((char.mode() & 0o7777, block.mode() & 0o7777), (0o640, 0o640));
}

#[test]
fn kernel_capabilities_come_from_trees_only_and_user_attributes_from_nowhere() {
    if root_is_missing() {
        return;
    }
    for (kind, kept) in [(SourceKind::Tree, true), (SourceKind::Context, false)] {
        let bed = Bed::new(&["d/f=1:755"]).of_kind(kind);
        let source = bed.source("d/f");
        // Not every file system of a temporary directory takes these.
        if lsetxattr(&source, CAPABILITY, &NET_RAW, XattrFlags::empty()).is_err() {
            eprintln!("SKIPPED: no file capabilities on this file system");
            return;
        }
        let _ = lsetxattr(&source, "user.note", b"x", XattrFlags::empty()).is_ok();
        bed.copy("/d", "/x").unwrap();
        let mut value = [0; 64];
        let copied = lgetxattr(bed.dest("x/f"), CAPABILITY, &mut value);
        assert_eq!(copied.map_or(&[][..], |size| &value[..size]), if kept { &NET_RAW[..] } else { &[] });
        assert!(lgetxattr(bed.dest("x/f"), "user.note", &mut value).is_err());
    }
}

#[test]
fn kernel_a_directory_that_hands_down_its_group_does_not_reach_the_copies() {
    if root_is_missing() {
        return;
    }
    let bed = Bed::new(&["d/s/f=1", "d/s/l->f"]).with_dest(&["x/"]);
    chown(bed.dest("x"), Some(0), Some(99)).unwrap();
    fs::set_permissions(bed.dest("x"), std::os::unix::fs::PermissionsExt::from_mode(0o2775)).unwrap();
    bed.copy("/d", "/x").unwrap();
    for path in ["x/s", "x/s/f", "x/s/l"] {
        assert_eq!(ids(&bed.dest(path)), (0, 0), "{path}");
    }
    assert_eq!(fs::metadata(bed.dest("x/s")).unwrap().mode() & 0o7777, 0o755);
}
