//! `-v`, `--mount` and `--tmpfs`: what a container is shown beside its own files.

use std::collections::BTreeSet;

use rbuild_container::{Bind, ContainerSpec, Containers, Tmpfs, VolumeMount, generate_id};
use rbuild_executor::TmpfsOptions;
use rbuild_llb::pattern::clean;

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
/// When one is malformed, asks for what is not there yet, or for a place that another one has.
pub(super) fn parse(options: &CreateOptions) -> Result<Mounts, Failure> {
    let mut mounts = Mounts::default();
    for text in once(&options.volumes) {
        mounts.add(volume(text)?);
    }
    for text in &options.tmpfs {
        let tmpfs = parse_tmpfs(text)?;
        // Of one place the last one counts, as with Docker.
        mounts.tmpfs.retain(|known| known.target != tmpfs.target);
        mounts.tmpfs.push(tmpfs);
    }
    for text in &options.mounts {
        mounts.add(mount(text)?);
    }
    mounts.settle()
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
/// When it asks for what cannot be, or there is no randomness to be had.
pub(super) fn add_images(spec: &mut ContainerSpec) -> Result<(), Failure> {
    for target in spec.config.volumes.clone() {
        let target = place(&format!("/{target}")).map_err(invalid)?;
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

    /// Each at a place of its own. A volume without a name gives way, as it does to what an image asks for.
    fn settle(mut self) -> Result<Self, Failure> {
        let named = self.volumes.iter().filter(|volume| !volume.anonymous).map(|volume| &volume.target);
        let binds = self.binds.iter().map(|bind| &bind.target);
        let all = binds.chain(self.tmpfs.iter().map(|tmpfs| &tmpfs.target)).chain(named);
        let mut taken = BTreeSet::new();
        for target in all {
            if !taken.insert(target.clone()) {
                return Err(invalid(format!("Duplicate mount point: {target}")));
            }
        }
        self.volumes.retain(|volume| !volume.anonymous || taken.insert(volume.target.clone()));
        Ok(self)
    }
}

/// What is said, in its order; what is said twice is said once.
fn once(texts: &[String]) -> impl Iterator<Item = &String> {
    let mut said = BTreeSet::new();
    texts.iter().filter(move |text| said.insert(*text))
}

/// The place of a mount, in its shortest form.
fn place(target: &str) -> Result<String, String> {
    let shortest = clean(target);
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    if shortest == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(shortest)
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
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid(format!("invalid spec: {text}: empty section between colons")));
    }
    let (source, target, words) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, words] => (*source, *target, *words),
        _ => return Err(invalid(format!("invalid volume specification `{text}`"))),
    };
    let options = mode(words)?;
    let target = place(target)
        .map_err(|reason| invalid(format!("invalid volume specification: '{text}': {reason}")))?;
    if source.starts_with('/') || source.starts_with('.') {
        return bind(text, source, &target, options.readonly).map(Mounted::Bind);
    }
    volume_mount(source, &target, options).map(Mounted::Volume)
}

/// `ro,z,nocopy`: of each kind one word at most.
fn mode(text: &str) -> Result<Options, Failure> {
    // The second are labels of security modules, which are not there.
    const KINDS: [&[&str]; 3] = [&["ro", "readonly", "rw"], &["z", "Z"], &["nocopy"]];
    let words: Vec<&str> = text.split(',').filter(|word| !word.is_empty()).collect();
    let counts = KINDS.map(|kind| words.iter().filter(|word| kind.contains(word)).count());
    if counts.iter().sum::<usize>() != words.len() || counts.iter().any(|count| *count > 1) {
        return Err(invalid(format!("invalid mode: {text}")));
    }
    let readonly = words.iter().any(|word| matches!(*word, "ro" | "readonly"));
    Ok(Options { readonly, no_copy: words.contains(&"nocopy") })
}

/// A volume; one without a name gets one that nobody else has.
fn volume_mount(name: &str, target: &str, options: Options) -> Result<VolumeMount, Failure> {
    let anonymous = name.is_empty();
    let name = if anonymous { generate_id().map_err(run_failure)? } else { name.to_owned() };
    let Options { readonly, no_copy } = options;
    Ok(VolumeMount { name, target: target.to_owned(), readonly, no_copy, anonymous })
}

fn bind(text: &str, source: &str, target: &str, readonly: bool) -> Result<Bind, Failure> {
    let missing = |error| invalid(format!("invalid mount `{text}`: `{source}`: {error}"));
    let source = std::path::absolute(source).map_err(missing)?;
    Ok(Bind { source: source.to_string_lossy().into_owned(), target: target.to_owned(), readonly })
}

/// `PATH[:OPTIONS]`.
fn parse_tmpfs(text: &str) -> Result<Tmpfs, Failure> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs { target: place(target).map_err(invalid)?, ..Tmpfs::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        set_tmpfs(&mut tmpfs, option)?;
    }
    Ok(tmpfs)
}

