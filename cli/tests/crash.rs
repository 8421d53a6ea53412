//! What a store survives: processes killed at every fail point and at any moment, full disks, damaged files.
//!
//! Each round begins with an empty store, brings an image into it and builds on it, and something goes wrong on the way. Then
//! the store has to be sound, the same commands have to give the same image as they do undisturbed, and nothing may be
//! left over.

mod damage;
mod fail_points;
mod full_disk;
mod kills;
mod many;

use std::path::PathBuf;

use crate::common::{Context, Outcome, Rbuild, TestEnvironment, layers_are_deltas};

const DOCKERFILE: &str = "FROM busybox AS one
COPY a /a
RUN --mount=type=cache,target=/cache cat /a >/cache/a && cp /cache/a /b
FROM busybox
COPY --from=one /b /b
COPY d /d
RUN wc -c </b >/count && rm /b
";

/// What is done in each round.
struct Scene {
    test: TestEnvironment,
    context: Context,
    /// The base image, with the times that it was made at.
    base: PathBuf,
    /// The id of what is built.
    expected: String,
    rounds: u32,
}

impl Scene {
    /// Does everything once, undisturbed. `None` where containers cannot run.
    fn new() -> Option<Self> {
        let test = TestEnvironment::with_base()?;
        let files = [("Dockerfile", DOCKERFILE), ("a", "content\n"), ("d/same", "same"), ("d/in/other", "2")];
        let context = test.context("context", &files);
        let base = test.path("base.tar");
        test.rbuild(&["save", "-o", base.to_str().unwrap(), "busybox"]).outcome().succeeds();
        let mut scene = Self { test, context, base, expected: String::new(), rounds: 0 };
        scene.renew();
        scene.commands().for_each(|command| drop(command.outcome().succeeds()));
        scene.expected = scene.test.image_id("app");
        Some(scene)
    }

    /// Begins with an empty store.
    fn renew(&mut self) {
        self.rounds += 1;
        self.test.set_store(self.test.path(&format!("store-{}", self.rounds)));
    }

    /// Fetch and build; what is to be told from something is built once more before, of other files.
    fn commands(&self) -> impl Iterator<Item = Rbuild> {
        let load = self.test.rbuild(&["load", "-i", self.base.to_str().unwrap()]);
        let build = |changed: &str| {
            self.context.write("d/changed", changed);
            self.test.build_command(&self.context, &["-t", "app"])
        };
        let contents: &[&str] = if layers_are_deltas() { &["before", "after"] } else { &["after"] };
        // The same times in every round, so that the same image comes of it.
        std::iter::once(load)
            .chain(contents.iter().map(move |changed| build(changed)))
            .map(|command| command.env("SOURCE_DATE_EPOCH", "1000000000"))
    }

    /// Both, with a fail point armed.
    fn fail(&self, fail_point: &str) -> Vec<Outcome> {
        self.commands().map(|command| command.env("RBUILD_FAIL_POINT", fail_point).outcome()).collect()
    }

    /// The store is sound, and whatever went wrong, the same comes of the same commands.
    #[track_caller]
    fn assert_recovers(&self) {
        self.test.assert_sound();
        self.assert_builds();
    }

    #[track_caller]
    fn assert_builds(&self) {
        self.commands().for_each(|command| drop(command.outcome().succeeds()));
        assert_eq!(self.test.image_id("app"), self.expected);
        self.test.assert_sound();
        for directory in ["active", "ingest", "trash", "leases", "locks"] {
            assert_eq!(self.test.store_entries(directory), 0, "{directory}");
        }
    }
}
