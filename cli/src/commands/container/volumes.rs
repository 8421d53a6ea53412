//! `-v`, `--mount` and `--tmpfs`: what a container is shown beside its own files.

use rbuild_container::{Bind, ContainerSpec, Containers, Tmpfs, VolumeMount, generate_id};

use super::create::{invalid, size};
use super::run_failure;
use crate::args::CreateOptions;
use crate::report::Failure;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<Bind>,
    pub(super) tmpfs: Vec<Tmpfs>,
    pub(super) volumes: Vec<VolumeMount>,
}

/// Reads all of them.
///
/// # Errors
/// When one is malformed, or asks for what is not there yet.
pub(super) fn parse(options: &CreateOptions) -> Result<Mounts, Failure> {
    let mut mounts = Mounts::default();
    for text in &options.volumes {
        mounts.add(volume(text)?);
    }
    for text in &options.tmpfs {
        mounts.tmpfs.push(parse_tmpfs(text)?);
    }
    for text in &options.mounts {
        mounts.add(mount(text)?);
    }
    Ok(mounts)
}

/// Adds what other containers have mounted, where nothing is yet: `CONTAINER[:ro|rw]`.
///
/// # Errors
/// When there is no such container.
pub(super) fn take_over(
    spec: &mut ContainerSpec,
    containers: &Containers,
    donors: &[String],
) -> Result<(), Failure> {
    for text in donors {
        let (name, readonly) = match text.rsplit_once(':') {
            Some((name, "ro")) => (name, Some(true)),
            Some((name, "rw")) => (name, Some(false)),
            Some((_, mode)) => return Err(invalid(format!("invalid mode: {mode}"))),
            None => (text.as_str(), None),
        };
        let donor = containers.find(name).map_err(run_failure)?.state.spec;
        for mut bind in donor.binds {
            bind.readonly = readonly.unwrap_or(bind.readonly);
            if !has(spec, &bind.target) {
                spec.binds.push(bind);
            }
        }
        for mut volume in donor.volumes {
            volume.readonly = readonly.unwrap_or(volume.readonly);
            if !has(spec, &volume.target) {
                spec.volumes.push(volume);
            }
        }
    }
    Ok(())
}

/// Adds a volume without a name for each that the image asks for, where nothing is mounted yet.
///
/// # Errors
/// When there is no randomness to be had.
pub(super) fn add_images(spec: &mut ContainerSpec) -> Result<(), Failure> {
    for target in spec.config.volumes.clone() {
        if !has(spec, &target) {
            spec.volumes.push(volume_mount("", &target, Options::default())?);
        }
    }
    Ok(())
}

/// Whether something is mounted there.
fn has(spec: &ContainerSpec, target: &str) -> bool {
    let binds = spec.binds.iter().map(|bind| &bind.target);
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| &tmpfs.target);
    let mut targets = binds.chain(tmpfs).chain(spec.volumes.iter().map(|volume| &volume.target));
    targets.any(|known| known.trim_end_matches('/') == target.trim_end_matches('/'))
}

impl Mounts {
    fn add(&mut self, mounted: Mounted) {
        match mounted {
            Mounted::Bind(bind) => self.binds.push(bind),
            Mounted::Tmpfs(tmpfs) => self.tmpfs.push(tmpfs),
            Mounted::Volume(volume) => self.volumes.push(volume),
        }
    }
}

enum Mounted {
    Bind(Bind),
    Tmpfs(Tmpfs),
    Volume(VolumeMount),
}

#[derive(Debug, Clone, Copy, Default)]
struct Options {
    readonly: bool,
    no_copy: bool,
}

/// `[HOST:|NAME:]CONTAINER[:OPTIONS]`.
fn volume(text: &str) -> Result<Mounted, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, words] => (*source, *target, *words),
        _ => return Err(invalid(format!("invalid volume specification `{text}`"))),
    };
    let mut options = Options::default();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" | "readonly" => options.readonly = true,
            "nocopy" => options.no_copy = true,
            // Labels of security modules, which are not there.
            "rw" | "z" | "Z" => {}
            _ => return Err(invalid(format!("invalid volume specification `{text}`: option `{word}`"))),
        }
    }
    if source.starts_with('/') || source.starts_with('.') {
        return bind(text, source, target, options.readonly).map(Mounted::Bind);
    }
    volume_mount(source, target, options).map(Mounted::Volume)
}

