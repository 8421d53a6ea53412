//! Cache mounts: what stays from one build to the next, and who shares it.

use crate::common::TestEnvironment;

/// A Dockerfile of RUNs that never come from the cache.
fn dockerfile(runs: &[&str]) -> String {
    let runs: String = runs.iter().map(|run| format!("RUN {run}\n")).collect();
    format!(
        "FROM busybox AS base\nRUN mkdir /seed && echo first >/seed/file && chown 7:8 /seed && chmod 0750 /seed\n\
             FROM busybox\nWORKDIR /work\n{runs}"
    )
}

#[test]
fn a_cache_outlives_builds_and_is_in_no_layer() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context =
        test.dockerfile(&dockerfile(&["--mount=type=cache,target=/c echo line >>/c/log && cp /c/log /log"]));
    for lines in 1..=3 {
        let tree = test.build_tree(&context, &["--no-cache"]);
        assert_eq!(tree.text("log"), "line\n".repeat(lines));
        assert!(!tree.has("c"));
    }
}

#[test]
fn the_id_is_the_target_as_written() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(&dockerfile(&[
        "--mount=type=cache,target=c echo relative >/work/c/x",
        "--mount=type=cache,target=/work/c test ! -e /work/c/x",
        "--mount=type=cache,target=/elsewhere,id=c test -e /elsewhere/x",
        "--mount=type=cache,target=/a,id=c --mount=type=cache,target=/b,id=c touch /a/y && test -e /b/y",
        "--mount=type=cache,target=/a,id=c,sharing=private --mount=type=cache,target=/b,id=c,sharing=private touch /a/z && test -e /b/z",
        "--mount=type=cache,target=/a,id=c,sharing=locked --mount=type=cache,target=/b,id=c,sharing=locked test -e /b/z",
        "--mount=type=cache,target=/ro,id=c,ro ! touch /ro/y2",
        "--mount=type=cache,target=/dev/shm,id=c test -e /dev/shm/y",
    ]));
    test.build(&context, &[]).succeeds();
    let spaced = test.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/x,id=c test ! -e /x/y\n");
    test.build(&spaced, &["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"]).succeeds();
    test.build(&spaced, &["--no-cache"]).exits(1);
}

#[test]
fn a_cache_begins_as_what_it_is_from() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(&dockerfile(&[
        "--mount=type=cache,target=/c,from=base,source=/seed test \"$(stat -c '%a %u %g' /c)\" = '750 7 8' && echo more >>/c/file",
        "--mount=type=cache,target=/c,from=base,source=/seed cat /c/file >/seen",
        "--mount=type=cache,target=/c test ! -e /c/file",
        "--mount=type=cache,target=/c,from=base test -e /c/seed/file && test \"$(stat -c %a /c)\" = 755",
        "--mount=type=cache,target=/f,from=base,source=/seed/file test \"$(cat /f)\" = first && echo kept >/f",
        "--mount=type=cache,target=/f,from=base,source=/seed/file cat /f >>/seen",
    ]));
    assert_eq!(test.build_tree(&context, &[]).text("seen"), "first\nmore\nkept\n");
    let context =
        test.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,from=busybox,source=/nosuch true\n");
    test.build(&context, &[]).exits(1).says(&["mount at `/c`: the source has no `/nosuch`"]);
    test.assert_sound();
}

#[test]
fn owner_and_mode_are_part_of_an_instance() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(&dockerfile(&[
        "--mount=type=cache,target=/c test \"$(stat -c '%a %u %g' /c)\" = '755 0 0' && touch /c/x",
        "--mount=type=cache,target=/c,mode=0700,uid=5 test \"$(stat -c '%a %u %g' /c)\" = '700 5 0' && test ! -e /c/x && chmod 0711 /c",
        "--mount=type=cache,target=/c,uid=5,mode=0700 test \"$(stat -c '%a %u %g' /c)\" = '711 5 0'",
    ]));
    test.build(&context, &[]).succeeds();
}

#[test]
fn users_at_the_same_time_share_wait_or_get_their_own() {
    let Some(test) = TestEnvironment::with_base() else { return };
    // Two steps that wait for one another's file, at most as long as it takes to be sure.
    let meet = "touch $M/$ME; n=0; until [ -e $M/$OTHER ] || [ $n = 50 ]; do sleep 0.1; n=$((n+1)); done";
    let stages = |sharing: &str, check: &str| {
        let stage = |me: &str, other: &str| {
            format!(
                "FROM busybox AS {me}\nENV ME={me} OTHER={other} M=/c\n\
                 RUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} {}\n",
                check.replace("MEET", meet)
            )
        };
        format!(
            "{}{}FROM busybox\nCOPY --from=a /ok /\nCOPY --from=b /ok /\n",
            stage("a", "b"),
            stage("b", "a")
        )
    };
    let cases = [
        ("shared", "MEET; test -e /c/$OTHER && touch /ok"),
        ("locked", "! test -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy && touch /ok"),
        (
            "private",
            "if [ $ME = a ]; then touch /c/a; sleep 0.5; else sleep 0.2; test ! -e /c/a; fi && touch /ok",
        ),
    ];
    for (sharing, check) in cases {
        test.build(&test.dockerfile(&stages(sharing, check)), &["--no-cache"]).succeeds();
    }
}

#[test]
fn every_user_can_write_to_a_cache_that_nobody_gave_an_owner() {
    let Some(test) = TestEnvironment::with_base() else { return };
    if !crate::common::is_root("several users") {
        return;
    }
    let context = test.dockerfile(&dockerfile(&[
        "--mount=type=cache,target=/c test \"$(stat -c '%a %u' /c)\" = '755 0' && touch /c/roots",
        "true\nUSER 1000",
        "--mount=type=cache,target=/c touch /c/theirs && ls /c >/tmp/seen",
        "true\nUSER 2000:2000",
        "--mount=type=cache,target=/c touch /c/others",
        "--mount=type=cache,target=/own,mode=0755 ! touch /own/x",
    ]));
    assert_eq!(test.build_tree(&context, &[]).text("tmp/seen"), "roots\ntheirs\n");
}
