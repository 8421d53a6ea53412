//! The questions themselves.

use serde::Serialize;

use super::Answer;
use super::table::table;

/// The prefix that names have on the wire and not for people.
const PREFIX: &str = "frontend.";
const VERSION: &str = "1.0.0";

/// A question that can be asked, as BuildKit describes it.
#[derive(Debug, Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: [Named; 2],
    refs: Option<Vec<Named>>,
}

#[derive(Debug, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

/// Lists the questions.
pub fn describe() -> Answer {
    let target = Named { name: "target", description: "Target build stage" };
    let requests = [
        request("frontend.outline", "List all parameters current build target supports", Some(vec![target])),
        request("frontend.targets", "List all targets current build supports", Some(Vec::new())),
        request("frontend.subrequests.describe", "List available subrequest types", None),
    ];
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(requests.iter().map(|request| {
        [request.name.strip_prefix(PREFIX).unwrap_or(request.name), request.version, request.description]
    }));
    Answer::new(&requests, table(&rows, 1))
}

fn request(name: &'static str, description: &'static str, opts: Option<Vec<Named>>) -> Request {
    let result = |name| Named { name, description: "" };
    Request {
        name,
        version: VERSION,
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: [result("result.json"), result("result.txt")],
        refs: None,
    }
}
