//! The tests of the command and of the repository: one binary, a module for each subject.

mod build_command;
mod common;
mod tidy;
