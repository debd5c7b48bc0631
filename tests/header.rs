//! The committed header is what cbindgen makes of src/ffi, and its example is c_tests/example.c.

#[path = "common/header.rs"]
mod header;

use std::fs;
use std::path::Path;

const HEADER: &str = "include/session_group.h";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let source = cbindgen::Builder::new().with_crate(root());
    header::check_committed(root(), HEADER, source);
}

#[test]
fn the_example_in_the_header_is_the_one_that_is_run() {
    header::check_example(root(), HEADER);
}

/// Also those that C++ gets as pointers, and what the loader calls: the whole body is one call of a guard, but for
/// declarations, which can't panic.
#[test]
fn every_function_that_others_call_is_guarded_and_exports_are_listed() {
    let mut exported = Vec::new();
    let mut others = 0;
    for entry in fs::read_dir(root().join("src/ffi")).unwrap().flatten() {
        let file = syn::parse_file(&fs::read_to_string(entry.path()).unwrap()).unwrap();
        for item in file.items {
            let syn::Item::Fn(function) = item else { continue };
            if function.sig.abi.is_none() {
                continue;
            }
            let name = function.sig.ident.to_string();
            // It only passes its arguments on.
            let guards: &[&str] = match name.as_str() {
                "SessionGroup_Run" => &["SessionGroup_RunOn"],
                _ => &["guard", "guard_infallible", "reported"],
            };
            assert!(is_guarded(&function.block, guards), "{name} lets panics out");
            match has_no_mangle(&function.attrs) {
                true => exported.push(name),
                false => others += 1,
            }
        }
    }
    exported.sort();
    let listed = header::read(root(), "c_tests/exports.txt");
    assert_eq!(exported, listed.lines().collect::<Vec<_>>());
    assert!(others >= 12, "those of the table FUNCTIONS: {others}");
}

fn is_guarded(block: &syn::Block, guards: &[&str]) -> bool {
    let statements: Vec<_> =
        block.stmts.iter().filter(|statement| !matches!(statement, syn::Stmt::Item(_))).collect();
    match statements.as_slice() {
        [syn::Stmt::Expr(syn::Expr::Unsafe(inner), None)] => is_guarded(&inner.block, guards),
        [syn::Stmt::Expr(syn::Expr::Call(call), _)] => match &*call.func {
            syn::Expr::Path(path) => {
                path.path.get_ident().is_some_and(|name| guards.iter().any(|guard| name == guard))
            }
            _ => false,
        },
        _ => false,
    }
}

fn has_no_mangle(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("unsafe") && list.tokens.to_string() == "no_mangle"
    })
}

#[test]
fn a_body_that_does_more_than_call_a_guard_is_found() {
    let guarded = |body: &str| {
        is_guarded(&syn::parse_str(body).expect("a block"), &["guard", "guard_infallible"])
    };
    assert!(guarded("{ guard(status, (), || Ok(())) }"));
    assert!(guarded("{ unsafe { guard_infallible((), || drop(x)) } }"));
    assert!(guarded("{ guard_infallible((), || {}); }"));
    assert!(!guarded("{ x.unwrap(); guard(status, (), || Ok(())) }"));
    assert!(!guarded("{ let y = f(x); unsafe { guard(status, (), || g(y)) } }"));
    assert!(!guarded("{ f(guard(status, (), || Ok(()))) }"));
    assert!(!guarded("{}"));
}