/// Sets one option; of those that contradict each other the last one counts.
fn set_tmpfs(tmpfs: &mut Tmpfs, option: &str) -> Result<(), Failure> {
    let refused = || invalid(format!("invalid tmpfs option \"{option}\""));
    let own = &mut tmpfs.options;
    match option.split_once('=') {
        Some(("size", value)) => own.size_bytes = Some(size("--tmpfs size", value)?),
        Some(("nr_inodes", value)) => own.inodes_max = Some(size("--tmpfs nr_inodes", value)?),
        Some(("mode", value)) => own.mode = Some(octal(value).ok_or_else(refused)?),
        Some(("uid", value)) => own.uid = Some(value.parse().map_err(|_| refused())?),
        Some(("gid", value)) => own.gid = Some(value.parse().map_err(|_| refused())?),
        Some(_) => return Err(refused()),
        None => match option {
            "ro" | "rw" => tmpfs.readonly = option == "ro",
            "exec" | "noexec" => tmpfs.exec = option == "exec",
            "suid" | "nosuid" => tmpfs.suid = option == "suid",
            "dev" | "nodev" => tmpfs.dev = option == "dev",
            _ => return Err(refused()),
        },
    }
    Ok(())
}

/// Permissions, as `chmod` takes them.
fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// `type=volume,source=…,target=…`.
fn mount(text: &str) -> Result<Mounted, Failure> {
    let (mut kind, mut source, mut target, mut tmpfs) = ("volume", "", "", TmpfsOptions::default());
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
            "tmpfs-size" => tmpfs.size_bytes = Some(size("tmpfs-size", value)?),
            "tmpfs-mode" => {
                let refused = || invalid(format!("invalid value for tmpfs-mode: {value}"));
                tmpfs.mode = Some(octal(value).ok_or_else(refused)?);
            }
            _ => return Err(invalid(format!("unexpected key `{name}` in `{field}`"))),
        }
    }
    if target.is_empty() {
        return Err(invalid(format!("invalid mount `{text}`: target is required")));
    }
    let target = place(target)
        .map_err(|reason| invalid(format!("invalid mount config for type \"{kind}\": {reason}")))?;
    match kind {
        "bind" if source.is_empty() => Err(invalid(format!("invalid mount `{text}`: source is required"))),
        "bind" => bind(text, source, &target, options.readonly).map(Mounted::Bind),
        "tmpfs" => {
            let readonly = options.readonly;
            Ok(Mounted::Tmpfs(Tmpfs { target, options: tmpfs, readonly, ..Tmpfs::default() }))
        }
        "volume" => volume_mount(source, &target, options).map(Mounted::Volume),
        _ => Err(invalid(format!("invalid mount `{text}`: unknown type `{kind}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::create::tests::options;
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
        for text in [
            "name:b",
            "b",
            "/a:b",
            "/a:/b:nosuch",
            "/a:/b:ro:x",
            "name:/",
            "/a:/b:rw,ro",
            "/a:/b:z,Z",
            "/a:/b/..",
        ] {
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
        assert_eq!((tmpfs.target.as_str(), tmpfs.options.size_bytes), ("/t", Some(1 << 20)));
        for text in [
            "type=bind,target=/b",
            "type=bind,source=/a",
            "type=x,target=/b",
            "type=bind,nosuch=1,target=/b",
            "type=tmpfs,target=b",
            "type=tmpfs,target=/",
            "type=tmpfs,target=/b,tmpfs-mode=9",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
        let tmpfs = parse_tmpfs("/t:size=1k,exec,ro,rw,mode=1777,uid=5,gid=6,nr_inodes=50,suid,dev").unwrap();
        let options = TmpfsOptions {
            size_bytes: Some(1024),
            inodes_max: Some(50),
            mode: Some(0o1777),
            uid: Some(5),
            gid: Some(6),
        };
        let expected =
            Tmpfs { target: "/t".to_owned(), options, readonly: false, exec: true, suid: true, dev: true };
        assert_eq!(tmpfs, expected);
        for text in ["/t:nosuch", "/t:mode=99", "/t:uid=a", "t", "/", "/t/..", ""] {
            assert!(parse_tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_is_one_mount_s() {
        let settled = |line: &str| parse(&options(line));
        for line in
            ["-v /a:/x -v /b:/x/", "-v /a:/x --tmpfs /x", "--tmpfs /x --mount type=bind,src=/a,dst=/x"]
        {
            let refused = settled(&format!("create {line} i")).unwrap_err();
            assert_eq!(refused.message, "Duplicate mount point: /x", "{line}");
        }
        for line in ["-v /a:/x -v /a:/x", "-v /x -v a:/x", "-v /x -v /x", "-v /a:/x -v /a:/x/y"] {
            let mounts = settled(&format!("create {line} i")).unwrap();
            assert!(mounts.volumes.len() + mounts.binds.len() <= 2, "{line}");
        }
        let mounts = settled("create --tmpfs /x:exec --tmpfs /x/:ro i").unwrap();
        assert!(
            matches!(&mounts.tmpfs[..], [Tmpfs { readonly: true, exec: false, .. }]),
            "the last one counts"
        );
    }

    #[test]
    fn what_an_image_asks_for_is_a_place_too() {
        let asking = |target: &str| {
            let mut spec = ContainerSpec::default();
            spec.config.volumes.insert(target.to_owned());
            add_images(&mut spec).map(|()| spec.volumes.remove(0).target)
        };
        assert_eq!(asking("data/./x/").unwrap(), "/data/x");
        assert!(asking("/").is_err() && asking("/a/..").is_err());
    }
}
