//! `testdata/subrequests`: what is asked of Dockerfiles besides building them, and what BuildKit answered.

use std::fs;
use std::path::Path;

use rbuild_frontend::{Answer, Options, check, describe, outline, targets};
use rbuild_image::Platform;

use crate::images::Fixtures;

fn assert_answers(folder: &Path, name: &str, answer: &Answer) {
    for (extension, actual) in [("txt", &answer.text), ("json", &answer.json)] {
        let path = folder.join(format!("{name}.{extension}"));
        let expected = fs::read_to_string(&path).unwrap_or_default();
        // How many blank lines follow is the client's matter.
        assert!(
            expected.trim_end_matches('\n') == actual.trim_end_matches('\n'),
            "{} differs; it would be\n{actual}",
            path.display()
        );
    }
}

#[test]
fn questions_are_answered_as_buildkit_does() {
    let root = crate::testdata("subrequests");
    for case in ["stages", "plain", "inherited"] {
        let folder = root.join(case);
        let source = fs::read(folder.join("Dockerfile")).unwrap();
        let mut options = Options::new(Platform::new("linux", "amd64", None), "2026-01-02T03:04:05Z");
        assert_answers(&folder, "targets", &targets(&source).unwrap().answer(&source));
        assert_answers(&folder, "outline", &outline(&source, &options, &Fixtures).unwrap().answer(&source));
        assert_answers(&folder, "check", &check(&source, &options, &Fixtures).answer("Dockerfile", &source));
        if case == "stages" {
            options.target = Some("APP".to_owned());
            let outline = outline(&source, &options, &Fixtures).unwrap();
            assert_answers(&folder, "outline-app", &outline.answer(&source));
        }
    }
    assert_answers(&root, "describe", &describe());
}
