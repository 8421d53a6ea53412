//! Owners by name: looked up in the `/etc/passwd` and `/etc/group` of a tree.

use rbuild_cache::root_dir::RootDir;
use rbuild_executor::user::{Error as UserError, USER_FILE_SIZE_BYTES_MAX, UserDatabase};
use rbuild_llb::{ChownId, Owner};
use rustix::io::Errno;

use super::attributes::Ids;
use super::run::Run;
use super::{CopySource, FileError, Trees, Warning};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The numbers of an owner.
///
/// A user by number is the group too, a user by name brings the group that `/etc/passwd` says; a group alone leaves the
/// user 0. Names that are not found are warnings: the user is then 0, and the group stays what it was.
pub(super) fn resolve(run: &Run<'_>, owner: &Owner, trees: Trees<'_, '_>) -> Result<Ids, FileError> {
    let mut ids = match &owner.user {
        None => Ids::default(),
        Some(ChownId::Id(id)) => Ids { uid: *id, gid: *id },
        Some(ChownId::Name { name, lookup }) => user(run, name, trees(*lookup))?,
    };
    match &owner.group {
        None => {}
        Some(ChownId::Id(id)) => ids.gid = *id,
        Some(ChownId::Name { name, lookup }) => ids.gid = group(run, name, trees(*lookup), ids.gid)?,
    }
    Ok(ids)
}

fn user(run: &Run<'_>, name: &str, tree: Option<CopySource<'_>>) -> Result<Ids, FileError> {
    match database(tree, PASSWD)?.resolve(name) {
        Ok(found) => Ok(Ids { uid: found.uid, gid: found.gid }),
        Err(UserError::UnknownUser(name)) => {
            run.warn(Warning::UnknownUser { name });
            Ok(Ids::default())
        }
        Err(error) => Err(FileError::Owner(error)),
    }
}

fn group(run: &Run<'_>, name: &str, tree: Option<CopySource<'_>>, before: u32) -> Result<u32, FileError> {
    match database(tree, GROUP)?.resolve(&format!("0:{name}")) {
        Ok(found) => Ok(found.gid),
        Err(UserError::UnknownGroup(name)) => {
            run.warn(Warning::UnknownGroup { name, used: before });
            Ok(before)
        }
        Err(error) => Err(FileError::Owner(error)),
    }
}

/// What one of the two files of a tree says. No tree and no file are an empty database.
fn database(tree: Option<CopySource<'_>>, file: &'static str) -> Result<UserDatabase, FileError> {
    let bytes = tree.map(|tree| contents(tree.root, file)).transpose()?.unwrap_or_default();
    let (passwd, group) = if file == PASSWD { (bytes, Vec::new()) } else { (Vec::new(), bytes) };
    UserDatabase::parse(&passwd, &group).map_err(FileError::Owner)
}

fn contents(root: &RootDir, file: &'static str) -> Result<Vec<u8>, FileError> {
    match root.read(file, USER_FILE_SIZE_BYTES_MAX) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => match error.errno() {
            Some(Errno::IO | Errno::ACCESS) => Err(error.into()),
            // A directory, a device, or larger than anybody's list of users.
            _ => Err(FileError::Owner(UserError::BadFile(file.to_owned()))),
        },
    }
}

/// The owner of what is made rather than copied: root, unless the action says otherwise.
pub(super) fn of_new(run: &Run<'_>, owner: Option<&Owner>, trees: Trees<'_, '_>) -> Result<Ids, FileError> {
    owner.map_or(Ok(Ids::default()), |owner| resolve(run, owner, trees))
}
