//! Shared caches that do not what they should: whatever they answer, the build is right, says of each at most once what was wrong,
//! and leaves nothing wrong in the store.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rbuild_registry::testing::Fault;

use super::{STEPS, another, machine};
use crate::common::Outcome;

/// More than a document may have.
const TOO_MUCH_BYTES: usize = (4 << 20) + 1;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new(), String::new())
}

/// What one thing may take. What is slow costs this, and what is repeated in vain as well.
pub(super) const LIMIT: &str = "timeout=500ms";

fn document(media_type: &str, text: &str) -> Fault {
    Fault::Status(200, vec![("Content-Type", media_type.to_owned())], text.to_owned())
}

/// What any answer can be.
fn answers() -> Vec<(&'static str, Fault)> {
    let redirect = |to: &str| Fault::Redirect(to.to_owned());
    let later = |seconds: &str| Fault::Status(429, vec![("Retry-After", seconds.to_owned())], String::new());
    vec![
        ("endless", Fault::Endless),
        ("of another length", Fault::Shorter(10)),
        ("of another digest", Fault::WrongBytes),
        ("cut", Fault::CutAfter(10)),
        ("in a circle", redirect("/v2/cache/manifests/x/cache/blobs/x")),
        ("from a file", redirect("file:///etc/passwd")),
        ("from the link", redirect("http://169.254.169.254/latest/meta-data")),
        ("an error", status(500)),
        ("a refusal", status(403)),
        ("tomorrow", later("86400")),
        ("nonsense", document(MANIFEST, "{\"schemaVersion\":")),
        ("silence", Fault::Silence),
        ("a drip", Fault::Drip(Duration::from_millis(20))),
    ]
}

/// What can only be in the place of a document.
fn documents() -> Vec<(&'static str, Fault)> {
    let digest = rbuild_image::Digest::of(b"deeper");
    let deeper = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"{INDEX}\",\"digest\":\"{digest}\",\"size\":7}}]}}"
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let of_another = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{digest}\",\
         \"size\":2}},\"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{digest}\",\
         \"size\":99999999999}}]}}"
    );
    vec![
        ("huge", document(MANIFEST, &" ".repeat(TOO_MUCH_BYTES))),
        ("an index of indexes", document(INDEX, &deeper)),
        ("deep", document(MANIFEST, &deep)),
        ("of something else", document(MANIFEST, &of_another)),
    ]
}

/// Says what was wrong, once for each direction.
#[track_caller]
pub(super) fn is_right_and_says_so_once(built: Outcome, name: &str) -> Outcome {
    let built = built.succeeds();
    for warning in ["was not used", "were not used", "was not written"] {
        assert!(built.stderr.matches(warning).count() <= 1, "{name}: {}", built.stderr);
    }
    built
}

#[test]
fn what_a_cache_answers_is_right_or_is_not_used() {
    let Some((mut test, context, registry)) = machine() else { return };
    let cache = format!("type=registry,ref={}/cache", registry.name());
    test.build(&context, &["--cache-to", &format!("{cache},mode=max")]).succeeds();
    let of_documents = answers().into_iter().chain(documents()).map(|answer| ("/cache/manifests/", answer));
    let cases = of_documents.chain(answers().into_iter().map(|answer| ("/cache/blobs/", answer)));
    for (number, (path, (name, fault))) in cases.enumerate() {
        let name = format!("{path}: {name}");
        registry.forgive();
        registry.plan("GET", path, usize::MAX, fault);
        another(&mut test, &format!("reader {number}"));
        let built = test.build(&context, &["-t", "app", "--cache-from", &format!("{cache},{LIMIT}")]);
        let built = is_right_and_says_so_once(built, &name);
        assert!(!built.ran().is_empty(), "{name}: something was taken");
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n", "{name}");
        test.assert_sound();
    }
    registry.forgive();
    registry.plan("GET", "/cache/", 2, Fault::Status(429, vec![("Retry-After", "1".into())], String::new()));
    another(&mut test, "patient");
    let patient = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(patient.says_nothing_of(&["warning"]).ran(), [""; 0]);
}

