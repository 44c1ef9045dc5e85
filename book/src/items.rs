//! Parts of source files, by their names, so that the sources need no marks for the book.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{ImplItem, Item};

/// A named part of a Rust file.
pub struct Part {
    /// The modules in which it is, its type if it is a method, and its name.
    pub path: Vec<String>,
    /// Its lines, counted from 0; the comments above it and its attributes are among them.
    pub lines: std::ops::Range<usize>,
    /// Whether it is a test.
    pub is_test: bool,
}

/// Returns all functions, types, constants and blocks `impl` of a Rust file, in their order.
///
/// # Errors
///
/// The file is no Rust.
pub fn parts(source: &str) -> syn::Result<Vec<Part>> {
    let mut parts = Vec::new();
    collect(&syn::parse_file(source)?.items, &[], &mut parts);
    Ok(parts)
}

fn collect(items: &[Item], path: &[String], parts: &mut Vec<Part>) {
    for item in items {
        let (name, span) = match item {
            Item::Fn(it) => (it.sig.ident.to_string(), it.span()),
            Item::Const(it) => (it.ident.to_string(), it.span()),
            Item::Static(it) => (it.ident.to_string(), it.span()),
            Item::Struct(it) => (it.ident.to_string(), it.span()),
            Item::Enum(it) => (it.ident.to_string(), it.span()),
            Item::Trait(it) => (it.ident.to_string(), it.span()),
            Item::Type(it) => (it.ident.to_string(), it.span()),
            Item::Mod(it) => (it.ident.to_string(), it.span()),
            Item::Impl(it) => (format!("impl {}", type_name(&it.self_ty)), it.span()),
            _ => continue,
        };
        let is_test = match item {
            Item::Fn(it) => it.attrs.iter().any(is_test) || is_promise(it),
            _ => false,
        };
        parts.push(part(path, &name, span, is_test));
        match item {
            Item::Mod(it) => {
                let inner = it.content.as_ref().map_or(&[][..], |(_, items)| items);
                collect(inner, &[path, &[name]].concat(), parts);
            }
            Item::Impl(it) => {
                let path = [path, &[type_name(&it.self_ty)]].concat();
                for method in &it.items {
                    if let ImplItem::Fn(method) = method {
                        let name = method.sig.ident.to_string();
                        parts.push(part(&path, &name, method.span(), false));
                    }
                }
            }
            _ => {}
        }
    }
}

fn part(path: &[String], name: &str, span: Span, is_test: bool) -> Part {
    Part {
        path: [path, &[name.to_owned()]].concat(),
        lines: span.start().line - 1..span.end().line,
        is_test,
    }
}

fn type_name(kind: &syn::Type) -> String {
    match kind {
        syn::Type::Path(kind) => kind.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    }
    .unwrap_or_default()
}

/// Whether an attribute makes a function a test: `#[test]`, or `#[rstest]`.
fn is_test(attribute: &syn::Attribute) -> bool {
    ["test", "rstest"]
        .iter()
        .any(|name| attribute.path().is_ident(name))
}

/// Whether a function is a promise: it is public, asks one subject, and returns whether the promise is `Kept`.
fn is_promise(function: &syn::ItemFn) -> bool {
    let is_kept = match &function.sig.output {
        syn::ReturnType::Type(_, kind) => type_name(kind) == "Kept",
        syn::ReturnType::Default => false,
    };
    is_kept && function.sig.inputs.len() == 1 && matches!(function.vis, syn::Visibility::Public(_))
}

/// Returns the part of a Rust file that has this name, without its indentation: `serve`,
/// `Server::accept`, or `impl Reader`.
#[must_use]
pub fn item(source: &str, parts: &[Part], name: &str) -> Option<String> {
    let wanted: Vec<&str> = name.split("::").collect();
    let found = parts.iter().find(|part| {
        let end = part.path.len().checked_sub(wanted.len());
        end.is_some_and(|end| part.path[end..] == wanted)
    })?;
    let lines: Vec<&str> = source.lines().collect();
    Some(dedent(&lines[found.lines.clone()]))
}

/// Returns a part of another file. It begins at the first line that contains this text, and ends
/// before an empty line that is followed by no deeper line.
#[must_use]
pub fn paragraph(source: &str, text: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().collect();
    let begin = lines.iter().position(|line| line.contains(text))?;
    let depth = indentation(lines[begin]);
    let is_end = |at: &usize| {
        let next = lines[*at..].iter().find(|line| !line.is_empty());
        lines[*at].is_empty() && next.is_none_or(|next| indentation(next) <= depth)
    };
    let end = (begin..lines.len()).find(is_end);
    Some(dedent(&lines[begin..end.unwrap_or(lines.len())]))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Joins lines, without the indentation that all of them have.
pub fn dedent(lines: &[&str]) -> String {
    let filled = lines.iter().filter(|line| !line.trim().is_empty());
    let common = filled.map(|line| indentation(line)).min().unwrap_or(0);
    let dedented = lines
        .iter()
        .map(|line| line.get(common..).unwrap_or_default());
    dedented.collect::<Vec<_>>().join("\n")
}
