//! The house rules that a reader cannot be asked to check: who may import whom, which files may
//! name which library, how long a file is, what must not be written.
//!
//! Each rule is a pure function from sources to what it finds, tested on a small bad example
//! before it is run on `src/`.

#![expect(
    clippy::expect_used,
    reason = "a source that cannot be read fails the test"
)]

#[path = "architecture/source.rs"]
mod source;

use source::{Source, parse, read_all};

const MAX_LINES: usize = 400;

type Rule = fn(&[Source]) -> Vec<String>;

/// Fails unless `rule` finds nothing in the crate.
fn assert_kept(rule: Rule) {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let sources = read_all(root.as_ref());
    assert!(!sources.is_empty(), "no sources");
    let found = rule(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Asserts what `rule` finds in an example: pairs of a path and a text.
fn assert_finds(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(rule(&parse(files)), expected);
}

fn finding(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path)
}

/// What each top-level module may import beside itself. A new one needs a line here.
fn may_see(layer: &str) -> Option<&'static [&'static str]> {
    Some(match layer {
        "lib" | "domain" => &[],
        "upstream" | "settings" | "telemetry" | "tail" => &["domain"],
        "store" => &["domain", "telemetry::metrics"],
        "actors" => &["domain", "store", "upstream", "telemetry::metrics"],
        "http" => &["domain", "actors", "telemetry::metrics"],
        "cli" | "main" => &["domain", "boot", "cli", "settings", "tail", "telemetry"],
        "boot" => &[
            "domain",
            "store",
            "upstream",
            "actors",
            "http",
            "settings",
            "telemetry",
            "tail",
        ],
        _ => return None,
    })
}

fn layers(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let layer = source.layer();
        let Some(seen) = may_see(layer) else {
            found.push(finding(source, 1, "has no place among the layers"));
            continue;
        };
        for named in source.named() {
            let path = named.path.join("::");
            let covers = |allowed: &&str| {
                path.strip_prefix(*allowed)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if !covers(&layer) && !seen.iter().any(covers) {
                let what = format!("{layer} must not import crate::{path}");
                found.push(finding(source, named.line, &what));
            }
        }
    }
    found
}

#[test]
fn imports_follow_the_layers() {
    assert_finds(
        layers,
        &[
            (
                "src/domain/a.rs",
                "use crate::domain::b;\nuse crate::store::Db;",
            ),
            (
                "src/store/mod.rs",
                "fn f() { crate::telemetry::init(crate::telemetry::metrics::A) }",
            ),
            (
                "src/upstream.rs",
                "use crate::{domain::{A, b::C as D}, actors::{kernel, x}, http};",
            ),
            (
                "src/actors/mod.rs",
                "// use crate::http;\nuse crate::{store as s, http as h};",
            ),
            (
                "src/http/a/b.rs",
                "use super::super::super::{store::X, actors};\nuse super::*;",
            ),
            (
                "src/http/c.rs",
                "mod m { use super::super::d; use super::super::super::store; }",
            ),
            (
                "src/tail.rs",
                "#[cfg(test)] mod tests { use super::*; use crate::*; }",
            ),
            (
                "src/boot.rs",
                "use crate::{http, actors, store, settings::Settings, cli};",
            ),
            ("src/main.rs", "use listen_stream::{cli, store::Db};"),
            ("src/extra.rs", "//! Nobody knows it."),
        ],
        &[
            "src/domain/a.rs:2: domain must not import crate::store::Db",
            "src/store/mod.rs:1: store must not import crate::telemetry::init",
            "src/upstream.rs:1: upstream must not import crate::actors::kernel",
            "src/upstream.rs:1: upstream must not import crate::actors::x",
            "src/upstream.rs:1: upstream must not import crate::http",
            "src/actors/mod.rs:2: actors must not import crate::http",
            "src/http/a/b.rs:1: http must not import crate::store::X",
            "src/http/c.rs:1: http must not import crate::store",
            "src/tail.rs:1: tail must not import crate::*",
            "src/boot.rs:1: boot must not import crate::cli",
            "src/main.rs:1: main must not import crate::store::Db",
            "src/extra.rs:1: has no place among the layers",
        ],
    );
    assert_kept(layers);
}

/// Files that name the crate `name`, with the line; not the attributes of its derives.
fn naming<'a>(sources: &'a [Source], name: &'a str) -> impl Iterator<Item = (&'a Source, usize)> {
    sources.iter().flat_map(move |source| {
        (0..source.tokens.len())
            .filter(move |at| source.reads(*at, &[name]) && !source.reads(at + 1, &["("]))
            .map(move |at| (source, at))
    })
}

fn one_socket_file(sources: &[Source]) -> Vec<String> {
    let mut files = naming(sources, "actix_web_actors").collect::<Vec<_>>();
    files.dedup_by_key(|(source, _)| source.path.as_str());
    let others = files.iter().skip(1);
    others
        .map(|(source, at)| {
            let what = format!("actix_web_actors is already named in {}", files[0].0.path);
            finding(source, source.tokens[*at].line, &what)
        })
        .collect()
}

