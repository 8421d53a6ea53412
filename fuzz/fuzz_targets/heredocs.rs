//! Any bytes as a Dockerfile, for its here-documents: no panic, and each document is what stands between its token and
//! its end, so an instruction written anew on one line, with its documents below, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::parser::{LINE_LENGTH_BYTES_MAX, Node, parse};

fuzz_target!(|source: &[u8]| {
    let Ok(file) = parse(source) else { return };
    let escape = file.directives.escape;
    for node in file.nodes.iter().filter(|node| !node.heredocs.is_empty()) {
        // Joined from several lines it may be too long for one, or end in what would continue it.
        if node.code.len() > LINE_LENGTH_BYTES_MAX || node.code.ends_with(escape) {
            continue;
        }
        let anew = parse(rewritten(node, escape).as_bytes()).expect("what was read can be read");
        let [again] = anew.nodes.as_slice() else { panic!("one instruction became {}", anew.nodes.len()) };
        assert_eq!((&again.code, &again.heredocs), (&node.code, &node.heredocs));
    }
});

fn rewritten(node: &Node, escape: char) -> String {
    let mut text = format!("# escape={escape}\n{}\n", node.code);
    for document in &node.heredocs {
        text.push_str(&document.content);
        text.push_str(&document.name);
        text.push('\n');
    }
    text
}
