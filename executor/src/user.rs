//! Who a process runs as: `USER`, `--user` and `--chown` looked up in a root file system's own files.
//!
//! Pure: the caller reads `/etc/passwd` and `/etc/group` inside the root and passes their bytes. Broken lines are
//! skipped, as every reader of these files does.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest `/etc/passwd` or `/etc/group` that is read; BuildKit's limit.
pub const USER_FILE_SIZE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// The highest id; Linux keeps -1 for "unchanged", and runc refuses all that is negative as 32 bits.
const ID_MAX: u32 = i32::MAX as u32;

/// Why a user could not be found.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Error {
    /// The name is not in `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// The name is not in `/etc/group`.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A number no id can have.
    #[error("`{0}` is out of range: ids go from 0 to 2147483647")]
    OutOfRange(String),
    /// A file larger than [`USER_FILE_SIZE_BYTES_MAX`], or not a regular file.
    #[error("`{0}` is not a regular file of at most 10 MiB")]
    BadFile(String),
}

/// A user as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIds {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// The supplementary groups, without the primary one.
    pub additional: Vec<u32>,
    /// The home directory; `/` for a user without an entry.
    pub home: String,
}

/// The owner of copied files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// The users and groups of one root file system.
#[derive(Debug, Clone, Default)]
pub struct UserDatabase {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug, Clone)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl UserDatabase {
    /// Reads the bytes of `/etc/passwd` and `/etc/group`; a missing file is empty.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`] when one is larger than [`USER_FILE_SIZE_BYTES_MAX`].
    pub fn parse(passwd: &[u8], group: &[u8]) -> Result<Self, Error> {
        for (path, bytes) in [("/etc/passwd", passwd), ("/etc/group", group)] {
            if bytes.len() as u64 > USER_FILE_SIZE_BYTES_MAX {
                return Err(Error::BadFile(path.to_owned()));
            }
        }
        Ok(Self {
            users: lines(passwd).filter_map(|line| parse_user(&line)).collect(),
            groups: lines(group).filter_map(|line| parse_group(&line)).collect(),
        })
    }

    /// Finds whom a process runs as from `name|uid[:group|gid]`; empty is user 0.
    ///
    /// A number need not be in the files: its group is then 0 and its home `/`. A given group leaves no supplementary
    /// ones.
    ///
    /// # Errors
    ///
    /// A name that is not in the files, or a number out of range.
    pub fn resolve(&self, spec: &str) -> Result<UserIds, Error> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let number = parse_id(user)?;
        let entry = match number {
            _ if user.is_empty() => self.by_uid(0),
            Some(uid) => self.by_uid(uid),
            None => self.users.iter().find(|entry| entry.name == user),
        };
        let mut ids = match (entry, number) {
            (Some(entry), _) => {
                UserIds { uid: entry.uid, gid: entry.gid, additional: Vec::new(), home: entry.home.clone() }
            }
            (None, None) if !user.is_empty() => return Err(Error::UnknownUser(user.to_owned())),
            (None, uid) => {
                UserIds { uid: uid.unwrap_or(0), gid: 0, additional: Vec::new(), home: "/".to_owned() }
            }
        };
        if !group.is_empty() {
            ids.gid = self.group_id(group)?.ok_or_else(|| Error::UnknownGroup(group.to_owned()))?;
        } else if let Some(entry) = entry {
            ids.additional = self.groups_of(&entry.name, ids.gid);
        }
        Ok(ids)
    }

    /// Adds further groups, by name or number, to those of a user.
    ///
    /// # Errors
    ///
    /// As for [`resolve`](Self::resolve).
    pub fn join(&self, ids: &mut UserIds, groups: &[String]) -> Result<(), Error> {
        for group in groups {
            let gid = self.group_id(group)?.ok_or_else(|| Error::UnknownGroup(group.clone()))?;
            if gid != ids.gid && !ids.additional.contains(&gid) {
                ids.additional.push(gid);
            }
        }
        Ok(())
    }

    /// Finds the owner of `COPY --chown=SPEC`.
    ///
    /// Its rules are BuildKit's, and differ from a process's: a bare number is the group too, an unknown user is 0, an
    /// unknown group leaves the group as it was.
    ///
    /// # Errors
    ///
    /// A number out of range.
    pub fn resolve_owner(&self, spec: &str) -> Result<Owner, Error> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let mut owner = match parse_id(user)? {
            Some(uid) => Owner { uid, gid: uid },
            None => self
                .users
                .iter()
                .find(|entry| entry.name == user)
                .map_or(Owner::default(), |entry| Owner { uid: entry.uid, gid: entry.gid }),
        };
        if !group.is_empty()
            && let Some(gid) = self.group_id(group)?
        {
            owner.gid = gid;
        }
        Ok(owner)
    }

    fn by_uid(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|entry| entry.uid == uid)
    }

    /// A number is itself, whether or not a group has it.
    fn group_id(&self, group: &str) -> Result<Option<u32>, Error> {
        let named = || self.groups.iter().find(|entry| entry.name == group).map(|entry| entry.gid);
        Ok(parse_id(group)?.or_else(named))
    }

    fn groups_of(&self, user: &str, primary: u32) -> Vec<u32> {
        let mut gids = Vec::new();
        for group in self.groups.iter().filter(|group| group.members.iter().any(|member| member == user)) {
            if group.gid != primary && !gids.contains(&group.gid) {
                gids.push(group.gid);
            }
        }
        gids
    }
}

