//! What is kept of a container.

use serde::{Deserialize, Serialize};

/// What a container is, and how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The image as it was named.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The command line.
    pub args: Vec<String>,
    /// How it fares.
    pub status: Status,
}

/// How a container fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// It has never run.
    Created,
    /// Its process runs.
    Running {
        /// The process, as the host sees it.
        pid: i32,
        /// Since when, Unix seconds.
        started: i64,
    },
    /// Its process has ended.
    Exited {
        /// The exit code; 128 and the signal for one that a signal ended.
        code: i32,
        /// When, Unix seconds; when it started, where nobody saw it end.
        finished: i64,
    },
}

/// The exit code of a container whose end nobody saw: as if killed, which it was together with the process that watched it.
const EXIT_CODE_LOST: i32 = 137;

impl Status {
    /// What a container is that runs according to its row, when nobody holds its lock.
    pub(crate) const fn lost(self) -> Self {
        match self {
            Self::Running { started, .. } => Self::Exited { code: EXIT_CODE_LOST, finished: started },
            other => other,
        }
    }
}

impl ContainerState {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a state is strings and numbers")
    }

    pub(crate) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip() {
        for status in
            [Status::Created, Status::Running { pid: 7, started: 1 }, Status::Exited { code: 3, finished: 2 }]
        {
            let state = ContainerState {
                image: "app:latest".into(),
                image_id: "sha256:00".into(),
                args: vec!["sh".into()],
                status,
            };
            assert_eq!(ContainerState::from_json(&state.to_json()).unwrap(), state);
        }
    }

    #[test]
    fn only_what_runs_can_be_lost() {
        let exited = Status::Exited { code: 3, finished: 2 };
        assert_eq!(exited.lost(), exited);
        assert_eq!(Status::Running { pid: 7, started: 1 }.lost(), Status::Exited { code: 137, finished: 1 });
    }
}
