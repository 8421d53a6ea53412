use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_image::{Descriptor, Digest, Index, MANIFEST_SIZE_BYTES_MAX, MediaType, Platform};

use super::{NEVER, client, content, options, registry, unwatched};
use crate::testing::{Door, FakeRegistry, Fault};
use crate::{Anonymous, Client, ClientOptions, Error, ErrorCode, Mirror, Result, Watch};

const SIZE: usize = 100_000;

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn fetch(registry: &FakeRegistry, blob: &Descriptor) -> (Result<()>, Vec<u8>) {
    let mut sink = Vec::new();
    let result = client().fetch_blob(&registry.reference("app"), blob, &mut sink, unwatched());
    (result, sink)
}

fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new(), String::new())
}

fn slow_down() -> Fault {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"rate limit"}]}"#;
    Fault::Status(429, vec![("Retry-After", "0".to_owned())], body.to_owned())
}

#[test]
fn blobs_survive_passing_faults() {
    let cases: [(&str, Vec<(usize, Fault)>); 10] = [
        ("none", vec![]),
        ("429 with Retry-After", vec![(3, slow_down())]),
        ("500, 503", vec![(2, status(500)), (1, status(503))]),
        ("a cut at once", vec![(1, Fault::CutAfter(0))]),
        ("cuts in the middle", vec![(3, Fault::CutAfter(30_000))]),
        ("a cut, then the range ignored", vec![(1, Fault::CutAfter(30_000)), (1, Fault::RangeIgnored)]),
        ("a cut, then short ranges", vec![(1, Fault::CutAfter(30_000)), (2, Fault::ShortRange(20_000))]),
        ("a cut after the last byte but one", vec![(1, Fault::CutAfter(SIZE - 1))]),
        ("a connection that says nothing", vec![(1, Fault::Silence)]),
        ("a trickle", vec![(1, Fault::Drip(Duration::from_millis(100)))]),
    ];
    for (name, faults) in cases {
        let registry = registry();
        let bytes = content(SIZE);
        let blob = registry.add_blob("app", &bytes);
        for (times, fault) in faults {
            registry.plan("GET", "/blobs/", times, fault);
        }
        let (result, sink) = fetch(&registry, &blob);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(sink == bytes, "{name}");
    }
}

#[test]
fn a_cut_blob_is_resumed_where_it_broke() {
    let registry = registry();
    let blob = registry.add_blob("app", &content(SIZE));
    registry.plan("GET", "/blobs/", 1, Fault::CutAfter(30_000));
    let seen = Mutex::new(Vec::new());
    let watch = Watch { progress: &|bytes| seen.lock().unwrap().push(bytes), cancel: &NEVER };
    client().fetch_blob(&registry.reference("app"), &blob, &mut io::sink(), watch).unwrap();
    let requests = registry.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=30000-")]);
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&(SIZE as u64)), "{seen:?}");
}

#[test]
fn blobs_that_cannot_be_had_say_why() {
    type Check = fn(&Error) -> bool;
    let cases: [(&str, Fault, Check); 11] = [
        ("429", slow_down(), |error| error.code() == Some(&ErrorCode::TooManyRequests)),
        (
            "429, come back tomorrow",
            Fault::Status(429, vec![("Retry-After", "86400".into())], String::new()),
            { |error| error.retry_after() == Some(Duration::from_secs(86400)) },
        ),
        ("500", status(500), |error| error.status() == Some(500)),
        ("404", status(404), |error| error.is_not_found()),
        ("wrong bytes", Fault::WrongBytes, |error| matches!(error, Error::DigestMismatch { .. })),
        ("short", Fault::Shorter(SIZE - 1), |error| {
            matches!(error, Error::SizeMismatch { expected_bytes, found_bytes, .. }
                if (*expected_bytes, *found_bytes) == (SIZE as u64, SIZE as u64 - 1))
        }),
        ("endless", Fault::Endless, |error| matches!(error, Error::TooLarge { .. })),
        ("cut at once, always", Fault::CutAfter(0), |error| matches!(error, Error::Network { .. })),
        ("a circle", Fault::Redirect("/v2/app/blobs/again".into()), |error| {
            matches!(error, Error::Redirect { .. })
        }),
        ("to a file", Fault::Redirect("file:///etc/passwd".into()), |error| {
            matches!(error, Error::Redirect { .. })
        }),
        ("to the link", Fault::Redirect("http://169.254.169.254/latest".into()), |error| {
            matches!(error, Error::Redirect { .. })
        }),
    ];
    for (name, fault, check) in cases {
        let registry = registry();
        let blob = registry.add_blob("app", &content(SIZE));
        registry.plan("GET", "/blobs/", usize::MAX, fault);
        let error = fetch(&registry, &blob).0.expect_err(name);
        assert!(check(&error), "{name}: {error:?}");
        assert!(registry.count("GET", "/blobs/") <= 11, "{name}");
    }
}

