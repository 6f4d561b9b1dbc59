//! The book: pages that are made from the sources are what the sources say, and no link in it leads nowhere.
//!
//! Pages are written anew where `INSTA_UPDATE` says so of snapshots: `INSTA_UPDATE=always cargo test book::`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::controller::FaultKind;
use tidegate_wasm::Limits;
use wit_parser::{Docs, Function, FunctionKind, Interface, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src")
}

/// Compares a page, or a part of one, with what it is to be.
fn assert_page(name: &str, expected: &str) {
    let path = source().join(name);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == expected, "docs/src/{name} is stale: `INSTA_UPDATE=always cargo test book::` mends it");
}

// ---- the contract ----

/// The page on the contract, from its own comments.
#[test]
fn the_contract_is_told_in_its_own_words() {
    let contract = include_str!("../wit/controller.wit");
    tell_contract("wit.md", ("controller", "The contract", contract), WORLD_OF_ONES_OWN);
}

#[test]
fn the_contract_with_handlers_is_told_in_its_own_words() {
    let contract = include_str!("../wit/handler.wit");
    tell_contract("handler-wit.md", ("handler", "The contract with handlers", contract), "");
}

fn tell_contract(file: &str, (name, title, contract): (&str, &str, &str), more: &str) {
    let mut resolve = Resolve::default();
    let package = resolve.push_str(format!("{name}.wit"), contract).unwrap();
    let package = &resolve.packages[package];
    let mut page = format!(
        "<!-- Made from wit/{name}.wit by `INSTA_UPDATE=always cargo test book::`: change the comments there. -->\n\n\
         # {title}\n\n`{}`, the file `wit/{name}.wit` of every {name}.\n\n{}",
        package.name,
        paragraphs(&package.docs)
    );
    page.push_str("## Worlds\n\nWhat a component may be built for.\n\n");
    // Those with one callback are for the host to bind.
    for (_, world) in package.worlds.iter().filter(|(name, _)| !name.starts_with("with-")) {
        tell_world(&mut page, &resolve, *world);
    }
    page.push_str(more);
    for interface in package.interfaces.values() {
        tell_interface(&mut page, &resolve, &resolve.interfaces[*interface]);
    }
    assert_page(file, &page);
}

const WORLD_OF_ONES_OWN: &str = "\
### A world of your own

For one of the optional callbacks and not the other, put the contract into `wit/deps/controller/`, and beside it a file with

```wit
package me:mine;

world mine {
  include tidegate:controller/controller@0.1.0;
  export tidegate:controller/default-batch-size@0.1.0;
}
```

";

fn tell_world(page: &mut String, resolve: &Resolve, world: WorldId) {
    let world = &resolve.worlds[world];
    let _ = write!(page, "### `{}`\n\n{}", world.name, paragraphs(&world.docs));
    for (what, items) in [("imports", &world.imports), ("exports", &world.exports)] {
        for item in items.values() {
            if let WorldItem::Interface { id, .. } = item {
                let name = resolve.interfaces[*id].name.as_deref().unwrap();
                let _ = writeln!(page, "- {what} [`{name}`](#interface-{name})");
            }
        }
    }
    page.push('\n');
}

fn tell_interface(page: &mut String, resolve: &Resolve, interface: &Interface) {
    let name = interface.name.as_deref().unwrap();
    let _ = write!(page, "## Interface `{name}`\n\n{}", paragraphs(&interface.docs));
    let free = interface.functions.values().filter(|function| matches!(function.kind, FunctionKind::Freestanding));
    for function in free {
        tell_function(page, resolve, function);
    }
    for (name, id) in &interface.types {
        tell_type(page, resolve, name, *id);
        for method in interface.functions.values().filter(|function| function.kind.resource() == Some(*id)) {
            tell_function(page, resolve, method);
        }
    }
}

fn tell_function(page: &mut String, resolve: &Resolve, function: &Function) {
    // The first parameter of a method is the resource itself.
    let own = usize::from(matches!(function.kind, FunctionKind::Method(_)));
    let parameters = function.params.iter().skip(own);
    let parameters: Vec<String> =
        parameters.map(|parameter| format!("{}: {}", parameter.name, shown(resolve, &parameter.ty))).collect();
    let resource = function.kind.resource().and_then(|id| resolve.types[id].name.as_deref());
    let name = resource.map_or_else(String::new, |resource| format!("{resource}.")) + function.item_name();
    let result = function.result.map_or_else(String::new, |result| format!(" -> {}", shown(resolve, &result)));
    let signature = format!("func({}){result}", parameters.join(", "));
    let _ = write!(
        page,
        "### `{name}`\n\n```wit\n{}: {signature}\n```\n\n{}",
        function.item_name(),
        paragraphs(&function.docs)
    );
}

