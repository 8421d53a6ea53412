//! Events in short, and what a view writes of them, for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_llb::VertexId;
use rbuild_solver::progress::{Event, OutputStream, PlannedVertex, TaskState};

use super::{Display, View};

/// Keeps what is written.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a view writes of events that come at the given milliseconds.
pub(super) fn written(
    view: impl FnOnce(Sink) -> Box<dyn View>,
    events: impl IntoIterator<Item = (u64, Event)>,
) -> String {
    let sink = Sink::default();
    let mut display = Display::new(view(sink.clone()));
    let mut last = Duration::ZERO;
    for (millis, event) in events {
        last = Duration::from_millis(millis);
        display.tick(last);
        display.handle(event, last);
    }
    display.finish(last);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

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
