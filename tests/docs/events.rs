//! `docs/events.md` from the events' own declarations: their names, their fields and what stands beside them.

use std::{collections::BTreeMap, fmt::Write, fs};

use serde_json::Value;

use super::{compare, root};

/// Files in which events are declared.
const SOURCES: [&str; 5] = [
    "src/inference/engine/api/event/mod.rs",
    "src/inference/engine/api/event/lane.rs",
    "src/inference/engine/api/event/quality.rs",
    "src/inference/telemetry/sample.rs",
    "src/inference/quality/guard.rs",
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

/// What the sources declare.
#[derive(Default)]
struct Declarations {
    structs: BTreeMap<String, Declared>,
    /// Enums whose values are names: each with its name in JSON and what it means.
    names: BTreeMap<String, Vec<(String, String)>>,
    /// The variants of `EventKind`, in their order.
    events: Vec<(String, Declared)>,
}

impl Declarations {
    /// Adds those of one file.
    fn read(&mut self, text: &str) {
        let mut doc = String::new();
        let (mut rename, mut lowercase) = (None, false);
        // The name of the struct or enum that is open, and the event in it that is open.
        let (mut item, mut event): (Option<String>, Option<usize>) = (None, None);
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
            if indent == 0 && trimmed.starts_with("#[serde(") {
                lowercase = trimmed.contains("\"lowercase\"");
            }
            if trimmed.starts_with("#[") {
                continue;
            }
            if indent == 0 {
                let name = |prefix: &str| {
                    trimmed.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(" {")).map(str::to_owned)
                };
                if let Some(name) = name("pub struct ") {
                    self.structs.insert(name.clone(), Declared { doc: doc.clone(), carries: None, fields: Vec::new() });
                    item = Some(name);
                } else if let Some(name) = name("pub enum ") {
                    item = Some(name);
                } else if trimmed == "}" {
                    (item, lowercase) = (None, false);
                }
                event = None;
            } else if let (Some(item), 4) = (&item, indent) {
                let name: String = trimmed.chars().take_while(char::is_ascii_alphanumeric).collect();
                if item == "EventKind" && !name.is_empty() {
                    let carries = trimmed
                        .split_once('(')
                        .and_then(|(_, rest)| rest.split_once(')'))
                        .map(|(name, _)| name.to_owned());
                    event = trimmed.ends_with('{').then_some(self.events.len());
                    self.events.push((snake(&name), Declared { doc: doc.clone(), carries, fields: Vec::new() }));
                } else if let (Some(declared), Some(rest)) = (self.structs.get_mut(item), trimmed.strip_prefix("pub "))
                {
                    declared.fields.extend(field(rest, &doc, rename.take()));
                } else if !self.structs.contains_key(item) && trimmed == format!("{name},") {
                    let name = if lowercase { name.to_lowercase() } else { snake(&name) };
                    self.names.entry(item.clone()).or_default().push((name, doc.clone()));
                }
            } else if let (Some(at), 8) = (event, indent) {
                self.events[at].1.fields.extend(field(trimmed, &doc, rename.take()));
            }
            doc.clear();
            rename = None;
        }
    }

    /// The rows of a table of fields: name in JSON, type in words of JSON, meaning. An object's own fields follow it.
    fn rows(&self, fields: &[Field], prefix: &str, rows: &mut Vec<[String; 3]>) {
        for Field { name, kind, doc } in fields {
            let (inner, lists) = innermost(kind);
            let mut means = plain(doc);
            if let Some(names) = self.names.get(inner).filter(|_| inner != "Lane") {
                let names: Vec<_> = names.iter().map(|(name, doc)| format!("`{name}`: {}", plain(doc))).collect();
                means = format!("{means} {}", names.join(" "));
            }
            let path = format!("{prefix}{name}");
            rows.push([path.clone(), self.json_type(kind), means]);
            if let Some(object) = self.structs.get(inner) {
                self.rows(&object.fields, &format!("{path}{}.", "[]".repeat(lists)), rows);
            }
        }
    }

    /// A type of Rust in words of JSON.
    fn json_type(&self, kind: &str) -> String {
        if let Some(inner) = inside(kind, "Option<") {
            return format!("{} or null", self.json_type(inner));
        }
        if let Some(inner) = inside(kind, "Vec<") {
            let inner = self.json_type(inner);
            return match inner.split_once(' ') {
                Some(("list", rest)) => format!("list of lists {rest}"),
                _ if inner.starts_with('`') => format!("list of {inner}"),
                _ => format!("list of {inner}s"),
            };
        }
        match kind {
            "u8" | "u16" | "u32" | "u64" | "usize" | "f32" | "f64" | "SessionId" => "number",
            "bool" => "true or false",
            "String" | "Policy" => "text",
            "Lane" => "`kcache` or `kv`",
            kind if kind.starts_with('(') => "pair",
            kind if self.names.contains_key(kind) => "name",
            kind if self.structs.contains_key(kind) => "object",
            kind => panic!("the type {kind} is declared in none of the sources"),
        }
        .to_owned()
    }

    /// The fields of an event: its own, or those of what it carries.
    fn fields<'a>(&'a self, event: &'a Declared) -> &'a [Field] {
        let carried = |name: &String| {
            self.structs.get(name).unwrap_or_else(|| panic!("{name} is declared in none of the sources"))
        };
        event.carries.as_ref().map_or(&event.fields, |name| &carried(name).fields)
    }
}

