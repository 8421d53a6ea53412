//! What `scripts/conformance.sh` and a person who adds a case set in the environment.

/// The command that is `docker`, for a shell: `RBUILD_CONFORMANCE_DOCKER`.
pub(super) fn docker() -> Option<String> {
    variable("RBUILD_CONFORMANCE_DOCKER")
}

/// Whether what is found is written into the cases: `RBUILD_CONFORMANCE_UPDATE=1`.
pub(super) fn update() -> bool {
    variable("RBUILD_CONFORMANCE_UPDATE").is_some_and(|value| value == "1")
}

/// Which cases to run, by a part of their names: `RBUILD_CONFORMANCE_CASE`.
pub(super) fn selects(name: &str) -> bool {
    variable("RBUILD_CONFORMANCE_CASE").is_none_or(|part| name.contains(&part))
}

#[expect(clippy::disallowed_methods, reason = "the switches of the conformance tests")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
