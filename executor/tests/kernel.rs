//! Kernel tier: processes in real containers. Needs root, or user namespaces.
//!
//! Without a test harness, because an init is this very program executed again, and because no thread may exist when it
//! moves into a user namespace. It speaks enough of the harness's language for `cargo nextest`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "it is a test, though not under the test attribute"
)]

mod kernel {
    pub(crate) mod cases;
    pub(crate) mod files;
    pub(crate) mod fixture;
    pub(crate) mod isolation;
    pub(crate) mod join;
    pub(crate) mod lifecycle;
    pub(crate) mod limits;
    pub(crate) mod networks;
    pub(crate) mod rootless;
    pub(crate) mod users;
}

use std::process::ExitCode;

use kernel::fixture::{Fixture, Tally};

type Test = (&'static str, fn(&mut Tally));

const TESTS: [Test; 4] = [
    ("kernel_networks", kernel::networks::all),
    ("kernel_as_myself", all_cases),
    ("kernel_as_user_with_one_id", kernel::rootless::as_user_with_one_id),
    ("kernel_as_user_with_ranges", kernel::rootless::as_user_with_ranges),
];

fn main() -> ExitCode {
    rbuild_executor::init_hook();
    kernel::cases::victim();
    kernel::networks::hold();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mut tally = Tally::default();
    if has("--inside") {
        all_cases(&mut tally);
        return tally.finish();
    }
    if has("--networks") {
        kernel::networks::as_user(&mut tally);
        return tally.finish();
    }
    if has("--list") {
        let none_is_ignored = if has("--ignored") { &[][..] } else { &TESTS };
        none_is_ignored.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    // The last of them may move this process into a user namespace, so it comes after those that need root.
    for (name, test) in TESTS.iter().rev() {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            println!("\n{name}");
            test(&mut tally);
        }
    }
    tally.finish()
}

/// Every case, as whoever this process is: root, or root of a user namespace from here on.
fn all_cases(tally: &mut Tally) {
    let privilege = match rbuild_executor::rootless::enter(rbuild_executor::rootless::Isolation::Auto) {
        Ok(privilege) => privilege,
        Err(error) => return tally.skip("the kernel tier", &format!("{error}: {error:?}")),
    };
    println!("as {privilege:?}");
    if let Err(error) = own_mounts() {
        return tally.skip("the kernel tier", &format!("no mount namespace of its own: {error}"));
    }
    match Fixture::new(privilege) {
        Ok(fixture) => kernel::cases::run(&fixture, tally),
        Err(reason) => tally.skip("the kernel tier", &reason),
    }
}

/// A mount namespace that nothing else on the machine mounts into, so that mounts can be counted.
fn own_mounts() -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}
