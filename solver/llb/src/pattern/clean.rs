//! Lexical cleaning of slash-separated paths, as Go's `path.Clean` does it.

/// The shortest path that says the same: without `.`, empty and resolvable `..` components; `.` for nothing.
///
/// A `..` at the start of a rooted path is dropped, at the start of a relative one it stays.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            other => kept.push(other),
        }
    }
    match (rooted, kept.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// The path as it is beneath `/`: rooted and clean, so that it names nothing outside.
pub fn clean_rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}
