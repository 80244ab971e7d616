//! Reads as much of the language of queries as is needed to find every name in one. A word that it
//! does not know is an error, so that no slip of the pen passes.

use std::collections::BTreeSet;

use regex::Regex;

use super::exposed::{Families, PREFIX};

/// Labels that Prometheus itself adds.
const ADDED: [&str; 2] = ["instance", "job"];
const FUNCTIONS: [&str; 9] = [
    "sum",
    "min",
    "max",
    "rate",
    "increase",
    "changes",
    "time",
    "histogram_quantile",
    "label_values",
];
const WORDS: [&str; 1] = ["or"];

/// Finds names in `expression` that are not exposed.
pub fn check(expression: &str, exposed: &Families) -> Result<(), String> {
    let token = Regex::new(
        r#"(?x) (?P<text>"[^"]*") | (?P<range>\[[^\]]*\]) | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
           | (?P<number>[0-9.]+) | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]) | (?P<blank>\s+)"#,
    )
    .unwrap();
    let mut tokens = Vec::new();
    let mut end = 0;
    for found in token.find_iter(expression) {
        if found.start() != end {
            break;
        }
        end = found.end();
        if !found.as_str().trim().is_empty() {
            tokens.push(found.as_str());
        }
    }
    if end != expression.len() {
        return Err(format!("{:?} cannot be read", &expression[end..]));
    }
    let (mut known, mut used) = (BTreeSet::from(ADDED.map(str::to_owned)), Vec::new());
    let mut at = 0;
    while let Some(&token) = tokens.get(at) {
        at += 1;
        let next = tokens.get(at).copied();
        let word = token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !word || WORDS.contains(&token) {
            continue;
        }
        if token.starts_with(PREFIX) || token == "up" {
            let mut labels = match token {
                "up" => BTreeSet::new(),
                _ => exposed
                    .labels_of(token)
                    .ok_or(format!("{token} is not exposed"))?,
            };
            known.extend(labels.iter().cloned());
            labels.extend(ADDED.map(str::to_owned));
            if next == Some("{") {
                for label in until(&tokens, &mut at, "}") {
                    if !labels.contains(label) {
                        return Err(format!("{token} has no label {label}"));
                    }
                }
            }
        } else if token == "by" && next == Some("(") {
            used.extend(until(&tokens, &mut at, ")"));
        } else if token == "label_values" {
            // Its second argument is a label.
            let inner = until(&tokens, &mut at, ")");
            let [metric, label] = inner[..] else {
                return Err(format!("{inner:?} is not a metric and a label"));
            };
            known.extend(
                exposed
                    .labels_of(metric)
                    .ok_or(format!("{metric} is not exposed"))?,
            );
            used.push(label);
        } else if !(FUNCTIONS.contains(&token) && matches!(next, Some("(" | "by"))) {
            return Err(format!("{token} is not known"));
        }
    }
    match used.into_iter().find(|label| !known.contains(*label)) {
        Some(label) => Err(format!("nothing has the label {label}")),
        None => Ok(()),
    }
}

/// The words up to the closing sign, which is passed.
fn until<'t>(tokens: &[&'t str], at: &mut usize, close: &str) -> Vec<&'t str> {
    let from = *at;
    while tokens.get(*at).is_some_and(|token| *token != close) {
        *at += 1;
    }
    let inside = &tokens[from..*at];
    *at += 1;
    let is_word = |token: &&str| token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    inside.iter().copied().filter(is_word).collect()
}

#[test]
fn names_that_are_not_exposed_are_found() {
    let mut exposed = Families::default();
    exposed.read(
        "# TYPE listen_stream_a counter\nlisten_stream_a_total{x=\"1\"} 3\n\
         # TYPE listen_stream_b histogram\nlisten_stream_b_bucket{le=\"1\",k=\"v\"} 3\n",
    );
    for good in [
        "up{job=\"listen-stream\"} == 0",
        "sum by (x, instance) (rate(listen_stream_a_total{x=~\"1|2\",job=\"j\"}[5m])) / 2 > 0.5",
        "histogram_quantile(0.99, sum by (le, k) (rate(listen_stream_b_bucket{k=\"v\"}[$__rate_interval])))",
        "time() - listen_stream_a_total or listen_stream_b_count{instance=~\"$node\"}",
        "label_values(listen_stream_a_total, instance)",
    ] {
        assert_eq!(check(good, &exposed), Ok(()), "{good}");
    }
    for (bad, what) in [
        ("listen_stream_a", "listen_stream_a is not exposed"),
        ("listen_stream_b", "listen_stream_b is not exposed"),
        (
            "listen_stream_a_total{y=\"1\"}",
            "listen_stream_a_total has no label y",
        ),
        (
            "listen_stream_b_sum{le=\"1\"}",
            "listen_stream_b_sum has no label le",
        ),
        (
            "sum by (k) (listen_stream_a_total)",
            "nothing has the label k",
        ),
        ("listenstream_a_total", "listenstream_a_total is not known"),
        ("rat(listen_stream_a_total[5m])", "rat is not known"),
        ("rate listen_stream_a_total", "rate is not known"),
        ("listen_stream_a_total ^ 2", "\"^ 2\" cannot be read"),
        (
            "label_values(listen_stream_a_total, y)",
            "nothing has the label y",
        ),
    ] {
        assert_eq!(check(bad, &exposed), Err(what.to_owned()), "{bad}");
    }
}
