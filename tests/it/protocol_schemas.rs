//! The schemas in `docs/protocol.md` are those of the types: between its two marks stands what this
//! makes. With `UPDATE_DOCS=1` it is written there.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use listen_stream::domain::library::{EventSchema, LibraryEvent, PlayerSignal};
use serde_json::{Value, json};

const BEGIN: &str = "<!-- schemas: made from the types, from here -->\n";
const END: &str = "<!-- schemas: to here -->\n";

/// References as they are where a schema stands alone.
fn alone(schema: &impl serde::Serialize) -> Value {
    let text = serde_json::to_string(schema).unwrap();
    serde_json::from_str(&text.replace("#/components/schemas/", "#/$defs/")).unwrap()
}

fn named(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().and_then(|it| it.strip_prefix("#/$defs/")) {
                    Some(part) if name == "$ref" => into.push(part.to_owned()),
                    _ => named(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|it| named(it, into)),
        _ => {}
    }
}

/// The schema as it is printed, with the schemas that it refers to.
fn whole(it: &EventSchema) -> Value {
    let mut schema = alone(&it.schema);
    let parts: BTreeMap<_, _> = it
        .parts
        .iter()
        .map(|(name, part)| (name.clone(), alone(part)))
        .collect();
    let (mut defs, mut open) = (BTreeMap::new(), Vec::new());
    named(&schema, &mut open);
    while let Some(name) = open.pop() {
        let part = parts.get(&name);
        let part = part.unwrap_or_else(|| panic!("no schema {name}"));
        if defs.insert(name, part.clone()).is_none() {
            named(part, &mut open);
        }
    }
    if !defs.is_empty() {
        schema["$defs"] = json!(defs);
    }
    schema
}

fn printed() -> String {
    let mut text = String::from(BEGIN);
    for it in LibraryEvent::schemas()
        .iter()
        .chain(&PlayerSignal::schemas())
    {
        let schema = serde_json::to_string_pretty(&whole(it)).unwrap();
        let EventSchema {
            event_type, about, ..
        } = it;
        write!(
            text,
            "\n<details><summary><code>{event_type}</code>: {about}</summary>\n\n```json schema\n{schema}\n```\n\n</details>\n"
        )
        .unwrap();
    }
    text.push('\n');
    text.push_str(END);
    text
}

#[test]
fn the_page_has_the_schemas_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    let right = format!("{before}{}{after}", printed());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &right).unwrap();
        return;
    }
    assert!(
        page == right,
        "docs/protocol.md has other schemas than the types: UPDATE_DOCS=1 cargo test --all-features --test it \
         protocol_schemas writes them"
    );
}
