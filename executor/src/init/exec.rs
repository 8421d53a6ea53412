//! The last step: finding the program and becoming it.

use std::convert::Infallible;
use std::ffi::CString;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::execve;

use crate::handshake::{Channel, Failure, Message, Step, StepExt as _};
use crate::sys;

/// How often a program is tried that somebody has open for writing.
const BUSY_TRIES_MAX: u32 = 20;
/// How long to wait between.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Executes `args[0]`, looked up in the `PATH` of `environment` when it has no slash.
pub(super) fn execute(args: &[String], environment: &[String], channel: &mut Channel) -> Step<Infallible> {
    let Some(program) = args.first() else {
        return Err(Failure::Handshake { reason: "no program to execute".to_owned() });
    };
    let argv = c_strings(args)?;
    let envp = c_strings(environment)?;
    let candidates = candidates(program, environment);
    channel.send(&Message::Executing).map_err(|error| Failure::Handshake { reason: error.to_string() })?;
    sys::reset_signals();
    let mut denied = None;
    for candidate in candidates {
        let path =
            CString::new(candidate.as_str()).map_err(|_| Errno::EINVAL).step_at("execute", &candidate)?;
        match execve_settled(&path, &argv, &envp) {
            // Also said of a script whose interpreter is missing: then the program itself is there.
            Errno::ENOENT | Errno::ENOTDIR if std::fs::symlink_metadata(&candidate).is_err() => {}
            Errno::EACCES => denied = Some(Errno::EACCES),
            error => return Err(Failure::Execute { program: program.clone(), errno: error as i32 }),
        }
    }
    Err(match denied {
        Some(error) => Failure::Execute { program: program.clone(), errno: error as i32 },
        None if program.contains('/') => Failure::Execute { program: program.clone(), errno: libc::ENOENT },
        None => Failure::ExecutableNotFound { program: program.clone() },
    })
}

/// Executes, unless the kernel refuses; patient with a file that is open for writing.
///
/// Another thread of rbuild may have written it just now: a child that was cloned meanwhile holds a copy of the descriptor
/// until it executes init, a millisecond later.
fn execve_settled(path: &CString, argv: &[CString], envp: &[CString]) -> Errno {
    let mut tries = 1;
    loop {
        match execve(path, argv, envp) {
            Err(Errno::ETXTBSY) if tries < BUSY_TRIES_MAX => tries += 1,
            Err(error) => return error,
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// Where the program may be, in order.
fn candidates(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    if program.is_empty() {
        return Vec::new();
    }
    // Of several lines of the same name the last one counts, as in every engine.
    let path = environment.iter().rev().find_map(|line| line.strip_prefix("PATH=")).unwrap_or("");
    // An empty directory is the working directory.
    let join = |directory: &str| match directory {
        "" => format!("./{program}"),
        directory => format!("{directory}/{program}"),
    };
    if path.is_empty() { Vec::new() } else { path.split(':').map(join).collect() }
}

fn c_strings(strings: &[String]) -> Step<Vec<CString>> {
    let convert = |string: &String| CString::new(string.as_str());
    let strings: Result<_, _> = strings.iter().map(convert).collect();
    strings.map_err(|_| Errno::EINVAL).step("pass an argument or a variable that has a zero byte in it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_along_the_path() {
        let environment = |path: &str| vec!["PATH=/ignored".to_owned(), format!("PATH={path}")];
        let cases: [(&str, &str, &[&str]); 5] = [
            ("sh", "/bin:/usr/bin", &["/bin/sh", "/usr/bin/sh"]),
            ("sh", "/bin::", &["/bin/sh", "./sh", "./sh"]),
            ("./sh", "/bin", &["./sh"]),
            ("", "/bin", &[]),
            ("sh", "", &[]),
        ];
        for (program, path, expected) in cases {
            assert_eq!(candidates(program, &environment(path)), expected, "{program} in {path}");
        }
    }
}
