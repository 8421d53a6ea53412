//! Events in short, for tests.

use rbuild_llb::VertexId;
use rbuild_solver::progress::{Event, OutputStream, PlannedVertex, TaskState};

/// A plan of vertices with these names, numbered from 0.
pub(super) fn planned(names: &[&str]) -> Event {
    let vertices = names.iter().zip(0..).map(|(name, id)| PlannedVertex {
        vertex: VertexId(id),
        name: (*name).to_owned(),
        source: None,
        internal: name.starts_with("[internal]"),
    });
    Event::Planned { vertices: vertices.collect() }
}

pub(super) fn started(id: u32) -> Event {
    Event::Started { vertex: VertexId(id) }
}

pub(super) fn output(id: u32, bytes: &[u8]) -> Event {
    Event::Output { vertex: VertexId(id), stream: OutputStream::Stdout, bytes: bytes.to_vec() }
}

pub(super) fn completed(id: u32) -> Event {
    Event::Completed { vertex: VertexId(id) }
}

pub(super) fn cached(id: u32) -> Event {
    Event::Cached { vertex: VertexId(id) }
}

pub(super) fn transfer(id: u32, name: &str, current_bytes: u64, total_bytes: Option<u64>) -> Event {
    Event::Transfer { vertex: VertexId(id), name: name.to_owned(), current_bytes, total_bytes }
}

pub(super) fn task(name: &str, state: TaskState) -> Event {
    Event::Task { name: name.to_owned(), state }
}
