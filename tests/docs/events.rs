//! `docs/events.md` from the events' own declarations: their names, their fields and what stands beside them.

use std::{collections::BTreeMap, fmt::Write, fs};

use serde_json::Value;

use super::{compare, root};

/// Files in which events are declared.
const SOURCES: [&str; 5] = [
    "src/engine/api/event.rs",
    "src/engine/api/event/lane.rs",
    "src/engine/api/event/quality.rs",
    "src/telemetry/sample.rs",
    "src/quality/guard.rs",
];

/// A field: its name in JSON, its type in Rust, and what it means.
struct Field {
    name: String,
    kind: String,
    doc: String,
}

/// A struct, or a variant of `EventKind`.
struct Declared {
    doc: String,
    /// The struct that a variant carries, if it carries one.
    carries: Option<String>,
    fields: Vec<Field>,
}

/// The declarations of a file: structs by their name, and the variants of `EventKind` in their order.
fn declarations(text: &str, structs: &mut BTreeMap<String, Declared>, variants: &mut Vec<(String, Declared)>) {
    let mut doc = String::new();
    let mut rename = None;
    // The name of the struct or enum that is open, and the variant in it that is open.
    let (mut item, mut variant): (Option<String>, Option<usize>) = (None, None);
    for line in text.lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if let Some(text) = trimmed.strip_prefix("///") {
            doc = format!("{doc} {}", text.trim()).trim().to_owned();
            continue;
        }
        if let Some(name) = trimmed.strip_prefix("#[serde(rename = \"").and_then(|rest| rest.split('"').next()) {
            rename = Some(name.to_owned());
        }
        if trimmed.starts_with("#[") {
            continue;
        }
        if indent == 0 {
            let name = |prefix: &str| trimmed.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(" {")).map(str::to_owned);
            if let Some(name) = name("pub struct ") {
                structs.insert(name.clone(), Declared { doc: doc.clone(), carries: None, fields: Vec::new() });
                item = Some(name);
            } else if let Some(name) = name("pub enum ") {
                item = Some(name);
            } else if trimmed == "}" {
                item = None;
            }
            variant = None;
        } else if let (Some(item), 4) = (&item, indent) {
            if item == "EventKind" {
                let name: String = trimmed.chars().take_while(char::is_ascii_alphanumeric).collect();
                if !name.is_empty() {
                    let carries = trimmed.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(name, _)| name.to_owned());
                    variant = trimmed.ends_with('{').then_some(variants.len());
                    variants.push((snake(&name), Declared { doc: doc.clone(), carries, fields: Vec::new() }));
                }
            } else if let (Some(declared), Some(rest)) = (structs.get_mut(item), trimmed.strip_prefix("pub ")) {
                declared.fields.extend(field(rest, &doc, rename.take()));
            }
        } else if let (Some(at), 8) = (variant, indent) {
            variants[at].1.fields.extend(field(trimmed, &doc, rename.take()));
        }
        doc.clear();
        rename = None;
    }
}

fn field(line: &str, doc: &str, rename: Option<String>) -> Option<Field> {
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    Some(Field { name: rename.unwrap_or_else(|| name.to_owned()), kind: kind.to_owned(), doc: doc.to_owned() })
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, char) in name.chars().enumerate() {
        if char.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(char.to_ascii_lowercase());
    }
    out
}

/// All events, with their own fields or those of what they carry.
fn events() -> Vec<(String, String, Vec<Field>)> {
    let (mut structs, mut variants) = (BTreeMap::new(), Vec::new());
    for path in SOURCES {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        declarations(&text, &mut structs, &mut variants);
    }
    let fields = |declared: Declared| match declared.carries {
        None => declared.fields,
        Some(name) => structs.remove(&name).unwrap_or_else(|| panic!("{name} is declared in none of the sources")).fields,
    };
    let mut fields = fields;
    variants.into_iter().map(|(name, declared)| (name, declared.doc.clone(), fields(declared))).collect()
}

/// A type of Rust in words of JSON.
fn json_type(kind: &str) -> String {
    let kind = kind.trim();
    let inside = |outer: &str| kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Option<") {
        return format!("{} or null", json_type(inner));
    }
    if let Some(inner) = inside("Vec<") {
        return format!("list of {}", json_type(inner));
    }
    match kind {
        "u8" | "u16" | "u32" | "u64" | "usize" | "f32" | "f64" => "number",
        "bool" => "true or false",
        "String" | "Policy" => "text",
        "SessionId" => "number",
        "Lane" | "Scheduling" | "FinishReason" | "GuardState" => "name",
        kind if kind.starts_with('(') => "list",
        _ => "object",
    }
    .to_owned()
}

#[test]
fn the_list_of_events_is_up_to_date() {
    let mut out = String::new();
    for (name, doc, fields) in events() {
        writeln!(out, "### `{name}`\n\n{}\n", plain(&doc)).unwrap();
        if !fields.is_empty() {
            writeln!(out, "| field | type | means |\n|---|---|---|").unwrap();
            for Field { name, kind, doc } in fields {
                writeln!(out, "| `{name}` | {} | {} |", json_type(&kind), plain(&doc).replace('|', "\\|")).unwrap();
            }
            writeln!(out).unwrap();
        }
    }
    compare("docs/events.md", &out);
}

/// Links of a doc comment as their words.
fn plain(doc: &str) -> String {
    let mut out = doc.replace("[`", "`").replace("`]", "`");
    while let Some(at) = out.find("`(crate::") {
        let Some(end) = out[at..].find(')') else { break };
        out.replace_range(at + 1..=at + end, "");
    }
    out
}

/// Every field that the recorded run has is in the list: the search for declarations misses nothing there.
#[test]
fn the_recorded_run_has_no_field_that_the_list_has_not() {
    let known: BTreeMap<String, Vec<String>> =
        events().into_iter().map(|(name, _, fields)| (name, fields.into_iter().map(|field| field.name).collect())).collect();
    let recording = fs::read_to_string(root().join("tests/fixtures/run.jsonl")).expect("the recorded run");
    let mut kinds = 0;
    for line in recording.lines() {
        let Value::Object(event) = serde_json::from_str(line).expect("a line of JSON") else { panic!("no object: {line}") };
        let kind = event["type"].as_str().expect("a type");
        let fields = known.get(kind).unwrap_or_else(|| panic!("the event {kind} is not in the list"));
        for name in event.keys().filter(|name| !matches!(name.as_str(), "type" | "t_ms")) {
            assert!(fields.contains(name), "the event {kind} has the field {name}, the list has not");
        }
        kinds += 1;
    }
    assert!(kinds > 100, "the recorded run has {kinds} lines");
}
