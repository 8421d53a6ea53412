//! `rbuild completion` and `rbuild man`: scripts for shells and man pages, made of the definitions of the command line themselves.

use clap_complete::Shell;
use clap_mangen::Man;

use super::{io_failure, print};
use crate::args::{self, CompletionArgs, ManArgs, ShellArg};
use crate::report::Failure;

const PROGRAM: &str = "rbuild";

pub(crate) fn completion(args: &CompletionArgs) -> Result<u8, Failure> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definitions(), PROGRAM, &mut script);
    print(&String::from_utf8_lossy(&script)).map(|()| 0)
}

pub(crate) fn man(args: &ManArgs) -> Result<u8, Failure> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).map_err(io_failure("make", directory))?;
    write_page(&args::definitions(), PROGRAM, args)?;
    Ok(0)
}

/// The page of a command, and those of the commands below it.
fn write_page(command: &clap::Command, name: &str, args: &ManArgs) -> Result<(), Failure> {
    let path = args.directory.join(format!("{name}.1"));
    let mut page = Vec::new();
    let command = command.clone().display_name(name.to_owned());
    Man::new(command.clone()).render(&mut page).map_err(io_failure("write", &path))?;
    std::fs::write(&path, page).map_err(io_failure("write", &path))?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.into_iter().try_for_each(|below| write_page(below, &format!("{name}-{}", below.get_name()), args))
}
