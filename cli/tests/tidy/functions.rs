//! Rules about functions: `unsafe` in one file, and a ratchet on length.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::{Source, assert_none, sources};

/// The only file with `unsafe`.
const UNSAFE_FILE: &str = "executor/src/sys.rs";

/// A function longer than this needs a reason that one can see.
const FUNCTION_LINES_MAX: usize = 70;

/// The functions that have one: file, name, lines, reason. The list may only shrink, and so may they.
const LONG_FUNCTIONS: [(&str, &str, usize, &str); 0] = [];

/// What is to be known of one file.
#[derive(Default)]
struct Findings {
    /// Name and length, from the signature to the closing brace.
    functions: Vec<(String, usize)>,
    unsafe_lines: Vec<usize>,
}

impl Findings {
    fn of(source: &Source) -> Self {
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let mut findings = Self::default();
        findings.visit_file(&file);
        findings
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = body.span().end().line - signature.span().start().line + 1;
        self.functions.push((signature.ident.to_string(), lines));
        if let Some(token) = signature.unsafety {
            self.unsafe_lines.push(token.span.start().line);
        }
    }
}

impl<'ast> Visit<'ast> for Findings {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.function(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.unsafe_lines.extend(item.unsafety.map(|token| token.span.start().line));
        visit::visit_item_impl(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_lines.push(block.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, block);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
}

#[test]
fn unsafe_is_in_one_file() {
    let sources = sources();
    let others = sources.iter().filter(|source| source.is_rust() && source.path != UNSAFE_FILE);
    let complaints: Vec<String> = others
        .flat_map(|source| {
            Findings::of(source).unsafe_lines.into_iter().map(|line| format!("{}:{line}", source.path))
        })
        .collect();
    assert_none("`unsafe` belongs into executor/src/sys.rs, with its reason", &complaints);
}

#[test]
fn functions_stay_short() {
    let sources = sources();
    let mut complaints = Vec::new();
    let mut seen = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        for (name, lines) in Findings::of(source).functions {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            seen.push((source.path.clone(), name.clone()));
            match LONG_FUNCTIONS.iter().find(|long| (long.0, long.1) == (&source.path, &name)) {
                Some(long) if lines == long.2 => {}
                Some(long) => {
                    complaints.push(format!("{}: `{name}`: {} lines, now {lines}", source.path, long.2));
                }
                None => complaints.push(format!("{}: `{name}`: {lines} lines", source.path)),
            }
        }
    }
    for (path, name, ..) in LONG_FUNCTIONS {
        if !seen.contains(&(path.to_owned(), name.to_owned())) {
            complaints.push(format!("{path}: `{name}` is long no more: take it off the list"));
        }
    }
    assert_none(
        "functions have at most 70 lines, or an entry in LONG_FUNCTIONS that only shrinks",
        &complaints,
    );
}

#[test]
fn what_is_looked_for_is_found() {
    let text = "//! x\nimpl A {\n    unsafe fn f() {\n        unsafe { g() }\n    }\n}\n#[cfg(test)]\nmod tests { fn t() {} }\n";
    let source = Source { path: "a.rs".to_owned(), text: text.to_owned() };
    let findings = Findings::of(&source);
    assert_eq!(findings.functions, [("f".to_owned(), 3)]);
    assert_eq!(findings.unsafe_lines, [3, 4]);
}
