//! What differs between two operations.

use std::collections::BTreeMap;

use rbuild_llb::{ExecOp, Op, SourceOp};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Cause, Change, NamedChange, Recipe};

/// Fields that are in no key, or that other causes tell of.
const NOT_TOLD: [&str; 10] = [
    "args",
    "env",
    "proxy",
    "ip",
    "id",
    "sharing",
    "resolve_mode",
    "reference",
    "timestamp_ns",
    "shared_key_hint",
];
/// What users call the fields that they set.
const NAMES: [(&str, &str); 16] = [
    ("network", "--network"),
    ("security", "--security"),
    ("mode", "--chmod"),
    ("owner", "--chown"),
    ("exclude", "--exclude"),
    ("parents", "--parents"),
    ("include", "--include"),
    ("ulimits", "--ulimit"),
    ("extra_hosts", "--add-host"),
    ("cgroup_parent", "--cgroup-parent"),
    ("mounts", "--mount"),
    ("secret_env", "--mount=type=secret"),
    ("devices", "--device"),
    ("cwd", "WORKDIR"),
    ("user", "USER"),
    ("dest", "destination"),
];
/// Fields that only group others.
const GROUPS: [&str; 12] = [
    "exec", "process", "file", "steps", "action", "copy", "mkfile", "mkdir", "source", "kind", "octal",
    "text",
];

/// What differs, where the digests of the operations do.
pub(super) fn differences(now: &Recipe, before: &Recipe) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let (Op::Exec(exec), Op::Exec(then)) = (&now.op, &before.op) {
        causes.extend(command(exec, then));
        causes.extend(environment(now, exec, before, then));
    }
    let (mut told, mut path) = (Vec::new(), Vec::new());
    compare(&mut path, &fields(&before.op), &fields(&now.op), &mut told);
    let platform = |recipe: &Recipe| recipe.platform.as_ref().map(ToString::to_string);
    if platform(now) != platform(before) {
        told.push(NamedChange {
            name: "--platform".to_owned(),
            before: platform(before),
            after: platform(now),
        });
    }
    causes.extend(told.into_iter().map(Cause::Option));
    causes
}

/// What a source was and is pinned to.
pub(super) fn source(now: &Recipe, before: &Recipe) -> Cause {
    let change = Change { before: source_name(&before.op), after: source_name(&now.op) };
    match now.op {
        Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_)) => Cause::BaseImage(change),
        _ => Cause::Source(change),
    }
}

fn source_name(op: &Op) -> String {
    match op {
        Op::Source(SourceOp::Image(image)) => image.reference.to_string(),
        Op::Source(SourceOp::OciLayout(layout)) => layout.digest.to_string(),
        Op::Source(SourceOp::Git(git)) => format!("{}#{}", git.remote, git.git_ref),
        Op::Source(SourceOp::Http(http)) => http.url.clone(),
        Op::Source(SourceOp::Local(local)) => local.name.clone(),
        Op::Exec(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => String::new(),
    }
}

/// Of two command lines of one shell, what the shell is given.
fn command(now: &ExecOp, before: &ExecOp) -> Option<Cause> {
    let (now, before) = (&now.process.args, &before.process.args);
    if now == before {
        return None;
    }
    let shared = now.iter().zip(before).take_while(|(now, before)| now == before).count();
    let rest = |args: &[String]| args.get(shared..).unwrap_or_default().join(" ");
    Some(Cause::Command(Change { before: rest(before), after: rest(now) }))
}

fn environment(now: &Recipe, exec: &ExecOp, before: &Recipe, then: &ExecOp) -> Vec<Cause> {
    fn variables(exec: &ExecOp) -> BTreeMap<&str, &str> {
        exec.process.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
    }
    let (after, then) = (variables(exec), variables(then));
    let mut names: Vec<&str> = after.keys().chain(then.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let changed = names.into_iter().filter(|name| after.get(name) != then.get(name));
    let cause = |name: &str| {
        let value = |variables: &BTreeMap<&str, &str>| variables.get(name).map(|&value| value.to_owned());
        let change = NamedChange { name: name.to_owned(), before: value(&then), after: value(&after) };
        let declares = |recipe: &Recipe| recipe.arguments.iter().any(|argument| argument == name);
        if declares(now) || declares(before) { Cause::Argument(change) } else { Cause::Environment(change) }
    };
    changed.map(cause).collect()
}

/// An operation as nested fields; mounts by their targets, so that one more is one change.
fn fields(op: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(op).unwrap_or_default();
    if let Some(mounts) = value.pointer_mut("/exec/mounts") {
        let list = mounts.as_array_mut().map(std::mem::take).unwrap_or_default();
        let by_target = list.into_iter().map(|mut mount| {
            let target = mount.get_mut("target").map(Value::take).unwrap_or_default();
            (target.as_str().unwrap_or_default().to_owned(), mount)
        });
        *mounts = Value::Object(by_target.collect());
    }
    value
}

fn compare(path: &mut Vec<String>, before: &Value, after: &Value, told: &mut Vec<NamedChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_maps(path, before, after, told),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).for_each(|(before, after)| compare(path, before, after, told));
        }
        (before, after) => {
            told.push(NamedChange { name: name_of(path), before: text(before), after: text(after) });
        }
    }
}

fn compare_maps(
    path: &mut Vec<String>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    told: &mut Vec<NamedChange>,
) {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names.into_iter().filter(|name| !NOT_TOLD.contains(&name.as_str())) {
        path.push(name.clone());
        let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
        compare(path, &value(before), &value(after), told);
        path.pop();
    }
}

fn name_of(path: &[String]) -> String {
    let word = |field: &String| {
        NAMES.iter().find(|(name, _)| name == field).map_or(field.clone(), |(_, name)| (*name).to_owned())
    };
    let words = path.iter().filter(|field| !GROUPS.contains(&field.as_str())).map(word);
    words.collect::<Vec<_>>().join(" ")
}

/// Nothing for what is not there or not set.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        value => Some(value.to_string()),
    }
}