/// What stands between `outer` and its closing `>`.
fn inside<'a>(kind: &'a str, outer: &str) -> Option<&'a str> {
    kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'))
}

/// A type without the options and lists around it, and how many lists there were.
fn innermost(kind: &str) -> (&str, usize) {
    match (inside(kind, "Option<"), inside(kind, "Vec<")) {
        (Some(inner), _) => innermost(inner),
        (_, Some(inner)) => (innermost(inner).0, innermost(inner).1 + 1),
        _ => (kind, 0),
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

fn declarations() -> Declarations {
    let mut found = Declarations::default();
    for path in SOURCES {
        found.read(&fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
    found
}

#[test]
fn the_list_of_events_is_up_to_date() {
    let found = declarations();
    let mut out = String::new();
    for (name, event) in &found.events {
        writeln!(out, "### `{name}`\n\n{}\n", plain(&event.doc)).unwrap();
        let mut rows = Vec::new();
        found.rows(found.fields(event), "", &mut rows);
        if !rows.is_empty() {
            writeln!(out, "| field | type | means |\n|---|---|---|").unwrap();
            for [name, kind, means] in rows {
                writeln!(out, "| `{name}` | {kind} | {} |", means.replace('|', "\\|")).unwrap();
            }
            writeln!(out).unwrap();
        }
    }
    compare("docs/events.md", &out);
}

/// A doc comment in words of JSON: links as their words, `None` as `null`.
fn plain(doc: &str) -> String {
    let mut out = doc.replace("[`", "`").replace("`]", "`").replace("`None`", "`null`");
    for start in ["`(crate::", "`(super::"] {
        while let Some(at) = out.find(start) {
            let Some(end) = out[at..].find(')') else { break };
            out.replace_range(at + 1..=at + end, "");
        }
    }
    out
}

/// Every field that the recorded run has is in the list, in objects too: the search for declarations misses nothing there.
#[test]
fn the_recorded_run_has_no_field_that_the_list_has_not() {
    let found = declarations();
    let known: BTreeMap<&str, Vec<String>> = found
        .events
        .iter()
        .map(|(name, event)| {
            let mut rows = Vec::new();
            found.rows(found.fields(event), "", &mut rows);
            (name.as_str(), rows.into_iter().map(|[name, ..]| name).collect())
        })
        .collect();
    let recording = fs::read_to_string(root().join("tests/fixtures/run.jsonl")).expect("the recorded run");
    let mut lines = 0;
    for line in recording.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        let kind = event["type"].as_str().expect("a type");
        let fields = known.get(kind).unwrap_or_else(|| panic!("the event {kind} is not in the list"));
        let mut names = Vec::new();
        names_of(&event, "", &mut names);
        for name in names.iter().filter(|name| !matches!(name.as_str(), "type" | "t_ms")) {
            assert!(fields.contains(name), "the event {kind} has the field {name}, the list has not");
        }
        lines += 1;
    }
    assert!(lines > 100, "the recorded run has {lines} lines");
}

/// The names of an object's fields and of those in it, as the list has them.
fn names_of(value: &Value, prefix: &str, names: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        names_of(value, &format!("{path}."), names);
        let (mut elements, mut depth) = (value.as_array().map_or(&[][..], Vec::as_slice), 1);
        // Lists of lists are looked into as one list.
        while let Some(Value::Array(inner)) = elements.first() {
            (elements, depth) = (inner, depth + 1);
        }
        elements.iter().for_each(|element| names_of(element, &format!("{path}{}.", "[]".repeat(depth)), names));
        names.push(path);
    }
}
