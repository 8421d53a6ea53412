//! Attempts to get out of a build step or a container, written as an attacker would: each is refused, as root, in a user
//! namespace of root's, and rootless. An attempt that succeeds is a hole, and stays here as the test of what closed it.

mod attempts;
mod machine;
mod paths;
mod sandbox;
mod shown;

use sandbox::Sandbox;

use crate::common::is_root;

#[test]
fn a_step_stays_in_its_sandbox() {
    let Some(sandbox) = Sandbox::new(&[]) else { return };
    sandbox.judge(&sandbox.step());
}

#[test]
fn a_container_stays_in_its_sandbox() {
    let Some(sandbox) = Sandbox::new(&[]) else { return };
    sandbox.judge(&sandbox.container());
}

#[test]
fn a_user_namespace_of_root_s_is_no_way_out() {
    if !is_root("a user namespace of root's") {
        return;
    }
    let Some(sandbox) = Sandbox::new(&["--isolation", "user"]) else { return };
    sandbox.judge(&sandbox.step());
    sandbox.judge(&sandbox.container());
}
