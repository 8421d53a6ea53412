//! Slash-separated paths inside images, as text. Nothing here looks at a file system.

pub(crate) use rbuild_llb::pattern::{clean, clean_rooted as absolute};

/// A path that may be relative to a directory, made absolute and clean.
pub(crate) fn resolve(directory: &str, path: &str) -> String {
    if path.starts_with('/') { absolute(path) } else { absolute(&format!("{directory}/{path}")) }
}

/// As [`resolve`], but what names a directory keeps a slash at its end: `x/`, `x/.`, `.` and nothing at all.
pub(crate) fn resolve_destination(directory: &str, path: &str) -> String {
    let resolved = resolve(directory, path);
    let is_directory = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    if is_directory && resolved != "/" { resolved + "/" } else { resolved }
}

/// The last component; the whole path when there is none.
pub(crate) fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    trimmed.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let cases = [("", "/"), ("a", "/a"), ("../../a/./b//c/..", "/a/b"), ("/..", "/"), ("a/", "/a")];
        for (path, expected) in cases {
            assert_eq!(absolute(path), expected, "{path}");
        }
        assert_eq!(resolve("/srv", "x/../y"), "/srv/y");
        assert_eq!(resolve("/srv", "/x"), "/x");
    }

    #[test]
    fn a_directory_keeps_its_slash() {
        let cases = [
            ("", "/w/"),
            (".", "/w/"),
            ("a/", "/w/a/"),
            ("/a/.", "/a/"),
            ("/", "/"),
            ("..", "/"),
            ("a", "/w/a"),
        ];
        for (path, expected) in cases {
            assert_eq!(resolve_destination("/w", path), expected, "{path}");
        }
    }
}
