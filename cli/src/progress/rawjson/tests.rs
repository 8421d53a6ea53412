//! The documents of recorded events, against a made-up clock.

use insta::assert_snapshot;
use rbuild_llb::VertexId;
use rbuild_solver::progress::{Event, OutputStream};

use super::RawJson;
use crate::progress::testing::{cached, completed, output, planned, started, transfer, written};

/// 2001-09-09T01:46:40Z
const BEGAN_NS: i64 = 1_000_000_000_000_000_000;

#[test]
fn a_build_is_told_as_buildkit_tells_it() {
    let stderr = Event::Output { vertex: VertexId(1), stream: OutputStream::Stderr, bytes: b"part".to_vec() };
    let failed = Event::Failed { vertex: VertexId(1), message: "exit code: 1".to_owned() };
    let events = [
        (0, planned(&["[1/4] FROM busybox", "[2/4] RUN make", "[3/4] RUN cached", "[4/4] RUN late"])),
        (10, started(0)),
        (20, transfer(0, "sha256:5a", 9, Some(9))),
        (30, completed(0)),
        (40, started(1)),
        (50, output(1, b"ok\n")),
        (60, stderr),
        (70, failed),
        (80, cached(2)),
        (90, Event::Cancelled { vertex: VertexId(3) }),
    ];
    assert_snapshot!(written(|sink| Box::new(RawJson::new(sink, BEGAN_NS)), events), @r#"
    {"vertexes":[{"digest":"sha256:3769dd67e554c2edae1d68a2cdea1a1d3965bc15c426baa3147392fdeac20b5d","name":"[1/4] FROM busybox","started":"2001-09-09T01:46:40.01Z"}]}
    {"statuses":[{"id":"sha256:5a","vertex":"sha256:3769dd67e554c2edae1d68a2cdea1a1d3965bc15c426baa3147392fdeac20b5d","name":"sha256:5a","current":9,"total":9,"timestamp":"2001-09-09T01:46:40.02Z","started":"2001-09-09T01:46:40.02Z","completed":"2001-09-09T01:46:40.02Z"}]}
    {"vertexes":[{"digest":"sha256:3769dd67e554c2edae1d68a2cdea1a1d3965bc15c426baa3147392fdeac20b5d","name":"[1/4] FROM busybox","started":"2001-09-09T01:46:40.01Z","completed":"2001-09-09T01:46:40.03Z"}]}
    {"vertexes":[{"digest":"sha256:ab627ef1833bc9975d3ce7a83899edd25bf385d54fd5a602835ea8c2970894b7","name":"[2/4] RUN make","started":"2001-09-09T01:46:40.04Z"}]}
    {"logs":[{"vertex":"sha256:ab627ef1833bc9975d3ce7a83899edd25bf385d54fd5a602835ea8c2970894b7","stream":1,"data":"b2sK","timestamp":"2001-09-09T01:46:40.05Z"}]}
    {"logs":[{"vertex":"sha256:ab627ef1833bc9975d3ce7a83899edd25bf385d54fd5a602835ea8c2970894b7","stream":2,"data":"cGFydAo=","timestamp":"2001-09-09T01:46:40.07Z"}]}
    {"vertexes":[{"digest":"sha256:ab627ef1833bc9975d3ce7a83899edd25bf385d54fd5a602835ea8c2970894b7","name":"[2/4] RUN make","started":"2001-09-09T01:46:40.04Z","completed":"2001-09-09T01:46:40.07Z","error":"exit code: 1"}]}
    {"vertexes":[{"digest":"sha256:2f7ad36037d4f292c42a81a14fdccc78546d42869112a354a194ecde3cfa49a2","name":"[3/4] RUN cached","started":"2001-09-09T01:46:40.08Z","completed":"2001-09-09T01:46:40.08Z","cached":true}]}
    {"vertexes":[{"digest":"sha256:51c9100b55365e4537153392f21b6d323eb0281ea45dc46674c9e4f3bb8d6d4a","name":"[4/4] RUN late","started":"2001-09-09T01:46:40.09Z","completed":"2001-09-09T01:46:40.09Z","error":"context canceled"}]}
    "#);
}