#[test]
fn actix_web_actors_is_named_in_one_file() {
    assert_finds(
        one_socket_file,
        &[
            (
                "src/actors/a.rs",
                "//! Not actix_web_actors.\n/* actix_web_actors::ws */",
            ),
            (
                "src/http/ws.rs",
                "use actix_web_actors::ws;\nuse actix_web_actors as a;",
            ),
            (
                "src/http/x.rs",
                "fn f() {\n actix_web_actors::ws::start() }",
            ),
        ],
        &["src/http/x.rs:2: actix_web_actors is already named in src/http/ws.rs"],
    );
    assert_kept(one_socket_file);
}

fn sqlx_in_the_store(sources: &[Source]) -> Vec<String> {
    naming(sources, "sqlx")
        .filter(|(source, at)| {
            let homes = ["src/domain/ids.rs", "src/domain/text.rs"];
            let column_type =
                homes.contains(&source.path.as_str()) && source.reads(*at, &["sqlx", "::", "Type"]);
            !source.is_in("src/store") && !column_type
        })
        .map(|(source, at)| finding(source, source.tokens[at].line, "sqlx outside the store"))
        .collect()
}

#[test]
fn sqlx_is_named_in_the_store_only() {
    assert_finds(
        sqlx_in_the_store,
        &[
            (
                "src/domain/ids.rs",
                "#[derive(sqlx::Type)]\n#[sqlx(transparent)]\nuse sqlx::Row;",
            ),
            (
                "src/actors/a.rs",
                "/// Not sqlx::Error.\nlet a = \"sqlx::x\";\nfn f() -> sqlx::Error;",
            ),
            ("src/store/a.rs", "use sqlx::Row;"),
            ("src/storefront.rs", "use sqlx;"),
        ],
        &[
            "src/domain/ids.rs:3: sqlx outside the store",
            "src/actors/a.rs:3: sqlx outside the store",
            "src/storefront.rs:1: sqlx outside the store",
        ],
    );
    assert_kept(sqlx_in_the_store);
}

fn actix_in_the_kernel(sources: &[Source]) -> Vec<String> {
    const HOMES: [&str; 4] = [
        "src/actors/kernel",
        "src/http/socket",
        "src/http/admin/socket",
        "src/boot",
    ];
    naming(sources, "actix")
        .filter(|(source, at)| {
            !source.tokens[*at].test && !HOMES.iter().any(|home| source.is_in(home))
        })
        .map(|(source, at)| finding(source, source.tokens[at].line, "actix outside the kernel"))
        .collect()
}

#[test]
fn actix_is_named_in_the_kernel_the_socket_and_boot_only() {
    assert_finds(
        actix_in_the_kernel,
        &[
            (
                "src/actors/session/mod.rs",
                "use actix_web::web;\nuse actix::Addr;",
            ),
            ("src/actors/kernel/mod.rs", "use actix::Addr;"),
            (
                "src/actors/x.rs",
                "#[cfg(test)]\nmod tests { #[actix::test] async fn a() {} }",
            ),
            ("src/http/socket/mod.rs", "use actix::Actor;"),
            ("src/boot.rs", "use actix::System;"),
        ],
        &["src/actors/session/mod.rs:2: actix outside the kernel"],
    );
    assert_kept(actix_in_the_kernel);
}

fn short_files(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let lines = match source.tokens.last() {
            Some(last) if last.test => source
                .tokens
                .iter()
                .rfind(|token| !token.test)
                .map_or(0, |token| token.line),
            _ => source.text.lines().count(),
        };
        if lines > MAX_LINES {
            let what = format!("{lines} lines, {MAX_LINES} are allowed");
            found.push(finding(source, lines, &what));
        }
    }
    found
}

#[test]
fn files_are_short() {
    let code = "fn f() {}\n".repeat(MAX_LINES);
    let tests = "#[cfg(test)]\nmod tests {\n\n\n}\n";
    assert_finds(
        short_files,
        &[
            ("src/a.rs", &code),
            ("src/b.rs", &format!("{code}{tests}")),
            ("src/c.rs", &format!("{code}// One line more.\n")),
            ("src/d.rs", &format!("{tests}{code}")),
            ("src/e.rs", "#[cfg(test)]\nmod many;"),
            ("src/e/many.rs", &format!("{code}{code}")),
        ],
        &[
            "src/c.rs:401: 401 lines, 400 are allowed",
            "src/d.rs:405: 405 lines, 400 are allowed",
        ],
    );
    assert_kept(short_files);
}

fn headed(sources: &[Source]) -> Vec<String> {
    let has_head = |source: &&Source| {
        let head = source.text.trim_start().strip_prefix("//!");
        head.and_then(|head| head.lines().next())
            .is_some_and(|head| !head.trim().is_empty())
    };
    sources
        .iter()
        .filter(|source| !has_head(source) && source.tokens.iter().any(|token| !token.test))
        .map(|source| finding(source, 1, "starts without a //! head"))
        .collect()
}

