//! What is kept of a container, and the changes of state that are legal.
//!
//! ```text
//! Created ─start─► Running ─end─► Exited ─start─► Running …
//!                  │ ▲  └─end, restart policy─► Restarting ─► Running | Exited
//!            pause ▼ │ unpause
//!                  Paused
//! ```
//!
//! The words of an illegal change are Docker's.

use std::net::IpAddr;

use rbuild_executor::network::PublishedPort;
use serde::{Deserialize, Serialize};

use crate::ContainerError;
use crate::spec::ContainerSpec;

/// The version of the document. One of a later version is refused, as it may say something that this program does not know.
const VERSION: u32 = 1;
/// How many results of health checks are kept.
const HEALTH_LOG_MAX: usize = 5;

/// What a container is, and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    version: u32,
    /// What it is.
    pub spec: ContainerSpec,
    /// How it fares.
    pub status: Status,
    /// How often it was started again by its restart policy since a person started it.
    #[serde(default)]
    pub restart_count: u32,
    /// Why it could not be started the last time somebody tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<StartFailure>,
    /// What its health check says, where it has one and runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// 127 and 126 for a program that is not there or cannot be executed, else [`START_FAILED`].
    pub code: i32,
    /// What went wrong.
    pub message: String,
}

/// Docker's exit code of a container that could not be started, where it is not the program's fault.
pub const START_FAILED: i32 = 128;

/// How a container fares. Times are Unix nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// It has never run.
    Created,
    /// Its process runs.
    Running(Run),
    /// Its process is frozen.
    Paused(Run),
    /// Its process has ended, and will be started again.
    Restarting {
        /// The monitor.
        run: Run,
        /// How the process ended.
        code: i32,
    },
    /// Its process has ended.
    Exited(Ended),
    /// It is being removed; what is left of it is garbage.
    Removing,
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The process, as the host sees it.
    pub pid: i32,
    /// The process that watches it, and whose descendants all processes of the container are.
    pub monitor: i32,
    /// Since when.
    pub started: i64,
    /// Where it is reached.
    #[serde(default)]
    pub endpoint: Endpoint,
}

/// Where a container that runs is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its networks with its addresses there, in the order of the spec.
    pub networks: Vec<(String, Vec<IpAddr>)>,
    /// Ports of the host that lead to its own, as they were chosen.
    pub ports: Vec<PublishedPort>,
    /// Who knows names in its network namespace, where that is not as on the host.
    pub name_server: Option<IpAddr>,
}

/// A process that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// The exit code; 128 and the signal for one that a signal ended.
    pub code: i32,
    /// When it was started.
    pub started: i64,
    /// When it ended; when it started, where nobody saw it end.
    pub finished: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Why, where that is not its own doing.
    pub error: String,
}

/// What the health check of a container says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Well or not.
    pub status: HealthStatus,
    /// How many checks have failed in a row.
    pub failing_streak: i64,
    /// The last results, the newest last.
    pub log: Vec<HealthResult>,
}

/// Well or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// Well.
    Healthy,
    /// Not.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What one health check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it began, RFC 3339.
    pub start: String,
    /// When it ended, RFC 3339.
    pub end: String,
    /// Its exit code; -1 where it took too long.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

impl Health {
    /// Takes a result in. Failures during the start do not count.
    pub(crate) fn note(&mut self, result: HealthResult, retries: i64, starting: bool) {
        if result.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !(starting && self.status == HealthStatus::Starting) {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(HEALTH_LOG_MAX);
        self.log.drain(..surplus);
    }
}

/// What a person may want to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it.
    Start,
    /// Run a further process in it.
    Exec,
    /// Take part in its input and output.
    Attach,
    /// Send a signal.
    Kill,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Unpause,
    /// Remove it.
    Remove,
    /// List its processes.
    Top,
    /// Make an image of it.
    Commit,
}

/// The exit code of a container whose end nobody saw: as if killed, which it was together with the process that watched it.
const EXIT_CODE_LOST: i32 = 137;
/// Why it ended.
const LOST: &str = "the monitor was lost";

impl Status {
    /// What runs, also where it is frozen or between two starts.
    pub const fn run(&self) -> Option<&Run> {
        match self {
            Self::Running(run) | Self::Paused(run) | Self::Restarting { run, .. } => Some(run),
            Self::Created | Self::Exited(_) | Self::Removing => None,
        }
    }

    pub(crate) const fn run_mut(&mut self) -> Option<&mut Run> {
        match self {
            Self::Running(run) | Self::Paused(run) | Self::Restarting { run, .. } => Some(run),
            Self::Created | Self::Exited(_) | Self::Removing => None,
        }
    }

    /// Whether something of it runs, or will again by itself.
    pub const fn is_active(&self) -> bool {
        self.run().is_some()
    }

    /// How it ended, if it has.
    pub const fn ended(&self) -> Option<&Ended> {
        match self {
            Self::Exited(ended) => Some(ended),
            _ => None,
        }
    }

