//! A list of all texts in the code that a person may read: errors, findings, remedies, checks, log lines, pages.
//!
//! The list holds the string literals of `src/` with at least two words, except those of tests. It is sorted by text and
//! leaves out the names of variables: moving or renaming code does not change it, and a changed text is one line of a diff.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, Lit};

use crate::contract::{files, text};

/// Removes the names between braces: `{name:?}` becomes `{:?}`.
fn without_names(text: &str) -> String {
    let mut parts = text.split('{');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let rest = part.trim_start_matches(name);
        let is_argument = rest.starts_with('}') || rest.starts_with(':');
        result.push('{');
        result.push_str(if is_argument { rest } else { part });
    }
    result
}

/// Returns true if an item is compiled only for tests.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

/// Returns the attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Mod(module) => &module.attrs,
        Item::Fn(function) => &function.attrs,
        Item::Impl(implementation) => &implementation.attrs,
        Item::Use(import) => &import.attrs,
        _ => &[],
    }
}

/// Adds the texts among these tokens, except doc comments (`#[doc = "..."]`) and reasons of lints (`reason = "..."`).
fn collect(tokens: TokenStream, texts: &mut BTreeSet<String>) {
    let mut doc = false;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => doc = name == "doc" || name == "reason",
            TokenTree::Group(group) => {
                collect(group.stream(), texts);
                doc = false;
            }
            TokenTree::Literal(literal) => {
                if let Lit::Str(literal) = Lit::new(literal) {
                    let text = literal.value();
                    if !doc && text.trim().contains(' ') {
                        texts.insert(format!("{:?}", without_names(&text)));
                    }
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn messages() {
    let mut texts = BTreeSet::new();
    for file in files("src", "rs") {
        let parsed = syn::parse_file(&text(&file)).unwrap();
        let of_tests = ["tests", "tests.rs", "testing"];
        if file
            .components()
            .any(|part| of_tests.iter().any(|name| part.as_os_str() == *name))
        {
            continue;
        }
        for item in parsed.items {
            if !is_test(attributes(&item)) {
                collect(quote::ToTokens::into_token_stream(item), &mut texts);
            }
        }
    }
    assert!(texts.len() > 100);
    let texts: Vec<String> = texts.into_iter().collect();
    insta::assert_snapshot!(texts.join("\n"));
}
