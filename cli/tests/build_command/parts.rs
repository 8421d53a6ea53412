//! Large layers leave as several: what an image shows does not depend on it, and its history tells which step each is of.

use std::fs;

use serde_json::Value;

use crate::common::{Context, TestEnvironment};

/// Cuts every layer of more than that.
const SIZE: (&str, &str) = ("RBUILD_PART_SIZE", "16k");
const DOCKERFILE: &str =
    "FROM busybox\nRUN echo 1 >/first\nCOPY . /app\nENV A=1\nRUN echo 2 >/app/d/5/new && rm /app/d/7/f1\n";
/// What a tree looks like, but for what a step changes each time that it runs: the times of directories.
const LIST: &str = "cd /app; find . -type d | sort | xargs stat -c '%n %f %u %g'; \
    find . -type f ! -name new | sort | xargs stat -c '%n %f %u %g %h %Y'; cat d/*/f* | md5sum";
/// These.
const TIMES: &str = "find /app -type d | sort | xargs stat -c '%n %Y'";

fn context(test: &TestEnvironment, dockerfile: &str) -> Context {
    let context = test.context("large", &[("Dockerfile", dockerfile)]);
    for directory in 0..20 {
        for file in 0..20 {
            context.write(&format!("d/{directory}/f{file}"), format!("{directory} {file}").repeat(200));
        }
    }
    context.chmod("d/7", 0o710);
    drop(fs::hard_link(context.path.join("d/3/f1"), context.path.join("d/4/linked")));
    context
}

fn layers(image: &Value) -> Vec<&str> {
    image["RootFS"]["Layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap()).collect()
}

/// The steps in an image's history that have layers, bottom first, and how many each has.
fn steps_with_layers(test: &TestEnvironment, name: &str) -> Vec<(String, usize)> {
    let lines = test.rbuild(&["history", "--no-trunc", "--format", "{{.CreatedBy}}\t{{.Size}}", name]);
    let text = lines.outcome().succeeds().stdout;
    let mut steps: Vec<(String, usize)> = Vec::new();
    for line in text.lines().rev().filter(|line| !line.ends_with("\t0B")) {
        let step = line.split('\t').next().unwrap();
        match steps.last_mut().filter(|(last, _)| last == step) {
            Some((_, count)) => *count += 1,
            None => steps.push((step.to_owned(), 1)),
        }
    }
    steps
}

#[test]
fn a_copy_of_much_is_several_layers_that_show_what_one_would() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test, DOCKERFILE);
    test.build(&context, &["-t", "one"]).succeeds();
    let whole = test.run("one", LIST);
    let modified = fs::metadata(context.path.join("d/9/f9")).unwrap().modified().unwrap();
    let mut parted = TestEnvironment::with_base().unwrap();
    let mut images = Vec::new();
    for form in ["directory", "tree", "delta"] {
        parted.set_store(parted.path(form));
        parted.import_base();
        let build = |tag| {
            let command = parted.build_command(&context, &["-t", tag]).env(SIZE.0, SIZE.1);
            // Without it, each build has its own times of what steps make.
            let command = command.env("SOURCE_DATE_EPOCH", "1000000000");
            command.env("RBUILD_LAYERS", form).outcome().succeeds()
        };
        build("parts");
        assert_eq!(parted.run("parts", LIST), whole, "{form}");
        let image = parted.inspect("parts");
        let steps = steps_with_layers(&parted, "parts");
        assert_eq!(steps.iter().map(|(_, count)| count).sum::<usize>(), layers(&image).len());
        let counts: Vec<usize> = steps.iter().map(|(_, count)| *count).collect();
        assert!(matches!(counts[..], [.., 1, parts, 1] if parts > 8), "{steps:?}");
        images.push(layers(&image).iter().map(|layer| (*layer).to_owned()).collect::<Vec<_>>());
        context.write("d/9/f9", "changed");
        build("changed");
        let changed = parted.inspect("changed");
        let new = layers(&changed).iter().filter(|layer| !images[0].iter().any(|it| it == *layer)).count();
        assert!((1..=3).contains(&new), "{form}: {new} of {counts:?}");
        context.write("d/9/f9", "9 9".repeat(200));
        let file = fs::File::options().write(true).open(context.path.join("d/9/f9")).unwrap();
        file.set_modified(modified).unwrap();
        parted.assert_sound();
    }
    assert!(images.iter().all(|image| *image == images[0]), "{images:?}");
}