#[test]
fn what_a_cache_does_not_take_is_not_in_it() {
    let Some((mut test, context, registry)) = machine() else { return };
    let statuses = [status(500), status(403), status(413), status(429), Fault::CutAfter(0), Fault::Endless];
    let requests = [
        ("HEAD", "/blobs/"),
        ("POST", "/blobs/uploads/"),
        ("PATCH", "/blobs/uploads/"),
        ("PUT", "/blobs/uploads/"),
        ("PUT", "/manifests/"),
        ("GET", "/manifests/"),
    ];
    let lost = [("PUT", Fault::LostAnswer), ("PUT", Fault::HalfLost)]
        .map(|(method, fault)| ((method, "/manifests/"), fault));
    let cases = lost.into_iter().chain(requests.into_iter().zip(statuses));
    for (number, ((method, path), fault)) in cases.enumerate() {
        let name = format!("{method} {path}: {fault:?}");
        registry.forgive();
        let repository = format!("cache{number}");
        registry.plan(method, &format!("/{repository}{path}"), usize::MAX, fault);
        another(&mut test, &format!("writer {number}"));
        let cache = format!("type=registry,ref={}/{repository}", registry.name());
        let line = ["-t", "app", "--cache-from", &cache, "--cache-to", &format!("{cache},mode=max")];
        let built = is_right_and_says_so_once(test.build(&context, &line), &name);
        assert_eq!(built.ran().len(), STEPS.len(), "{name}");
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n", "{name}");
        test.assert_sound();
        // What it has all the same is whole.
        registry.forgive();
        another(&mut test, &format!("reader of {number}"));
        let read = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n", "{name}");
        // A document of which half was lost is none, and is written anew.
        let torn = method == "PUT" && path == "/manifests/";
        assert!(torn || !read.stderr.contains("warning"), "{name}: {}", read.stderr);
        test.assert_sound();
    }
}

/// What can become of a file: its name, and how.
type Spoiling = (&'static str, fn(&Path));

/// What can become of a file of a directory, or an object of a bucket.
fn spoilings() -> Vec<Spoiling> {
    vec![
        ("empty", |file| fs::write(file, "").unwrap()),
        ("torn", |file| {
            let content = fs::read(file).unwrap();
            fs::write(file, &content[..content.len() / 2]).unwrap();
        }),
        ("changed", |file| {
            let mut content = fs::read(file).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            fs::write(file, content).unwrap();
        }),
        ("longer", |file| {
            let content = fs::read(file).unwrap();
            fs::write(file, [content, vec![b' '; TOO_MUCH_BYTES]].concat()).unwrap();
        }),
        ("gone", |file| fs::remove_file(file).unwrap()),
        ("a directory", |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }),
        ("a link to nothing", |file| {
            fs::remove_file(file).unwrap();
            symlink("nowhere", file).unwrap();
        }),
    ]
}

#[test]
fn what_lies_in_a_directory_is_right_or_is_not_used() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let directory = test.path("cache");
    let below = ["records", "blobs/sha256"];
    let cases = below.into_iter().flat_map(|place| spoilings().into_iter().map(move |how| (place, how)));
    for (number, (place, (name, spoil))) in cases.enumerate() {
        another(&mut test, &format!("writer {number}"));
        let to = format!("type=local,dest={},mode=max", directory.display());
        test.build(&context, &["--cache-to", &to]).succeeds();
        for file in fs::read_dir(directory.join(place)).unwrap() {
            spoil(&file.unwrap().path());
        }
        another(&mut test, &format!("reader {number}"));
        let from = format!("type=local,src={}", directory.display());
        let built = test.build(&context, &["-t", "app", "--cache-from", &from]);
        is_right_and_says_so_once(built, name);
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n", "{place}: {name}");
        test.assert_sound();
        fs::remove_dir_all(&directory).unwrap();
    }
}