#[test]
fn modules_say_what_they_own() {
    assert_finds(
        headed,
        &[
            ("src/a.rs", "//! Owns a.\n#[cfg(test)]\nmod tests;"),
            ("src/a/tests.rs", "fn f() {}"),
            ("src/b.rs", "// Owns b.\n//! Too late.\nfn f() {}"),
            ("src/c.rs", "//!\n//! Late.\nfn f() {}"),
        ],
        &[
            "src/b.rs:1: starts without a //! head",
            "src/c.rs:1: starts without a //! head",
        ],
    );
    assert_kept(headed);
}

fn reasoned_lints(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for attribute in source.attributes() {
            let has_reason = attribute
                .clone()
                .any(|at| source.reads(at, &["reason", "="]));
            for at in attribute {
                let line = source.tokens[at].line;
                if source.reads(at, &["allow", "("]) {
                    found.push(finding(source, line, "allow: expect it, with a reason"));
                } else if source.reads(at, &["expect", "("]) && !has_reason {
                    found.push(finding(source, line, "expect without a reason"));
                }
            }
        }
    }
    found
}

#[test]
fn lints_are_expected_with_a_reason() {
    assert_finds(
        reasoned_lints,
        &[(
            "src/a.rs",
            "#![allow(unused)]\n#[expect(unused, reason = \"because\")]\n#[expect(unused)]\n\
             #[cfg_attr(test, allow(unused))]\n#[arg(allow_hyphen_values = true)]\n\
             // #[allow(unused)]\nfn f() { a.expect(\"x\") }",
        )],
        &[
            "src/a.rs:1: allow: expect it, with a reason",
            "src/a.rs:3: expect without a reason",
            "src/a.rs:4: allow: expect it, with a reason",
        ],
    );
    assert_kept(reasoned_lints);
}

fn nothing_left_undone(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (line, text) in (1..).zip(source.text.lines()) {
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| matches!(word, "TODO" | "FIXME")) && !source.is_test_line(line) {
                found.push(finding(source, line, "work left undone"));
            }
        }
        for (at, token) in source.shipped() {
            if source.reads(at, &["todo", "!"]) || source.reads(at, &["unimplemented", "!"]) {
                found.push(finding(source, token.line, "work left undone"));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_for_later() {
    assert_finds(
        nothing_left_undone,
        &[(
            "src/a.rs",
            "// TODO: more\nfn f() { todo!() }\n/// FIXME\nfn todos() {}\n#[cfg(test)]\n\
             mod tests {\n    // TODO\n    fn g() {\n        todo!()\n    }\n}\n// TODO_LIST",
        )],
        &[
            "src/a.rs:1: work left undone",
            "src/a.rs:3: work left undone",
            "src/a.rs:2: work left undone",
        ],
    );
    assert_kept(nothing_left_undone);
}

fn no_planned_panic(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (at, token) in source.shipped() {
            let called = at > 0
                && (source.reads(at - 1, &["."]) || source.reads(at - 1, &["::"]))
                && (source.reads(at, &["unwrap"]) || source.reads(at, &["expect"]));
            if called || source.reads(at, &["panic", "!"]) {
                found.push(finding(
                    source,
                    token.line,
                    &format!("calls {}", token.text),
                ));
            }
        }
    }
    found
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    assert_finds(
        no_planned_panic,
        &[
            (
                "src/a.rs",
                "fn f() { a.unwrap(); b\n.expect(\"x\"); panic!(\"{}\", '\"') }\n\
                 fn g() { a.unwrap_or(1); self.expectation(\".unwrap()\"); a.map(Option::unwrap) }\n\
                 /* a.unwrap() */ #[expect(unused, reason = \"x\")] fn h<'a>(b: &'a str) {}\n\
                 #[cfg(test)]\nmod tests {\n    fn f() { a.unwrap(); panic!() }\n}\n\
                 fn k() { r#\"\"panic!()\"#; b'\\''; a.unwrap() }",
            ),
            (
                "src/b.rs",
                "#[cfg(not(test))]\nfn f() { a.unwrap() }\n#[cfg(test)]\nmod tests;",
            ),
            ("src/b/tests.rs", "fn f() { a.unwrap() }"),
            ("src/b/tests/more.rs", "fn f() { a.unwrap() }"),
            (
                "src/c.rs",
                "fn f() {\n#[cfg(feature = \"faults\")]\nif a { panic!() }\npanic!() }",
            ),
            (
                "src/d.rs",
                "struct A {\n#[cfg(test)]\na: u8,\nb: u8 }\nfn f() {\n#[cfg(test)]\na.unwrap();\n\
                 b.unwrap() }",
            ),
        ],
        &[
            "src/a.rs:1: calls unwrap",
            "src/a.rs:2: calls expect",
            "src/a.rs:2: calls panic",
            "src/a.rs:3: calls unwrap",
            "src/a.rs:9: calls unwrap",
            "src/b.rs:2: calls unwrap",
            "src/c.rs:4: calls panic",
            "src/d.rs:8: calls unwrap",
        ],
    );
    assert_kept(no_planned_panic);
}