fn tell_type(page: &mut String, resolve: &Resolve, name: &str, id: TypeId) {
    let definition = &resolve.types[id];
    let mut rows: Vec<(String, String)> = Vec::new();
    let kind = match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            rows.extend(
                fields.map(|field| (format!("{}: {}", field.name, shown(resolve, &field.ty)), one_line(&field.docs))),
            );
            "record"
        }
        TypeDefKind::Variant(variant) => {
            rows.extend(variant.cases.iter().map(|case| {
                let value = case.ty.map_or_else(String::new, |ty| format!("({})", shown(resolve, &ty)));
                (format!("{}{value}", case.name), one_line(&case.docs))
            }));
            "variant"
        }
        TypeDefKind::Enum(cases) => {
            rows.extend(cases.cases.iter().map(|case| (case.name.clone(), one_line(&case.docs))));
            "enum"
        }
        TypeDefKind::Resource => "resource",
        TypeDefKind::Type(ty) => {
            let _ = write!(page, "### `{name}`\n\n= `{}`. {}", shown(resolve, ty), paragraphs(&definition.docs));
            return;
        }
        TypeDefKind::List(inner) => {
            let _ =
                write!(page, "### `{name}`\n\n= `list<{}>`. {}", shown(resolve, inner), paragraphs(&definition.docs));
            return;
        }
        other => panic!("the page has no words for {other:?} yet"),
    };
    let _ = write!(page, "### {kind} `{name}`\n\n{}", paragraphs(&definition.docs));
    if !rows.is_empty() {
        page.push_str("| | |\n| --- | --- |\n");
        rows.iter().for_each(|(what, about)| _ = writeln!(page, "| `{what}` | {about} |"));
        page.push('\n');
    }
}

