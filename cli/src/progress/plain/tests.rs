//! The plain log of recorded events, against a made-up clock.

use std::time::Duration;

use insta::assert_snapshot;
use rbuild_llb::VertexId;
use rbuild_solver::images::Transfer;
use rbuild_solver::progress::{Event, OutputStream, TaskState};

use super::Plain;
use crate::progress::testing::{cached, completed, output, planned, started, task, transfer, written};

/// The log of events that come at the given milliseconds.
fn log(events: impl IntoIterator<Item = (u64, Event)>) -> String {
    written(|sink| Box::new(Plain::new(sink)), events)
}

#[test]
fn a_build_from_start_to_end() {
    let moved = Transfer { name: "sha256:7".to_owned(), current_bytes: 300, total_bytes: Some(300) };
    let log = log([
        (
            0,
            planned(&[
                "[internal] load build context",
                "[1/3] FROM busybox",
                "[2/3] RUN make",
                "[3/3] RUN cached",
            ]),
        ),
        (10, started(1)),
        (20, transfer(1, "sha256:5a164a", 349, Some(1_090_000))),
        (6_020, transfer(1, "sha256:5a164a", 500_000, Some(1_090_000))),
        (7_020, transfer(1, "sha256:5a164a", 1_090_000, Some(1_090_000))),
        (7_100, completed(1)),
        (7_110, started(0)),
        (7_120, transfer(0, "transferring context:", 20, None)),
        (7_130, completed(0)),
        (8_000, started(2)),
        (8_211, output(2, b"cc -c a.c\npart")),
        (8_300, output(2, b"ial\nno line end")),
        (8_400, completed(2)),
        (8_400, cached(3)),
        (8_500, task("exporting to image", TaskState::Started)),
        (8_550, task("exporting to image", TaskState::Moved(moved))),
        (8_600, task("exporting to image", TaskState::Completed)),
    ]);
    assert_snapshot!(log, @r#"
    #1 [1/3] FROM busybox
    #1 sha256:5a164a 500.00kB / 1.09MB 6.0s
    #1 sha256:5a164a 1.09MB / 1.09MB 7.0s done
    #1 DONE 7.1s

    #2 [internal] load build context
    #2 transferring context: 20B 0.0s done
    #2 DONE 0.0s

    #3 [2/3] RUN make
    #3 0.211 cc -c a.c
    #3 0.300 partial
    #3 0.400 no line end
    #3 DONE 0.4s

    #4 [3/3] RUN cached
    #4 CACHED

    #5 exporting to image
    #5 sha256:7 300B / 300B 0.0s done
    #5 DONE 0.1s
    "#);
}

#[test]
fn steps_that_print_at_once_take_turns() {
    let log = log([
        (0, planned(&["[a 1/1] RUN a", "[b 1/1] RUN b", "[c 1/1] RUN c"])),
        (0, started(0)),
        (0, started(1)),
        (0, started(2)),
        (100, output(0, b"a1\n")),
        (200, output(1, b"b1\n")),
        (300, output(0, b"a2\n")),
        (400, output(2, b"c1\n")),
        (500, completed(2)),
        (900, output(1, b"b2\n")),
        (1_400, output(0, b"a3 after b and c, which waited for a second\n")),
        (1_500, completed(1)),
        (1_600, completed(0)),
    ]);
    assert_snapshot!(log, @r#"
    #1 [a 1/1] RUN a
    #1 0.100 a1
    #1 0.300 a2
    #1 ...

    #2 [b 1/1] RUN b
    #2 0.200 b1
    #2 0.900 b2
    #2 DONE 1.5s

    #3 [c 1/1] RUN c
    #3 0.400 c1
    #3 DONE 0.5s

    #1 [a 1/1] RUN a
    #1 1.400 a3 after b and c, which waited for a second
    #1 DONE 1.6s
    "#);
}

#[test]
fn nobody_waits_longer_than_a_turn() {
    let chatty = (1..=8).map(|i| (i * 900, output(0, format!("a{i}\n").as_bytes())));
    let events =
        [(0, planned(&["RUN a", "RUN b"])), (0, started(0)), (0, started(1)), (1, output(1, b"b1\n"))];
    assert_snapshot!(log(events.into_iter().chain(chatty)), @r#"
    #1 RUN a
    #1 0.900 a1
    #1 1.800 a2
    #1 2.700 a3
    #1 3.600 a4
    #1 4.500 a5
    #1 ...

    #2 RUN b
    #2 0.001 b1
    #2 ...

    #1 RUN a
    #1 5.400 a6
    #1 6.300 a7
    #1 7.200 a8
    "#);
}

#[test]
fn a_failure_and_what_it_stopped() {
    let log = log([
        (0, planned(&["[1/2] RUN false", "[2/2] RUN sleep"])),
        (0, started(0)),
        (0, started(1)),
        (50, output(0, b"\x1b[31mbad\x1b[0m \xff\n")),
        (
            60,
            Event::Output { vertex: VertexId(0), stream: OutputStream::Stderr, bytes: b"10%\r20%".to_vec() },
        ),
        (70, Event::Failed { vertex: VertexId(0), message: "process `false` exited\nwith code 1".into() }),
        (80, Event::Cancelled { vertex: VertexId(1) }),
        (90, output(1, b"too late\n")),
    ]);
    assert_snapshot!(log, @r#"
    #1 [1/2] RUN false
    #1 0.050 bad �
    #1 0.070 20%
    #1 ERROR: process `false` exited with code 1

    #2 [2/2] RUN sleep
    #2 CANCELED
    "#);
}

#[test]
fn an_interrupted_build_shows_what_it_had() {
    let log = log([
        (0, planned(&["RUN a", "RUN b"])),
        (0, started(0)),
        (0, started(1)),
        (10, output(1, b"held")),
        (20, output(0, b"partial")),
    ]);
    assert_snapshot!(log, @r#"
    #1 RUN a
    #1 0.020 partial

    #2 RUN b
    #2 0.020 held
    "#);
}

#[test]
fn a_vertex_that_nobody_planned_is_shown() {
    assert_snapshot!(log([(0, started(7)), (100, completed(7))]), @r#"
    #1 [internal] vertex 7
    #1 DONE 0.1s
    "#);
}

#[test]
fn log_times_keep_their_width() {
    for (millis, expected) in [(0, "0.000"), (211, "0.211"), (10_714, "10.71"), (123_456, "123.5")] {
        assert_eq!(super::log_time(Duration::from_millis(millis)), expected);
    }
}
