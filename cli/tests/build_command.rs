//! `rbuild build`, from the outside.

use crate::common::TestEnvironment;

#[test]
fn a_build_leaves_an_image() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo hi >/x\n");
    let outcome = test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(outcome.ran(), ["RUN echo hi >/x"]);
    assert_eq!(test.run("app", "cat /x"), "hi\n");
    assert_eq!(test.build_tree(&context, &[]).text("x"), "hi\n");
    test.assert_sound();
}
