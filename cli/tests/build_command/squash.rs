//! `--squash`: one layer of all that a build adds.

use crate::common::TestEnvironment;

#[test]
fn what_a_build_adds_becomes_one_layer() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let text = "FROM busybox\nRUN echo 1 >/passing; echo 1 >/kept\nRUN rm /passing /bin/vi; echo 2 >>/kept\n";
    let context = test.dockerfile(text);
    test.build(&context, &["-t", "plain"]).succeeds();
    let outcome = test.build(&context, &["-t", "squashed", "--squash"]).succeeds();
    assert_eq!(outcome.ran(), [""; 0]);
    let layers = |name: &str| test.inspect(name)["RootFS"]["Layers"].as_array().unwrap().clone();
    let (base, plain, squashed) = (layers("busybox"), layers("plain"), layers("squashed"));
    assert_eq!((base.len(), plain.len(), squashed.len()), (1, 3, 2));
    assert_eq!(squashed[0], base[0]);
    let list = "cat /kept; ls /passing /bin/vi 2>&1; ls / /bin | wc -l";
    assert_eq!(test.run("squashed", list), test.run("plain", list));
    test.assert_sound();

    // Neither the base nor what is one layer already has to be squashed.
    test.build(&test.dockerfile("FROM busybox\nRUN echo 1 >/x\n"), &["-t", "one"]).succeeds();
    test.build(&test.dockerfile("FROM busybox\nRUN echo 1 >/x\n"), &["-t", "same", "--squash"]).succeeds();
    assert_eq!(test.image_id("one"), test.image_id("same"));
}
