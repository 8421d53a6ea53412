//! `-v`, `--mount` and `--tmpfs`: what a container is shown beside its own files.

use rbuild_container::{Bind, Tmpfs};

use super::create::{invalid, size};
use crate::args::CreateOptions;
use crate::report::Failure;

/// Reads all of them.
///
/// # Errors
/// When one is malformed, or asks for what is not there yet.
pub(super) fn parse(options: &CreateOptions) -> Result<(Vec<Bind>, Vec<Tmpfs>), Failure> {
    let mut binds = options.volumes.iter().map(|text| volume(text)).collect::<Result<Vec<_>, _>>()?;
    let mut tmpfs = options.tmpfs.iter().map(|text| parse_tmpfs(text)).collect::<Result<Vec<_>, _>>()?;
    for text in &options.mounts {
        match mount(text)? {
            Mounted::Bind(bind) => binds.push(bind),
            Mounted::Tmpfs(mounted) => tmpfs.push(mounted),
        }
    }
    Ok((binds, tmpfs))
}

enum Mounted {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

/// `HOST:CONTAINER[:OPTIONS]`.
fn volume(text: &str) -> Result<Bind, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(no_volumes(text)),
    };
    if !source.starts_with('/') && !source.starts_with('.') {
        return Err(no_volumes(text));
    }
    let mut readonly = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            // Labels of security modules, which are not there.
            "rw" | "z" | "Z" => {}
            _ => return Err(invalid(format!("invalid volume specification `{text}`: option `{option}`"))),
        }
    }
    bind(text, source, target, readonly)
}

fn bind(text: &str, source: &str, target: &str, readonly: bool) -> Result<Bind, Failure> {
    if !target.starts_with('/') {
        return Err(invalid(format!("invalid mount `{text}`: the target is not absolute")));
    }
    let missing = |error| invalid(format!("invalid mount `{text}`: `{source}`: {error}"));
    let source = std::path::absolute(source).map_err(missing)?;
    Ok(Bind { source: source.to_string_lossy().into_owned(), target: target.to_owned(), readonly })
}

fn no_volumes(text: &str) -> Failure {
    invalid(format!("`{text}`: volumes with names and without are not supported yet"))
        .hint("`HOST:CONTAINER` with an absolute path shows a directory of this machine")
}

/// `PATH[:OPTIONS]`.
fn parse_tmpfs(text: &str) -> Result<Tmpfs, Failure> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs { target: target.to_owned(), size_bytes: None, readonly: false, exec: false };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => tmpfs.size_bytes = Some(size("--tmpfs size", value)?),
            None if option == "ro" => tmpfs.readonly = true,
            None if option == "exec" => tmpfs.exec = true,
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(invalid(format!("invalid tmpfs option `{option}`"))),
        }
    }
    Ok(tmpfs)
}

/// `type=bind,source=…,target=…`.
fn mount(text: &str) -> Result<Mounted, Failure> {
    let (mut kind, mut source, mut target, mut readonly, mut size_bytes) = ("volume", "", "", false, None);
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        match name {
            "type" => kind = value,
            "source" | "src" => source = value,
            "target" | "destination" | "dst" => target = value,
            "readonly" | "ro" => readonly = !matches!(value, "false" | "0"),
            "tmpfs-size" => size_bytes = Some(size("tmpfs-size", value)?),
            _ => return Err(invalid(format!("unexpected key `{name}` in `{field}`"))),
        }
    }
    if target.is_empty() {
        return Err(invalid(format!("invalid mount `{text}`: target is required")));
    }
    match kind {
        "bind" if source.is_empty() => Err(invalid(format!("invalid mount `{text}`: source is required"))),
        "bind" => bind(text, source, target, readonly).map(Mounted::Bind),
        "tmpfs" => Ok(Mounted::Tmpfs(Tmpfs { target: target.to_owned(), size_bytes, readonly, exec: false })),
        _ => Err(no_volumes(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read() {
        let cases =
            [("/a:/b", "/a", "/b", false), ("/a:/b:ro", "/a", "/b", true), ("/a:/b:rw,z", "/a", "/b", false)];
        for (text, source, target, readonly) in cases {
            let bind = volume(text).unwrap();
            assert_eq!(
                (bind.source.as_str(), bind.target.as_str(), bind.readonly),
                (source, target, readonly)
            );
        }
        for text in ["name:/b", "/b", "/a:b", "/a:/b:nosuch", "/a:/b:ro:x"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_are_read() {
        assert!(matches!(
            mount("type=bind,source=/a,target=/b,readonly").unwrap(),
            Mounted::Bind(Bind { readonly: true, .. })
        ));
        let Mounted::Tmpfs(tmpfs) = mount("type=tmpfs,dst=/t,tmpfs-size=1m").unwrap() else { panic!() };
        assert_eq!((tmpfs.target.as_str(), tmpfs.size_bytes), ("/t", Some(1 << 20)));
        for text in
            ["type=bind,target=/b", "type=bind,source=/a", "target=/b", "type=bind,nosuch=1,target=/b"]
        {
            assert!(mount(text).is_err(), "{text}");
        }
        assert_eq!(parse_tmpfs("/t:size=1k,exec,ro").unwrap().size_bytes, Some(1024));
        assert!(parse_tmpfs("/t:nosuch").is_err());
    }
}