#[test]
fn a_range_that_leaves_a_gap_is_refused() {
    let registry = registry();
    let blob = registry.add_blob("app", &content(SIZE));
    registry.plan("GET", "/blobs/", 1, Fault::CutAfter(30_000));
    registry.plan("GET", "/blobs/", 1, Fault::RangeElsewhere);
    let error = fetch(&registry, &blob).0.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[test]
fn a_large_blob_is_fetched_in_ranges() {
    let bytes = content(SIZE);
    let range = SIZE as u64 / 10;
    type Faults = Vec<(usize, Fault)>;
    let cases: [(&str, usize, Faults); 7] = [
        ("none", 10, vec![]),
        ("a server without ranges", 1, vec![(1, Fault::RangeIgnored)]),
        ("short ranges at first", 11, vec![(1, Fault::ShortRange(20))]),
        ("a cut at first", 11, vec![(1, Fault::CutAfter(10))]),
        ("not served", 11, vec![(1, status(503))]),
        ("no range any more", usize::MAX, vec![(1, Fault::Headers(vec![])), (1, Fault::RangeIgnored)]),
        ("cuts later", usize::MAX, vec![(1, Fault::Headers(vec![])), (2, Fault::CutAfter(10))]),
    ];
    for (name, requests, faults) in cases {
        let registry = registry();
        let blob = registry.add_blob("app", &bytes);
        for (times, fault) in faults {
            registry.plan("GET", "/blobs/", times, fault);
        }
        let client = Client::new(ClientOptions { range_size_bytes: range, ..options() }, Arc::new(Anonymous));
        let mut sink = Vec::new();
        let fetched = client.fetch_blob(&registry.reference("app"), &blob, &mut sink, unwatched());
        fetched.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(sink == bytes, "{name}");
        let asked = registry.count("GET", "/blobs/");
        assert!(if requests == usize::MAX { asked > 10 } else { asked == requests }, "{name}: {asked}");
    }
}

#[test]
fn a_good_number_of_cuts_does_not_matter_while_it_gets_on() {
    let registry = registry();
    let bytes = content(5_000_000);
    let blob = registry.add_blob("app", &bytes);
    registry.plan("GET", "/blobs/", 12, Fault::CutAfter(400_000));
    let (result, sink) = fetch(&registry, &blob);
    result.unwrap();
    assert!(sink == bytes);
    assert_eq!(registry.count("GET", "/blobs/"), 13);
}

#[test]
fn authorization_stays_at_home() {
    let (registry, elsewhere) = (registry(), registry());
    registry.set_door(Door::Token { login: None, uses: 10 });
    let bytes = content(SIZE);
    let blob = registry.add_blob("app", &bytes);
    elsewhere.add_blob("app", &bytes);
    // The first request is the one that is asked for a token.
    registry.add_image("app", "latest", &amd64(), &[]);
    let client = client();
    client.resolve(&registry.reference("app"), &NEVER).unwrap();
    let target = elsewhere.url(&format!("/v2/app/blobs/{}?X-Signature=secret", blob.digest));
    registry.plan("GET", "/blobs/", 1, Fault::Redirect(target));
    let mut sink = Vec::new();
    client.fetch_blob(&registry.reference("app"), &blob, &mut sink, unwatched()).unwrap();
    assert!(sink == bytes);
    assert!(registry.requests().last().unwrap().header("authorization").is_some());
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
}

#[test]
fn errors_do_not_show_signatures() {
    let (registry, elsewhere) = (registry(), registry());
    let blob = Descriptor::of(MediaType::OciLayer, b"x");
    registry.plan("GET", "/blobs/", 1, Fault::Redirect(elsewhere.url("/v2/x/blobs/y?sig=secret")));
    let error = fetch(&registry, &blob).0.unwrap_err();
    assert!(error.is_not_found());
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn a_failing_sink_is_not_retried() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let registry = registry();
    let blob = registry.add_blob("app", b"content");
    let error = client().fetch_blob(&registry.reference("app"), &blob, &mut Full, unwatched()).unwrap_err();
    assert!(matches!(error, Error::Sink { .. }));
    assert_eq!(registry.count("GET", "/blobs/"), 1);
}

#[test]
fn a_raised_flag_stops_what_hangs() {
    let registry = registry();
    let blob = registry.add_blob("app", &content(SIZE));
    registry.plan("GET", "/blobs/", usize::MAX, Fault::Drip(Duration::from_millis(1)));
    let cancel = AtomicBool::new(false);
    let stop_soon = |bytes| cancel.store(bytes > 2, Ordering::Relaxed);
    let watch = Watch { progress: &stop_soon, cancel: &cancel };
    let error = client().fetch_blob(&registry.reference("app"), &blob, &mut io::sink(), watch).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    registry.plan("GET", "/manifests/", usize::MAX, Fault::Silence);
    let raised = AtomicBool::new(true);
    assert!(matches!(client().resolve(&registry.reference("app"), &raised), Err(Error::Cancelled)));
}

#[test]
fn many_threads_share_a_client() {
    let registry = registry();
    registry.set_door(Door::Token { login: None, uses: 100 });
    let blobs: Vec<_> = (0..20).map(|n| registry.add_blob("app", &content(10_000 + n))).collect();
    let client = client();
    std::thread::scope(|scope| {
        for blob in &blobs {
            scope.spawn(|| {
                let mut sink = Vec::new();
                client.fetch_blob(&registry.reference("app"), blob, &mut sink, unwatched()).unwrap();
            });
        }
    });
    assert!(registry.count("GET", "/token") <= 2, "one thread fetches the token for all");
}

#[test]
fn an_image_is_resolved_through_its_index() {
    let registry = registry();
    let arm = registry.add_image("app", "arm", &Platform::new("linux", "arm64", None), &[b"arm"]);
    let amd = registry.add_image("app", "amd", &amd64(), &[b"one", b"two"]);
    let index = Index::new(vec![arm, amd.clone()]);
    let stored = registry.add_manifest("app", "1", &MediaType::OciIndex, &index.to_bytes());
    let image = client().resolve_platform(&registry.reference("app:1"), &amd64(), &NEVER).unwrap();
    assert_eq!(image.index.unwrap().descriptor, stored);
    assert_eq!(image.manifest.descriptor.digest, amd.digest);
    assert_eq!(image.parsed.layers.len(), 2);
    assert_eq!(Digest::of(&image.config.bytes), image.parsed.config.digest);

    let riscv = Platform::new("linux", "riscv64", None);
    match client().resolve_platform(&registry.reference("app:1"), &riscv, &NEVER) {
        Err(Error::NoPlatform { available, .. }) => assert_eq!(available.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn head_and_resolve_agree() {
    let registry = registry();
    registry.add_image("app", "1", &amd64(), &[b"layer"]);
    let reference = registry.reference("app:1");
    let resolved = client().resolve(&reference, &NEVER).unwrap();
    assert_eq!(client().head(&reference, &NEVER).unwrap(), Some(resolved.descriptor.clone()));
    let pinned = reference.with_digest(resolved.descriptor.digest);
    assert_eq!(client().resolve(&pinned, &NEVER).unwrap(), resolved);
    assert_eq!(client().head(&registry.reference("app:2"), &NEVER).unwrap(), None);
    assert_eq!(client().head(&registry.reference("other"), &NEVER).unwrap(), None);
}

#[test]
fn manifests_are_checked() {
    type Check = fn(&Error) -> bool;
    let big = "x".repeat(usize::try_from(MANIFEST_SIZE_BYTES_MAX).unwrap() + 1);
    let cases: [(&str, Fault, Check); 6] = [
        ("a trickle", Fault::Drip(Duration::from_millis(60)), |error| matches!(error, Error::Stalled { .. })),
        ("wrong bytes", Fault::WrongBytes, |error| matches!(error, Error::DigestMismatch { .. })),
        ("too large", Fault::Status(200, Vec::new(), big), |error| matches!(error, Error::TooLarge { .. })),
        ("endless", Fault::Endless, |error| matches!(error, Error::TooLarge { .. })),
        ("a web page", Fault::Status(200, Vec::new(), "<html>".into()), |error| {
            matches!(error, Error::UnsupportedMediaType { .. })
        }),
        ("cut", Fault::CutAfter(5), |error| matches!(error, Error::Network { .. })),
    ];
    for (name, fault, check) in cases {
        let registry = registry();
        registry.add_image("app", "1", &amd64(), &[b"layer"]);
        registry.plan("GET", "/manifests/", usize::MAX, fault);
        let error = client().resolve(&registry.reference("app:1"), &NEVER).expect_err(name);
        assert!(check(&error), "{name}: {error:?}");
    }
}

#[test]
fn missing_names_are_typed() {
    let registry = registry();
    registry.add_image("app", "1", &amd64(), &[]);
    let code = |rest: &str| {
        let error = client().resolve(&registry.reference(rest), &NEVER).unwrap_err();
        error.code().cloned()
    };
    assert_eq!(code("app:2"), Some(ErrorCode::ManifestUnknown));
    assert_eq!(code("other"), Some(ErrorCode::NameUnknown));
}

#[test]
fn an_unreachable_registry_fails_soon() {
    let gone = registry().reference("app");
    let error = client().resolve(&gone, &NEVER).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
}

#[test]
fn lists_are_followed_through_their_pages() {
    let registry = registry();
    for tag in ["a", "b", "c"] {
        registry.add_image("app", tag, &amd64(), &[]);
    }
    assert_eq!(client().list_tags(&registry.reference("app"), &NEVER).unwrap(), ["a", "b", "c"]);
    assert_eq!(client().catalog(&registry.name(), &NEVER).unwrap(), ["app"]);
    assert!(client().list_tags(&registry.reference("none"), &NEVER).unwrap_err().is_not_found());
}

#[test]
fn warnings_are_passed_on() {
    let registry = registry();
    registry.add_image("app", "1", &amd64(), &[]);
    let warning = ("Warning", "299 - \"deprecated\"".to_owned());
    registry.plan("GET", "/manifests/", 1, Fault::Headers(vec![warning]));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let mut options = options();
    options.warnings = Some(Arc::new(move |_: &str, text: &str| told.lock().unwrap().push(text.to_owned())));
    Client::new(options, Arc::new(Anonymous)).resolve(&registry.reference("app:1"), &NEVER).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["deprecated"]);
}

#[test]
fn mirrors_are_asked_first_and_left_when_they_fail() {
    type Step = fn(&FakeRegistry, &FakeRegistry);
    // What mirror and registry are asked for a blob of the registry: when the mirror has it, lacks it, fails, breaks off.
    let cases: [(&str, Step, usize); 4] = [
        ("has it", |_, _| {}, 0),
        ("lacks it", |mirror, _| mirror.plan("GET", "/blobs/", usize::MAX, status(404)), 1),
        ("fails", |mirror, _| mirror.plan("GET", "/blobs/", usize::MAX, status(500)), 1),
        ("breaks off", |mirror, _| mirror.plan("GET", "/blobs/", usize::MAX, Fault::CutAfter(10_000)), 1),
    ];
    for (name, step, asked) in cases {
        let (mirror, origin) = (registry(), registry());
        let bytes = content(SIZE);
        let blob = origin.add_blob("app", &bytes);
        mirror.add_blob("proxied/app", &bytes);
        step(&mirror, &origin);
        let place = |registry: &FakeRegistry| registry.reference("app").registry().to_owned();
        let location = format!("{}/proxied", place(&mirror));
        let mirrors = [(place(&origin), vec![Mirror { location, by_digest_only: false }])].into();
        let client = Client::new(ClientOptions { mirrors, ..options() }, Arc::new(Anonymous));
        let mut sink = Vec::new();
        client.fetch_blob(&origin.reference("app"), &blob, &mut sink, unwatched()).expect(name);
        assert!(sink == bytes, "{name}");
        assert_eq!(origin.count("GET", "/blobs/"), asked, "{name}");
        let before = mirror.count("GET", "/blobs/");
        client.fetch_blob(&origin.reference("app"), &blob, &mut Vec::new(), unwatched()).expect(name);
        // A mirror that failed is left alone; one that lacked something may have the next.
        let again = mirror.count("GET", "/blobs/") - before;
        assert_eq!(again, usize::from(matches!(name, "has it" | "lacks it")), "{name}");
    }
}

#[test]
fn what_is_blocked_is_not_asked_for() {
    let registry = registry();
    let blob = registry.add_blob("team/app", &content(SIZE));
    let blocked = [format!("{}/team", registry.reference("app").registry())].into();
    let client = Client::new(ClientOptions { blocked, ..options() }, Arc::new(Anonymous));
    let fetched = client.fetch_blob(&registry.reference("team/app"), &blob, &mut io::sink(), unwatched());
    assert!(matches!(fetched, Err(Error::Blocked { .. })), "{fetched:?}");
    assert_eq!(registry.count("GET", ""), 0);
}
