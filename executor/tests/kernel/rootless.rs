//! The same cases without root: this program runs itself again as other users.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::fixture::Tally;

/// Made where no user has ranges of ids, and removed again.
const TEST_USER: &str = "rbuild-kernel-test";
/// A user of every machine, without ranges.
const NOBODY: (u32, u32) = (65_534, 65_534);

pub(crate) fn as_user_with_one_id(tally: &mut Tally) {
    match is_root() {
        true => run_as("nobody", NOBODY, "--inside", tally),
        false => tally.skip("rootless with one id", "needs root, to become another user"),
    }
}

pub(crate) fn as_user_with_ranges(tally: &mut Tally) {
    if !is_root() {
        return tally.skip("rootless with ranges of ids", "needs root, to become another user");
    }
    run_as_user_with_ranges("--inside", tally);
}

/// Runs this program once more, as a user with ranges of ids.
pub(crate) fn run_as_user_with_ranges(argument: &str, tally: &mut Tally) {
    match TestUser::find() {
        Ok(user) => run_as(&user.name, (user.uid, user.gid), argument, tally),
        Err(reason) => tally.skip("rootless with ranges of ids", &reason),
    }
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root() && !in_user_namespace()
}

#[expect(clippy::disallowed_methods, reason = "runs this program as another user")]
fn run_as(name: &str, (uid, gid): (u32, u32), argument: &str, tally: &mut Tally) {
    println!("\nas {name}:");
    let output = Command::new("/proc/self/exe").arg(argument).uid(uid).gid(gid).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run as {name}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    match text.lines().next_back().and_then(parse_tally) {
        Some([passed, failed, skipped]) => {
            tally.passed += passed;
            tally.failed += failed;
            tally.skipped += skipped;
        }
        None => tally.failed += 1,
    }
}

/// `N passed, M failed, K skipped`
fn parse_tally(line: &str) -> Option<[u32; 3]> {
    let counts: Vec<u32> = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
    counts.try_into().ok()
}

struct TestUser {
    name: String,
    uid: u32,
    gid: u32,
    made: bool,
}

impl TestUser {
    fn find() -> Result<Self, String> {
        let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        let names = ranges.lines().filter_map(|line| line.split(':').next());
        if let Some(user) = names.filter_map(|name| Self::named(name, false)).find(|user| user.uid != 0) {
            return Ok(user);
        }
        run("useradd", &["--no-create-home", TEST_USER])?;
        Self::named(TEST_USER, true).ok_or_else(|| "`useradd` made no user".to_owned())
    }

    fn named(name: &str, made: bool) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), made })
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        if self.made
            && let Err(reason) = run("userdel", &[TEST_USER])
        {
            println!("{reason}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "users are made by the system's own programs")]
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("cannot run `{program}`: {error}")),
    }
}

fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}
