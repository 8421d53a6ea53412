//! What holds a process in a sandbox, besides its capabilities and its namespaces: the options of `--security-opt`.

use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::seccomp::{ProfileError, Seccomp};

/// The AppArmor profile of every container where Docker is installed.
const APPARMOR_DEFAULT: &str = "docker-default";
/// What AppArmor and seccomp call no profile.
const UNCONFINED: &str = "unconfined";

/// What holds a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether set-user-id programs and capabilities of files are without effect.
    pub no_new_privileges: bool,
    /// The AppArmor profile; where none is named, Docker's if the machine has it.
    pub apparmor: Option<String>,
    /// Whether `/proc` and `/sys` are shown as they are.
    pub unmasked: bool,
}

/// Why an option cannot be followed.
#[derive(Debug, Error)]
pub enum ConfinementError {
    /// There is no such option.
    #[error("unknown security option `{0}`")]
    Unknown(String),
    /// A value that the option does not have.
    #[error("security option `{0}`: expected true or false")]
    Boolean(String),
    /// SELinux labels need what only the distribution's policy knows.
    #[error("security option `{0}`: SELinux labels are not supported, only `label=disable`")]
    Label(String),
    /// The profile could not be read.
    #[error("failed to read the profile of system calls `{path}`")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The profile could not be used.
    #[error("failed to use the profile of system calls `{path}`")]
    Profile {
        /// Which.
        path: String,
        /// Why.
        source: ProfileError,
    },
}

impl Confinement {
    /// Follows one option as `--security-opt` takes it. `read` gives the text of a file.
    ///
    /// # Errors
    /// When there is no such option, or its value is none.
    pub fn set(
        &mut self,
        option: &str,
        read: impl Fn(&str) -> io::Result<String>,
    ) -> Result<(), ConfinementError> {
        let (name, value) = match option.split_once(['=', ':']) {
            Some((name, value)) => (name, value),
            None => (option, "true"),
        };
        match name {
            "no-new-privileges" => {
                self.no_new_privileges =
                    value.parse().map_err(|_| ConfinementError::Boolean(option.to_owned()))?;
            }
            "seccomp" => self.seccomp = seccomp(value, read)?,
            "apparmor" => self.apparmor = Some(value.to_owned()),
            "systempaths" if value == UNCONFINED => self.unmasked = true,
            "label" if value == "disable" => {}
            "label" => return Err(ConfinementError::Label(option.to_owned())),
            _ => return Err(ConfinementError::Unknown(option.to_owned())),
        }
        Ok(())
    }

    /// The AppArmor profile on this machine, whose loaded ones `profiles` lists, if it has AppArmor.
    pub(crate) fn apparmor_profile(&self, profiles: Option<&str>) -> Option<String> {
        let is_loaded =
            |profiles: &str| profiles.lines().any(|line| line.split(" (").next() == Some(APPARMOR_DEFAULT));
        match &self.apparmor {
            // The kernel refuses a name where there is no AppArmor, as is right: somebody relies on it.
            Some(name) if name != UNCONFINED || profiles.is_some() => Some(name.clone()),
            Some(_) => None,
            None => profiles.is_some_and(is_loaded).then(|| APPARMOR_DEFAULT.to_owned()),
        }
    }
}

fn seccomp(value: &str, read: impl Fn(&str) -> io::Result<String>) -> Result<Seccomp, ConfinementError> {
    match value {
        UNCONFINED => Ok(Seccomp::Unconfined),
        "builtin" => Ok(Seccomp::Default),
        path => {
            let path = path.to_owned();
            match read(&path).map(Seccomp::profile) {
                Ok(Ok(seccomp)) => Ok(seccomp),
                Ok(Err(source)) => Err(ConfinementError::Profile { path, source }),
                Err(source) => Err(ConfinementError::Read { path, source }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confinement(options: &[&str]) -> Result<Confinement, ConfinementError> {
        let read = |path: &str| match path {
            "allow.json" => Ok(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#.to_owned()),
            "broken.json" => Ok("{".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let mut confinement = Confinement::default();
        options.iter().try_for_each(|option| confinement.set(option, read))?;
        Ok(confinement)
    }

    #[test]
    fn options_are_read_as_docker_does() {
        assert_eq!(confinement(&["label=disable", "seccomp=builtin"]).unwrap(), Confinement::default());
        for option in ["no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"] {
            assert!(confinement(&[option]).unwrap().no_new_privileges, "{option}");
        }
        let all = confinement(&["seccomp=unconfined", "apparmor:mine", "systempaths=unconfined"]).unwrap();
        assert_eq!(
            (all.seccomp, all.apparmor.as_deref(), all.unmasked),
            (Seccomp::Unconfined, Some("mine"), true)
        );
        assert!(matches!(confinement(&["seccomp=allow.json"]).unwrap().seccomp, Seccomp::Profile(_)));
        for option in
            ["", "x=1", "label=type:x", "no-new-privileges=1", "seccomp=broken.json", "seccomp=none.json"]
        {
            assert!(confinement(&[option]).is_err(), "{option}");
        }
    }

    #[test]
    fn apparmor_is_dockers_where_that_is_loaded() {
        let loaded = "lxc (enforce)\ndocker-default (enforce)\n";
        let cases = [
            (None, None, None),
            (None, Some("lxc (enforce)\n"), None),
            (None, Some(loaded), Some("docker-default")),
            (Some("mine"), Some(loaded), Some("mine")),
            (Some("mine"), None, Some("mine")),
            (Some("unconfined"), Some(loaded), Some("unconfined")),
            (Some("unconfined"), None, None),
        ];
        for (asked, profiles, expected) in cases {
            let confinement = Confinement { apparmor: asked.map(str::to_owned), ..Confinement::default() };
            assert_eq!(confinement.apparmor_profile(profiles).as_deref(), expected, "{asked:?} {profiles:?}");
        }
    }
}
