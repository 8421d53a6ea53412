//! The tests of the command and of the repository: one binary, a module for each subject.

mod archives;
mod build_command;
mod common;
mod images_command;
mod run_command;
mod tidy;
