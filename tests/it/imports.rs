//! Imports of `src/` run one way: from the top of the table in `src/README.md` to its bottom, without circles of files.
//!
//! An import is a path that starts with `crate::` or `super::`. The use of a module's own parts is not an import. Code that
//! is compiled only for tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::Item;

use crate::contract::{files, text};
use crate::messages::{attributes, is_test};

/// A module by the parts of its path, such as `["domain", "plan"]`.
type Module = Vec<String>;

/// The imports within a layer that the table allows.
const WITHIN_LAYER: [(&str, &str); 9] = [
    ("main", "telemetry"),
    ("render", "command"),
    ("explain", "sync"),
    ("preview", "sync"),
    ("falcon", "secrets"),
    ("tailscale", "secrets"),
    ("upstream", "json"),
    ("config", "settings"),
    ("settings", "text"),
];

fn module(file: &Path) -> Option<Module> {
    let path = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let parts: Module = path
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    let is_for_tests = parts
        .iter()
        .any(|part| part == "tests" || part == "testing");
    (!is_for_tests && parts != ["lib"]).then_some(parts)
}

/// Adds the paths among these tokens that start with a root of `roots`, each as the parts after the root. A list in braces
/// adds one path for each of its first parts.
fn add_paths(tokens: TokenStream, roots: &BTreeMap<&str, Module>, paths: &mut BTreeSet<Module>) {
    let mut path: Option<Module> = None;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                let name = name.to_string();
                match (&mut path, roots.get(name.as_str())) {
                    (Some(parts), _) if name == "super" => {
                        parts.pop();
                    }
                    (Some(parts), _) => parts.push(name),
                    (None, Some(root)) => path = Some(root.clone()),
                    (None, None) => {}
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            TokenTree::Group(group) => {
                if let Some(prefix) = path.take() {
                    let is_first = |token: &TokenTree| matches!(token, TokenTree::Ident(_));
                    let parts: Vec<TokenTree> = group.stream().into_iter().collect();
                    for list in parts.split(|t| t.to_string() == ",") {
                        let first = list
                            .iter()
                            .take_while(|t| is_first(t) || t.to_string() == ":");
                        let names = first.filter(|t| is_first(t)).map(ToString::to_string);
                        paths.insert(prefix.iter().cloned().chain(names).collect());
                    }
                    paths.insert(prefix);
                }
                add_paths(group.stream(), roots, paths);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => paths.extend(path.take()),
        }
    }
    paths.extend(path);
}

/// The imported modules by importing module.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let sources: BTreeMap<Module, _> = files("src", "rs")
        .into_iter()
        .filter_map(|file| Some((module(&file)?, file)))
        .collect();
    let mut imports = BTreeMap::new();
    for (module, file) in &sources {
        let parent = module[..module.len() - 1].to_vec();
        let roots = BTreeMap::from([
            ("crate", Module::new()),
            ("falcon_posture_sync", Module::new()),
            ("super", parent),
        ]);
        let mut paths = BTreeSet::new();
        let items = syn::parse_file(&text(file)).unwrap().items;
        for item in items.into_iter().filter(|item| !is_test(attributes(item))) {
            if !matches!(item, Item::Macro(_)) {
                add_paths(quote::ToTokens::into_token_stream(item), &roots, &mut paths);
            }
        }
        let targets = paths.iter().filter_map(|path| {
            let lengths = (1..=path.len()).rev();
            let mut prefixes = lengths.map(|length| path[..length].to_vec());
            prefixes.find(|prefix| sources.contains_key(prefix))
        });
        let others: BTreeSet<Module> = targets
            .filter(|target| !target.starts_with(module))
            .collect();
        imports.insert(module.clone(), others);
    }
    imports
}

/// The layer of each top-level module, by the table in `src/README.md`. Layer 0 is the top.
fn layers() -> BTreeMap<String, usize> {
    let readme = text("src/README.md");
    let table = readme
        .lines()
        .skip_while(|line| !line.starts_with("| layer |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut layers = BTreeMap::new();
    for (layer, row) in table.enumerate() {
        let modules = row.split('|').nth(2).unwrap();
        for module in modules.split('`').skip(1).step_by(2) {
            layers.insert(module.to_owned(), layer);
        }
    }
    layers
}

#[test]
fn imports_run_from_the_top_of_the_table_to_its_bottom() {
    let layers = layers();
    let mut wrong = Vec::new();
    for (module, targets) in imports() {
        let from = &module[0];
        let layer = layers.get(from);
        let layer = layer.unwrap_or_else(|| panic!("the table in src/README.md lacks `{from}`"));
        for target in targets {
            let to = &target[0];
            let is_allowed = from == to
                || layers.get(to).is_some_and(|below| below > layer)
                || WITHIN_LAYER.contains(&(from, to));
            if !is_allowed {
                wrong.push(format!("{} -> {}", module.join("::"), target.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Removes modules without imports until none is left: each of the others is part of a circle, or imports one.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut imports = imports();
    assert!(imports.len() > 90, "{}", imports.len());
    assert!(imports.values().any(|targets| targets.len() > 5));
    loop {
        let done: BTreeSet<Module> = imports
            .iter()
            .filter(|(_, targets)| targets.is_empty())
            .map(|(module, _)| module.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        imports.retain(|module, _| !done.contains(module));
        for targets in imports.values_mut() {
            targets.retain(|target| !done.contains(target));
        }
    }
    let left = imports.into_iter().map(|(module, targets)| {
        let targets: Vec<String> = targets.iter().map(|target| target.join("::")).collect();
        format!("{} -> {}", module.join("::"), targets.join(", "))
    });
    let left: Vec<String> = left.collect();
    assert!(left.is_empty(), "{left:#?}");
}