#[test]
fn what_leaves_in_parts_comes_back_elsewhere() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let context = context(&test, DOCKERFILE);
    test.build_command(&context, &["-t", "parts"]).env(SIZE.0, SIZE.1).outcome().succeeds();
    let looks = |test: &TestEnvironment| [LIST, TIMES].map(|list| test.run("parts", list));
    let (whole, steps) = (looks(&test), steps_with_layers(&test, "parts"));
    let archive = test.path("parts.tar");
    let archive = archive.to_str().unwrap();
    test.rbuild(&["save", "-o", archive, "parts"]).outcome().succeeds();
    // On top of it, as it was built and where it was loaded.
    let above = "FROM parts\nRUN echo 3 >/third && rm -r /app/d/1\n";
    let built = |test: &TestEnvironment, options: &[&str]| {
        let context = test.dockerfile(above);
        test.build(&context, &[&["-t", "above"], options].concat()).succeeds();
        (test.run("above", LIST), steps_with_layers(test, "above").len())
    };
    let here = (built(&test, &[]), built(&test, &["--squash"]));
    test.rbuild(&["run", "--name", "one", "above", "touch", "/app/fourth"]).outcome().succeeds();
    test.rbuild(&["commit", "one", "committed"]).outcome().succeeds();
    assert_eq!(steps_with_layers(&test, "committed").len(), here.1.1 + 1);
    test.assert_sound();

    test.set_store(test.path("elsewhere"));
    test.rbuild(&["load", "-i", archive]).outcome().succeeds();
    assert_eq!(looks(&test), whole);
    assert_eq!(steps_with_layers(&test, "parts"), steps);
    assert_eq!((built(&test, &[]), built(&test, &["--squash"])), here);
    assert_eq!(here.0.1, steps.len() + 1);
    test.assert_sound();
}

#[test]
fn a_shared_cache_knows_which_layers_one_step_has_made() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let context = context(&test, DOCKERFILE);
    let cache = format!("type=local,dest={},mode=max", test.path("cache").display());
    let base = test.path("base.tar");
    test.rbuild(&["save", "-o", base.to_str().unwrap(), "busybox"]).outcome().succeeds();
    let another = |test: &mut TestEnvironment, name: &str| {
        test.set_store(test.path(name));
        test.rbuild(&["load", "-i", base.to_str().unwrap()]).outcome().succeeds();
    };
    another(&mut test, "first");
    let with_parts = |test: &TestEnvironment, context: &Context, options: &[&str]| {
        let options = [&["-t", "parts"], options].concat();
        test.build_command(context, &options).env(SIZE.0, SIZE.1).outcome().succeeds()
    };
    with_parts(&test, &context, &["--cache-to", &cache]);
    let looks = |test: &TestEnvironment| [LIST, TIMES].map(|list| test.run("parts", list));
    let (whole, steps, id) = (looks(&test), steps_with_layers(&test, "parts"), test.image_id("parts"));
    let cache = format!("type=local,src={}", test.path("cache").display());

    another(&mut test, "same");
    assert_eq!(with_parts(&test, &context, &["--cache-from", &cache]).ran(), [""; 0]);
    assert_eq!((test.image_id("parts"), looks(&test)), (id, whole));

    // What was found is fetched, and another step runs on it.
    another(&mut test, "changed");
    context.dockerfile(&DOCKERFILE.replace("echo 2", "echo 3"));
    context.write(".dockerignore", "Dockerfile\n.dockerignore\n");
    let changed = with_parts(&test, &context, &["--cache-from", &cache]);
    assert!(changed.ran().len() <= 2, "{:?}", changed.ran());
    let counts = |steps: &[(String, usize)]| steps.iter().map(|(_, count)| *count).collect::<Vec<_>>();
    assert_eq!(counts(&steps_with_layers(&test, "parts")).len(), counts(&steps).len());
    let image = test.inspect("parts");
    let of_steps: usize = counts(&steps_with_layers(&test, "parts")).iter().sum();
    assert_eq!(of_steps, layers(&image).len());
    test.assert_sound();
}