    /// Docker's word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Restarting { .. } => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing => "removing",
        }
    }

    /// What a container is that runs according to its row, when nobody holds its lock: its monitor is gone, and everything with it.
    pub(crate) fn lost(self) -> Self {
        match self.run() {
            Some(run) => Self::Exited(Ended {
                code: EXIT_CODE_LOST,
                started: run.started,
                finished: run.started,
                error: LOST.to_owned(),
                ..Ended::default()
            }),
            None => self,
        }
    }

    /// Whether nobody saw its end.
    pub(crate) fn is_lost(&self) -> bool {
        self.ended().is_some_and(|ended| ended.error == LOST)
    }

    /// Whether `action` is legal now; the error is Docker's, on the container of this name and id.
    ///
    /// # Errors
    /// [`ContainerError::Illegal`] when it is not.
    pub fn check(&self, action: Action, name: &str, id: &str) -> Result<(), ContainerError> {
        use Action::{Attach, Commit, Exec, Kill, Pause, Remove, Start, Top, Unpause};
        let stop_first = "stop the container before removing or force remove";
        let message = match (action, self) {
            (_, Self::Removing) => format!("container {name} is marked for removal"),
            (Start, Self::Paused(_)) => "cannot start a paused container, try unpause instead".to_owned(),
            (Start | Commit, _) | (Exec | Attach | Kill | Pause | Top, Self::Running(_)) => return Ok(()),
            (Kill | Top | Unpause, Self::Paused(_)) => return Ok(()),
            (Exec, Self::Paused(_)) => {
                format!("Container {name} is paused, unpause the container before exec")
            }
            (Attach, Self::Paused(_)) => {
                "You cannot attach to a paused container, unpause it first".to_owned()
            }
            (Attach, Self::Restarting { .. }) => {
                "You cannot attach to a restarting container, wait until it is running".to_owned()
            }
            (Attach, _) => "You cannot attach to a stopped container, start it first".to_owned(),
            (Kill, Self::Restarting { .. }) | (Remove, Self::Created | Self::Exited(_)) => return Ok(()),
            (Kill, _) => format!("cannot kill container: {name}: container {id} is not running"),
            (Pause, Self::Paused(_)) => format!("Container {id} is already paused"),
            (Unpause, _) => format!("Container {id} is not paused"),
            (Pause | Exec | Top, Self::Restarting { .. }) => {
                format!("Container {id} is restarting, wait until the container is running")
            }
            (Pause | Exec | Top, _) => format!("container {id} is not running"),
            (Remove, Self::Paused(_)) => {
                format!("cannot remove container \"{name}\": container is paused and must be unpaused first")
            }
            (Remove, Self::Restarting { .. }) => {
                format!("cannot remove container \"{name}\": container is restarting: {stop_first}")
            }
            (Remove, Self::Running(_)) => {
                format!("cannot remove container \"{name}\": container is running: {stop_first}")
            }
        };
        Err(ContainerError::Illegal { message })
    }
}

impl ContainerState {
    /// A container that has never run.
    pub fn new(spec: ContainerSpec) -> Self {
        Self {
            version: VERSION,
            spec,
            status: Status::Created,
            restart_count: 0,
            start_failure: None,
            health: None,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a state is strings and numbers")
    }

    pub(crate) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let state: Self = serde_json::from_str(json)?;
        if state.version > VERSION {
            return Err(serde::de::Error::custom("a later version of rbuild has written it"));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run { pid: 7, monitor: 6, started: 1, endpoint: Endpoint::default() }
    }

    fn every_status() -> [Status; 6] {
        [
            Status::Created,
            Status::Running(run()),
            Status::Paused(run()),
            Status::Restarting { run: run(), code: 1 },
            Status::Exited(Ended { code: 3, ..Ended::default() }),
            Status::Removing,
        ]
    }

    #[test]
    fn states_round_trip() {
        for status in every_status() {
            let state = ContainerState { status, ..ContainerState::new(ContainerSpec::default()) };
            assert_eq!(ContainerState::from_json(&state.to_json()).unwrap(), state);
        }
        let mut later = ContainerState::new(ContainerSpec::default());
        later.version += 1;
        assert!(ContainerState::from_json(&later.to_json()).is_err());
    }

    #[test]
    fn only_what_runs_can_be_lost() {
        for status in every_status() {
            let (lost, active) = (status.clone().lost(), status.is_active());
            if active {
                assert_eq!(lost.ended().map(|ended| (ended.code, ended.finished)), Some((137, 1)));
            } else {
                assert_eq!(lost, status);
            }
        }
    }

    #[test]
    fn what_is_legal() {
        use Action::{Attach, Commit, Exec, Kill, Pause, Remove, Start, Top, Unpause};
        // In the order of `every_status`.
        let cases = [
            (Start, "110110"),
            (Exec, "010000"),
            (Attach, "010000"),
            (Kill, "011100"),
            (Pause, "010000"),
            (Unpause, "001000"),
            (Remove, "100010"),
            (Top, "011000"),
            (Commit, "111110"),
        ];
        for (action, expected) in cases {
            let legal = every_status().map(|status| status.check(action, "app", "0123").is_ok());
            let legal: String = legal.map(|legal| if legal { '1' } else { '0' }).iter().collect();
            assert_eq!(legal, expected, "{action:?}");
        }
    }

    #[test]
    fn health_changes_with_enough_failures() {
        let result = |exit_code| HealthResult {
            start: String::new(),
            end: String::new(),
            exit_code,
            output: String::new(),
        };
        let mut health = Health::default();
        health.note(result(1), 2, true);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        health.note(result(1), 2, false);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 1));
        health.note(result(1), 2, false);
        assert_eq!(health.status, HealthStatus::Unhealthy);
        health.note(result(0), 2, false);
        assert_eq!((health.status, health.failing_streak, health.log.len()), (HealthStatus::Healthy, 0, 4));
    }
}
