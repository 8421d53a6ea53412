//! `version`, `info`, `completion` and `man`: what rbuild tells about itself.

use serde_json::Value;

use crate::common::TestEnvironment;

#[test]
fn the_program_tells_about_itself() {
    let test = TestEnvironment::new();
    let said = |line: &[&str]| test.rbuild(line).outcome().succeeds().stdout;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(said(&["version"]), format!("rbuild {version}\n"));
    let format = "{{.Client.Version}} {{.Server.Os}}";
    assert_eq!(said(&["version", "--format", format]), format!("{version} linux\n"));
    let about: Value = test.rbuild(&["info", "--format", "json"]).outcome().succeeds().json();
    assert_eq!((&about["Containers"], &about["Images"]), (&0.into(), &0.into()));
    assert_eq!(about["DockerRootDir"], test.store().to_str().unwrap());
    let text = said(&["system", "info"]);
    let lines = ["Containers: 0\n Running: 0\n", "Images: 0\n", "OSType: linux\n", "Options:\n  seccomp,"];
    for line in lines {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let text = test.rbuild(&["info"]).env("RBUILD_LAYERS", "directory").outcome().succeeds().stdout;
    assert!(text.contains("Storage Driver: overlayfs\n Copies: directories (as asked for)\n"), "{text}");
    test.rbuild(&["info", "-f", "{{.Nosuch}}"]).outcome().exits(1);
}

#[test]
fn completions_and_man_pages_are_made_of_the_definitions() {
    let test = TestEnvironment::new();
    for (shell, words) in
        [("bash", "complete -F _rbuild"), ("zsh", "#compdef rbuild"), ("fish", "complete -c rbuild")]
    {
        let script = test.rbuild(&["completion", shell]).outcome().succeeds().stdout;
        assert!(script.contains(words) && script.contains("no-trunc"), "{shell}");
    }
    test.rbuild(&["completion", "csh"]).outcome().exits(2);
    test.rbuild(&["man", "pages/man1"]).outcome().succeeds();
    let page = test.read("pages/man1/rbuild-image-history.1");
    assert!(page.contains(r"rbuild\-image\-history") && page.contains(r"no\-trunc"), "{page}");
    assert!(test.read("pages/man1/rbuild.1").contains("No daemon"));
}
