use std::time::Duration;

use rbuild_image::Digest;

use super::{client, content, registry, unwatched};
use crate::testing::{Fault, ServedFile};
use crate::{Error, HttpFile, HttpOutcome, HttpRequest, Secret};

const SIZE: usize = 100_000;

fn request(url: String) -> HttpRequest {
    HttpRequest { url, headers: Vec::new(), etag: None, last_modified: None, size_bytes_max: 1 << 20 }
}

fn file() -> ServedFile {
    ServedFile {
        content: content(SIZE),
        etag: Some("\"v1\"".into()),
        last_modified: Some("Wed, 21 Oct 2015 07:28:00 GMT".into()),
    }
}

#[test]
fn a_file_is_fetched_once() {
    let registry = registry();
    registry.add_file("a.tar", file());
    let mut asked = request(registry.url("/files/a.tar"));
    let mut sink = Vec::new();
    let outcome = client().http_get(&asked, &mut sink, unwatched()).unwrap();
    let expected = HttpFile {
        digest: Digest::of(content(SIZE)),
        size_bytes: SIZE as u64,
        etag: Some("\"v1\"".into()),
        last_modified: Some("Wed, 21 Oct 2015 07:28:00 GMT".into()),
        last_modified_seconds: Some(1_445_412_480),
    };
    assert_eq!(outcome, HttpOutcome::Fetched(expected));
    assert!(sink == content(SIZE));

    asked.etag = Some("\"v1\"".into());
    let mut sink = Vec::new();
    assert_eq!(client().http_get(&asked, &mut sink, unwatched()).unwrap(), HttpOutcome::NotModified);
    assert!(sink.is_empty());

    // A server that does not look at the condition, but says what it has.
    let unconditional = Fault::Status(200, vec![("ETag", "\"v1\"".into())], "x".into());
    registry.plan("GET", "/files/", 1, unconditional);
    assert_eq!(client().http_get(&asked, &mut sink, unwatched()).unwrap(), HttpOutcome::NotModified);
    assert!(sink.is_empty());
}

#[test]
fn a_cut_file_is_resumed_if_it_is_the_same() {
    let versioned = file();
    let nameless = ServedFile { etag: None, ..file() };
    let weak = ServedFile { etag: Some("W/\"v1\"".into()), ..file() };
    for (name, file, resumes) in [("etag", versioned, true), ("none", nameless, false), ("weak", weak, false)]
    {
        let registry = registry();
        registry.add_file("a", file);
        registry.plan("GET", "/files/", 1, Fault::CutAfter(1000));
        let mut sink = Vec::new();
        match client().http_get(&request(registry.url("/files/a")), &mut sink, unwatched()) {
            Ok(_) => assert!(resumes && sink == content(SIZE), "{name}"),
            Err(error) => assert!(!resumes && matches!(error, Error::Changed { .. }), "{name}: {error:?}"),
        }
    }
}

#[test]
fn a_file_in_short_ranges_is_put_together() {
    let registry = registry();
    registry.add_file("a", file());
    registry.plan("GET", "/files/", 1, Fault::CutAfter(1000));
    registry.plan("GET", "/files/", 2, Fault::ShortRange(1000));
    let mut sink = Vec::new();
    client().http_get(&request(registry.url("/files/a")), &mut sink, unwatched()).unwrap();
    assert!(sink == content(SIZE));
}

#[test]
fn files_that_cannot_be_had_say_why() {
    type Check = fn(&Error) -> bool;
    let cases: [(&str, &str, Fault, Check); 6] = [
        ("unasked 304", "a", Fault::Status(304, vec![], String::new()), |error| error.status() == Some(304)),
        ("unasked part", "a", Fault::Status(206, vec![], "x".into()), |error| error.status() == Some(206)),
        ("missing", "none", Fault::Headers(vec![]), |error| error.is_not_found()),
        ("gone", "a", Fault::Status(410, vec![], "gone".into()), |error| error.status() == Some(410)),
        ("endless", "a", Fault::Endless, |error| matches!(error, Error::TooLarge { .. })),
        ("trickle", "a", Fault::Drip(Duration::from_millis(60)), |error| {
            matches!(error, Error::Stalled { .. })
        }),
    ];
    for (name, path, fault, check) in cases {
        let registry = registry();
        registry.add_file("a", file());
        registry.plan("GET", "/files/", usize::MAX, fault);
        let mut sink = Vec::new();
        let asked = request(registry.url(&format!("/files/{path}")));
        let error = client().http_get(&asked, &mut sink, unwatched()).expect_err(name);
        assert!(check(&error), "{name}: {error:?}");
    }
}

#[test]
fn a_file_above_the_limit_is_refused_before_it_is_stored() {
    let registry = registry();
    registry.add_file("a", file());
    let mut sink = Vec::new();
    let asked = HttpRequest { size_bytes_max: SIZE as u64 - 1, ..request(registry.url("/files/a")) };
    let error = client().http_get(&asked, &mut sink, unwatched()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }) && sink.is_empty(), "{error:?}");
    let asked = HttpRequest { size_bytes_max: SIZE as u64, ..asked };
    client().http_get(&asked, &mut sink, unwatched()).unwrap();
}

#[test]
fn private_headers_stay_at_home() {
    let (registry, elsewhere) = (registry(), registry());
    elsewhere.add_file("a", file());
    registry.plan("GET", "/files/", 1, Fault::Redirect(elsewhere.url("/files/a")));
    let mut asked = request(registry.url("/files/a"));
    let header = |name: &str, value: &str| (name.to_owned(), Secret::new(value));
    asked.headers =
        vec![header("Authorization", "token x"), header("Private-Token", "y"), header("Accept", "z")];
    client().http_get(&asked, &mut Vec::new(), unwatched()).unwrap();
    let (here, there) = (&registry.requests()[0], &elsewhere.requests()[0]);
    assert_eq!((here.header("authorization"), here.header("private-token")), (Some("token x"), Some("y")));
    assert_eq!((there.header("authorization"), there.header("private-token")), (None, None));
    assert_eq!(there.header("accept"), Some("z"));
}

#[test]
fn addresses_and_headers_are_checked() {
    let get = |asked: &HttpRequest| client().http_get(asked, &mut Vec::new(), unwatched()).unwrap_err();
    for url in ["", "ftp://a/b", "file:///etc/passwd", "http://", "a b"] {
        assert!(matches!(get(&request(url.into())), Error::Url { .. }), "{url}");
    }
    let shown = get(&request("htp://me:secret@host/x?sig=secret".into())).to_string();
    assert!(!shown.contains("secret"), "{shown}");
    let mut asked = request("http://127.0.0.1:1/".into());
    asked.headers = vec![("X-Bad".into(), Secret::new("a\nb"))];
    assert!(matches!(get(&asked), Error::Header { .. }));
}