/// A volume; one without a name gets one that nobody else has.
fn volume_mount(name: &str, target: &str, options: Options) -> Result<VolumeMount, Failure> {
    if !target.starts_with('/') || target == "/" {
        return Err(invalid(format!("invalid volume: the target `{target}` is not absolute, or the root")));
    }
    let anonymous = name.is_empty();
    let name = if anonymous { generate_id().map_err(run_failure)? } else { name.to_owned() };
    let Options { readonly, no_copy } = options;
    Ok(VolumeMount { name, target: target.to_owned(), readonly, no_copy, anonymous })
}

fn bind(text: &str, source: &str, target: &str, readonly: bool) -> Result<Bind, Failure> {
    if !target.starts_with('/') {
        return Err(invalid(format!("invalid mount `{text}`: the target is not absolute")));
    }
    let missing = |error| invalid(format!("invalid mount `{text}`: `{source}`: {error}"));
    let source = std::path::absolute(source).map_err(missing)?;
    Ok(Bind { source: source.to_string_lossy().into_owned(), target: target.to_owned(), readonly })
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

/// `type=volume,source=…,target=…`.
fn mount(text: &str) -> Result<Mounted, Failure> {
    let (mut kind, mut source, mut target, mut size_bytes) = ("volume", "", "", None);
    let mut options = Options::default();
    let is_set = |value: &str| !matches!(value, "false" | "0");
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        match name {
            "type" => kind = value,
            "source" | "src" => source = value,
            "target" | "destination" | "dst" => target = value,
            "readonly" | "ro" => options.readonly = is_set(value),
            "volume-nocopy" => options.no_copy = is_set(value),
            "tmpfs-size" => size_bytes = Some(size("tmpfs-size", value)?),
            _ => return Err(invalid(format!("unexpected key `{name}` in `{field}`"))),
        }
    }
    if target.is_empty() {
        return Err(invalid(format!("invalid mount `{text}`: target is required")));
    }
    match kind {
        "bind" if source.is_empty() => Err(invalid(format!("invalid mount `{text}`: source is required"))),
        "bind" => bind(text, source, target, options.readonly).map(Mounted::Bind),
        "tmpfs" => {
            let readonly = options.readonly;
            Ok(Mounted::Tmpfs(Tmpfs { target: target.to_owned(), size_bytes, readonly, exec: false }))
        }
        "volume" => volume_mount(source, target, options).map(Mounted::Volume),
        _ => Err(invalid(format!("invalid mount `{text}`: unknown type `{kind}`"))),
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
            let Mounted::Bind(bind) = volume(text).unwrap() else { panic!("{text}") };
            assert_eq!(
                (bind.source.as_str(), bind.target.as_str(), bind.readonly),
                (source, target, readonly)
            );
        }
        for text in ["name:b", "b", "/a:b", "/a:/b:nosuch", "/a:/b:ro:x", "name:/"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn volumes_are_read() {
        let read = |text: &str| match volume(text).unwrap() {
            Mounted::Volume(volume) => volume,
            _ => panic!("{text}"),
        };
        let named = read("box:/b:ro,nocopy");
        assert_eq!(
            (named.name.as_str(), named.readonly, named.no_copy, named.anonymous),
            ("box", true, true, false)
        );
        let nameless = read("/b");
        assert_eq!((nameless.target.as_str(), nameless.anonymous, nameless.name.len()), ("/b", true, 64));
        assert!(matches!(mount("target=/b,source=box").unwrap(), Mounted::Volume(_)));
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
            ["type=bind,target=/b", "type=bind,source=/a", "type=x,target=/b", "type=bind,nosuch=1,target=/b"]
        {
            assert!(mount(text).is_err(), "{text}");
        }
        assert_eq!(parse_tmpfs("/t:size=1k,exec,ro").unwrap().size_bytes, Some(1024));
        assert!(parse_tmpfs("/t:nosuch").is_err());
    }
}