/// A type as the contract writes it.
fn shown(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else {
        return match ty {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U32 => "u32",
            Type::S64 => "s64",
            Type::F64 => "f64",
            Type::String => "string",
            other => panic!("the page has no word for {other:?} yet"),
        }
        .to_owned();
    };
    let definition = &resolve.types[*id];
    if let Some(name) = &definition.name {
        return name.clone();
    }
    let or_none = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), |ty| shown(resolve, ty));
    match &definition.kind {
        TypeDefKind::Option(inner) => format!("option<{}>", shown(resolve, inner)),
        TypeDefKind::List(inner) => format!("list<{}>", shown(resolve, inner)),
        TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(&result.ok), or_none(&result.err)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(|ty| shown(resolve, ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Handle(wit_parser::Handle::Own(id)) => shown(resolve, &Type::Id(*id)),
        other => panic!("the page has no words for {other:?} yet"),
    }
}

fn paragraphs(docs: &Docs) -> String {
    docs.contents.as_deref().map_or_else(String::new, |text| format!("{}\n\n", escaped(text.trim())))
}

fn one_line(docs: &Docs) -> String {
    escaped(&docs.contents.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What HTML would take for tags.
fn escaped(text: &str) -> String {
    text.replace('<', "&lt;").replace('>', "&gt;")
}

// ---- limits and faults ----

#[test]
fn the_limits_are_told_as_they_are() {
    // Taken apart, so that a new limit cannot be forgotten here.
    let Limits {
        fuel_per_call,
        deadline,
        memory_bytes,
        table_elements,
        instances,
        stack_bytes,
        data_bytes,
        handles,
        log_lines_per_second,
        log_line_bytes,
    } = Limits::default();
    let rows = [
        (
            "fuel_per_call",
            fuel_per_call,
            "units for one call, about a WebAssembly instruction each",
            FaultKind::OutOfFuel,
        ),
        ("deadline_ms", deadline.as_millis() as u64, "milliseconds of real time for one call", FaultKind::Deadline),
        ("memory_bytes", memory_bytes as u64, "bytes of linear memory in all", FaultKind::Memory),
        ("table_elements", table_elements as u64, "elements of tables in all", FaultKind::Memory),
        ("instances", instances as u64, "core instances inside the component", FaultKind::Memory),
        ("stack_bytes", stack_bytes as u64, "bytes of stack", FaultKind::Stack),
        ("data_bytes", data_bytes as u64, "bytes of texts and lists that one call passes", FaultKind::DataSize),
        ("handles", handles as u64, "live iterations, and resources of WASI", FaultKind::Handles),
    ];
    let mut table = String::from("| key | default | what it bounds | beyond it |\n| --- | --- | --- | --- |\n");
    for (key, default, what, fault) in rows {
        let _ = writeln!(table, "| `{key}` | {} | {what} | fault: {fault} |", thousands(default));
    }
    let log = [
        (
            "log_lines_per_second",
            u64::from(log_lines_per_second),
            "lines for the log in a second",
            "counted and dropped",
        ),
        ("log_line_bytes", log_line_bytes as u64, "bytes of a line for the log", "cut off"),
    ];
    for (key, default, what, beyond) in log {
        let _ = writeln!(table, "| `{key}` | {} | {what} | {beyond} |", thousands(default));
    }
    assert_page("limits-table.md", &table);
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

const FAULTS: [FaultKind; 13] = [
    FaultKind::OutOfFuel,
    FaultKind::Deadline,
    FaultKind::Memory,
    FaultKind::Stack,
    FaultKind::DataSize,
    FaultKind::Handles,
    FaultKind::Trap,
    FaultKind::ErrorReturned,
    FaultKind::OutOfRange,
    FaultKind::Unreadable,
    FaultKind::Incompatible,
    FaultKind::Compilation,
    FaultKind::WrongDigest,
];

#[test]
fn every_fault_is_told_with_its_hint() {
    let mut table = String::from("| fault | loses the instance | what to do |\n| --- | --- | --- |\n");
    for kind in FAULTS {
        let loses = if kind.loses_instance() { "yes" } else { "no" };
        let _ = writeln!(table, "| {kind} | {loses} | {} |", kind.hint());
    }
    assert_page("faults-table.md", &table);
    // None is missing: they are numbered in the order of the list.
    assert_eq!(FAULTS.map(|kind| kind as usize), std::array::from_fn(|number| number));
    let source = include_str!("../host/core/src/controller/fault.rs");
    let kinds = source.split("pub enum FaultKind {").nth(1).unwrap().split('}').next().unwrap();
    assert_eq!(kinds.lines().filter(|line| line.ends_with(',')).count(), FAULTS.len());
}

// ---- links ----

/// The pages of a folder, those in folders below it too.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] }).collect()
}

/// A page's text with what it includes, blocks of code left out. What is included has to be there.
fn text_of(page: &Path, dead: &mut Vec<String>) -> String {
    let mut text = String::new();
    let mut in_code = false;
    for line in fs::read_to_string(page).unwrap().lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if let Some(included) = line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}")) {
            // Behind the file may stand which part of it: its lines, or what is between two comments.
            let (included, part) = included.split_once(':').unwrap_or((included, ""));
            let included = page.parent().unwrap().join(included);
            let is_there =
                |text: String| !part.starts_with(char::is_alphabetic) || text.contains(&format!("ANCHOR: {part} "));
            if !fs::read_to_string(&included).is_ok_and(is_there) {
                dead.push(format!("{}: {line}", page.display()));
            } else if !in_code && part.is_empty() {
                text.push_str(&text_of(&included, dead));
            }
        } else if !in_code {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// What mdBook calls a heading in addresses.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn no_link_of_the_book_leads_nowhere() {
    let mut dead = Vec::new();
    let all = pages(&source());
    let mut seen = 0;
    for page in all.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = text_of(page, &mut dead);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found =
                target.is_file() && (anchor.is_empty() || anchors(&text_of(&target, &mut Vec::new())).contains(anchor));
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(dead, [""; 0]);
    assert!(seen > 30, "{seen} links");
}

/// What the table of contents lacks is not in the book; what is no page, a picture say, is shown by one.
#[test]
fn every_page_is_in_the_table_of_contents_or_in_a_page() {
    let summary = fs::read_to_string(source().join("SUMMARY.md")).unwrap();
    let (pages, others): (Vec<_>, Vec<_>) =
        pages(&source()).into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "md"));
    let texts: String = pages.iter().map(|page| fs::read_to_string(page).unwrap()).collect();
    for (files, place) in [(pages, &summary), (others, &texts)] {
        for file in files {
            let name = file.strip_prefix(source()).unwrap().display().to_string();
            let is_part = name.ends_with("-table.md") || name == "SUMMARY.md";
            assert!(is_part || place.contains(&format!("({name})")), "{name}");
        }
    }
}
