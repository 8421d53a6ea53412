//! The tests of the command and of the repository: one binary, a module for each subject.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod about;
mod archives;
mod build_command;
mod common;
mod conformance;
mod containers_command;
mod crash;
mod disk_commands;
mod doctor;
mod escape;
mod events_command;
mod images_command;
mod interop;
mod registry;
mod registry_commands;
mod rootless;
mod run_command;
mod shared_cache;
mod tidy;