/// `None` for a name; an error for a number that no id can be.
fn parse_id(text: &str) -> Result<Option<u32>, Error> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(Error::OutOfRange(text.to_owned())),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    bytes
        .split(|&byte| byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `name:password:uid:gid:comment:home:shell`
fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or("").to_owned();
    Some(User { name, uid, gid, home })
}

/// `name:password:gid:member,member`
fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or("").split(',').map(str::to_owned).collect();
    Some(Group { name, gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# people\nroot:x:0:0:root:/root:/bin/sh\nu1:x:1234:2345::/home/u1:/bin/sh\n\
        broken line\n77:x:5:6:a name of digits:/seven:\nnohome:x:8:9\n";
    const GROUP: &[u8] =
        b"root:x:0:\nadm:x:4:root,u1\ng1:x:2345:u1\ng2:x:3456:\ndup:x:4:u1\nwheel:x:10:u1,other\nbad:x:y:\n";

    fn database() -> UserDatabase {
        UserDatabase::parse(PASSWD, GROUP).unwrap()
    }

    #[test]
    fn users_resolve_as_runc_resolves_them() {
        let ids = |uid, gid, additional: &[u32], home: &str| {
            Ok(UserIds { uid, gid, additional: additional.to_vec(), home: home.to_owned() })
        };
        let cases = [
            ("", ids(0, 0, &[4], "/root")),
            ("root", ids(0, 0, &[4], "/root")),
            ("0", ids(0, 0, &[4], "/root")),
            (":g2", ids(0, 3456, &[], "/root")),
            ("u1", ids(1234, 2345, &[4, 10], "/home/u1")),
            ("1234", ids(1234, 2345, &[4, 10], "/home/u1")),
            ("u1:", ids(1234, 2345, &[4, 10], "/home/u1")),
            ("u1:g2", ids(1234, 3456, &[], "/home/u1")),
            ("u1:99", ids(1234, 99, &[], "/home/u1")),
            ("12:34", ids(12, 34, &[], "/")),
            ("77", ids(77, 0, &[], "/")),
            ("nohome", ids(8, 9, &[], "")),
            ("2147483647", ids(2_147_483_647, 0, &[], "/")),
            ("2147483648", Err(Error::OutOfRange("2147483648".to_owned()))),
            ("-1", Err(Error::OutOfRange("-1".to_owned()))),
            ("nosuch", Err(Error::UnknownUser("nosuch".to_owned()))),
            ("u1:nosuch", Err(Error::UnknownGroup("nosuch".to_owned()))),
            ("broken line", Err(Error::UnknownUser("broken line".to_owned()))),
        ];
        for (spec, expected) in cases {
            assert_eq!(database().resolve(spec), expected, "{spec}");
        }
    }

    #[test]
    fn owners_resolve_as_buildkit_resolves_them() {
        let cases = [
            ("77", (77, 77)),
            ("12:34", (12, 34)),
            ("u1", (1234, 2345)),
            ("u1:g2", (1234, 3456)),
            (":g2", (0, 3456)),
            ("nosuch", (0, 0)),
            ("77:nosuchg", (77, 77)),
            ("nosuch:g1", (0, 2345)),
        ];
        for (spec, (uid, gid)) in cases {
            assert_eq!(database().resolve_owner(spec), Ok(Owner { uid, gid }), "{spec}");
        }
        assert!(database().resolve_owner("99999999999").is_err());
    }

    #[test]
    fn without_files_only_names_fail() {
        let empty = UserDatabase::default();
        assert_eq!(empty.resolve("").unwrap().uid, 0);
        assert_eq!(
            empty.resolve("u1").unwrap_err().to_string(),
            "unable to find user u1: no matching entries in passwd file"
        );
        assert_eq!(
            empty.resolve("1:staff").unwrap_err().to_string(),
            "unable to find group staff: no matching entries in group file"
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let limit = usize::try_from(USER_FILE_SIZE_BYTES_MAX).unwrap();
        let large = vec![b'\n'; limit + 1];
        assert!(UserDatabase::parse(&large[..limit], b"").is_ok());
        assert_eq!(UserDatabase::parse(&large, b"").unwrap_err(), Error::BadFile("/etc/passwd".to_owned()));
        assert_eq!(UserDatabase::parse(b"", &large).unwrap_err(), Error::BadFile("/etc/group".to_owned()));
    }
}
