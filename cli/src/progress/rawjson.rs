//! The look for programs: BuildKit's `SolveStatus`, one JSON document a line.
//!
//! ```text
//! {"vertexes":[{"digest":"sha256:…","name":"[2/2] RUN make","started":"…"}]}
//! {"logs":[{"vertex":"sha256:…","stream":1,"data":"Li4uCg==","timestamp":"…"}]}
//! {"statuses":[{"id":"…","vertex":"sha256:…","name":"…","current":1,"total":2,"timestamp":"…"}]}
//! ```
//!
//! A step is told by its digest, which is made of its number and name: it means nothing outside the build.

use std::io::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::Digest;
use rbuild_solver::progress::OutputStream;
use serde::Serialize;

use super::View;
use super::board::{Board, Change, Step, StepIndex};
use crate::format::rfc3339_ns;

/// Writes documents to `out`.
pub(super) struct RawJson<W> {
    out: W,
    /// When the display's clock began, Unix nanoseconds.
    began_ns: i64,
}

#[derive(Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[Vertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[Status<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[Log; 1]>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    digest: Digest,
    name: &'a str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Status<'a> {
    id: &'a str,
    vertex: Digest,
    name: &'a str,
    current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct Log {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

impl<W: Write + Send> RawJson<W> {
    pub(super) const fn new(out: W, began_ns: i64) -> Self {
        Self { out, began_ns }
    }

    fn time(&self, since_began: Duration) -> String {
        rfc3339_ns(self.began_ns.saturating_add(i64::try_from(since_began.as_nanos()).unwrap_or(i64::MAX)))
    }

    fn vertex<'a>(&self, step: &'a Step, now: Duration, change: &'a Change) -> Vertex<'a> {
        let (took, error) = match change {
            Change::Completed { took } => (*took, None),
            Change::Failed { took, message } => (*took, Some(message.as_str())),
            Change::Cancelled => (Duration::ZERO, Some("context canceled")),
            _ => (Duration::ZERO, None),
        };
        Vertex {
            digest: digest(step),
            name: &step.name,
            started: self.time(now.saturating_sub(took)),
            completed: change.is_end().then(|| self.time(now)),
            cached: matches!(change, Change::Cached),
            error,
        }
    }

    fn status<'a>(&self, step: &'a Step, now: Duration, change: &'a Change) -> SolveStatus<'a> {
        match change {
            Change::Line { stream, text, .. } => SolveStatus {
                logs: Some([Log {
                    vertex: digest(step),
                    stream: match stream {
                        OutputStream::Stdout => 1,
                        OutputStream::Stderr => 2,
                    },
                    data: STANDARD.encode(format!("{text}\n")),
                    timestamp: self.time(now),
                }]),
                ..SolveStatus::default()
            },
            Change::Transferred(transfer) => SolveStatus {
                statuses: Some([Status {
                    id: &transfer.name,
                    vertex: digest(step),
                    name: &transfer.name,
                    current: transfer.current_bytes,
                    total: transfer.total_bytes,
                    timestamp: self.time(now),
                    started: self.time(now.saturating_sub(transfer.took)),
                    completed: transfer.done.then(|| self.time(now)),
                }]),
                ..SolveStatus::default()
            },
            // Why a step runs is in no field of BuildKit's.
            Change::Note(_) => SolveStatus::default(),
            change => {
                SolveStatus { vertexes: Some([self.vertex(step, now, change)]), ..SolveStatus::default() }
            }
        }
    }
}

fn digest(step: &Step) -> Digest {
    Digest::of(format!("{} {}", step.number, step.name))
}

impl<W: Write + Send> View for RawJson<W> {
    fn change(&mut self, board: &Board, step: StepIndex, change: &Change, now: Duration) {
        let status = self.status(board.step(step), now, change);
        // Strings and numbers always have a form in JSON.
        let mut line = serde_json::to_string(&status).unwrap_or_default();
        line.push('\n');
        // Nobody listens any more; the build goes on.
        drop(self.out.write_all(line.as_bytes()));
    }

    fn tick(&mut self, _: &Board, _: Duration) {}

    fn finish(&mut self, _: &Board, _: Duration) {}
}

#[cfg(test)]
mod tests;
