//! All cases, in order.

use super::fixture::{Fixture, Tally};
use super::{files, isolation, join, lifecycle, limits, users};

macro_rules! run_all {
    ($fixture:expr, $tally:expr, $($module:ident: $($case:ident)*;)*) => {
        $($($tally.case(concat!(stringify!($module), "::", stringify!($case)), || $module::$case($fixture));)*)*
    };
}

pub(crate) fn run(fixture: &Fixture, tally: &mut Tally) {
    let before = mounts();
    run_all! { fixture, tally,
        lifecycle: exit_codes signals output_is_whole_and_in_order stdin_is_empty environment_and_directory
            missing_programs programs_that_cannot_run scripts cancellation killing_and_dropping
            terminal the_parents_death many_at_once inherited_files;
        isolation: nothing_of_the_host only_three_descriptors first_process_of_its_own_namespace capabilities system_calls confinement_as_asked_for
            masked_and_protected network_without_interfaces host_name insecure limits limits_that_cannot_be signals_are_reset;
        files: devices hosts_and_resolv_conf binds_and_tmpfs links_cannot_lead_out missing_targets_come_and_go
            order_of_mounts readonly_root errors_name_the_step detached_root flags
            files_in_memory files_in_memory_have_owners;
        limits: processes_are_counted memory_is_bounded groups_are_found_by_name leftovers_are_removed
            impossible_limits_are_named devices_are_shut;
        join: joined_processes_see_the_container joined_processes_end_with_the_container
            joined_processes_have_terminals;
        users: names_and_numbers unknown_names standard_output_can_be_reopened broken_user_files;
    }
    tally.case("nothing_is_left", || assert_eq!(mounts(), before));
}

fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

/// Plays the parent that is killed; see [`lifecycle::the_parents_death`].
pub(crate) fn victim() {
    if std::env::args().nth(1).as_deref() == Some("--victim") {
        lifecycle::victim();
    }
}
