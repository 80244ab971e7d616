//! What the documents, the alarms and the dashboard say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::exposed::{Families, Family, PREFIX};

const PAGE: &str = include_str!("../../../docs/operations.md");
const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/listen-stream.json");

/// The table of metrics in `docs/operations.md`.
pub fn table() -> Families {
    let mut families = Families::default();
    for row in PAGE
        .lines()
        .filter(|line| line.starts_with(&format!("| `{PREFIX}")))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, says] = cells[..] else {
            panic!("four cells: {row}");
        };
        assert!(!says.is_empty(), "{row}");
        let words = |cell: &str| -> BTreeSet<String> {
            let words = cell.split(", ").filter(|word| !word.is_empty());
            words.map(|word| quoted(word, '`').to_owned()).collect()
        };
        let family = Family {
            kind: kind.to_owned(),
            labels: words(labels),
        };
        families.add(quoted(name, '`'), family);
    }
    families
}

#[track_caller]
fn quoted(text: &str, mark: char) -> &str {
    let inner = text
        .strip_prefix(mark)
        .and_then(|rest| rest.strip_suffix(mark));
    inner
        .filter(|inner| !inner.contains(mark))
        .unwrap_or_else(|| panic!("not in {mark}: {text}"))
}

/// A rule of `alerts.yml`.
#[derive(Debug, Default)]
pub struct Rule {
    pub name: String,
    pub expr: String,
    wait: String,
    severity: String,
    summary: String,
    description: String,
    runbook: String,
}

/// The rules. They are written in a few forms of YAML only, each line understood here or refused.
pub fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let lines = RULES.lines().filter(|line| !line.starts_with('#'));
    let mut lines = lines.skip_while(|line| !line.starts_with("      "));
    assert!(RULES.contains("\ngroups:\n  - name: listen-stream\n    rules:\n      - alert: "));
    lines.by_ref().for_each(|line| {
        if let Some(name) = line.strip_prefix("      - alert: ") {
            rules.push(Rule {
                name: name.to_owned(),
                ..Rule::default()
            });
            return;
        }
        let rule = rules.last_mut().expect("a rule begins with its name");
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
        let text = || quoted(value.trim(), '"').to_owned();
        let (field, value) = match key {
            "        labels" | "        annotations" => return assert_eq!(value, ""),
            "        expr" => (&mut rule.expr, quoted(value.trim(), '\'').to_owned()),
            "        for" => (&mut rule.wait, value.trim().to_owned()),
            "          severity" => (&mut rule.severity, value.trim().to_owned()),
            "          summary" => (&mut rule.summary, text()),
            "          description" => (&mut rule.description, text()),
            "          runbook" => (&mut rule.runbook, text()),
            _ => panic!("{line}"),
        };
        assert_eq!(std::mem::replace(field, value), "", "{line}");
    });
    rules
}

/// Every expression of the dashboard.
pub fn panels() -> Vec<String> {
    let board: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array();
        assert_eq!(targets.is_none(), panel["type"] == "row", "{panel:#}");
        for target in targets.into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel:#}");
            found.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            found.push(variable["definition"].as_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn every_alarm_is_whole_and_says_what_to_do() {
    let rules = rules();
    let part = PAGE.split("\n## Alarms\n").nth(1).unwrap();
    let part = part.split("\n## ").next().unwrap();
    let told: BTreeSet<&str> = part
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, told);
    assert_eq!(names.len(), rules.len(), "a name twice");
    for rule in &rules {
        assert!(rule.wait.ends_with(['m', 'h']), "{rule:#?}");
        assert!(
            ["critical", "warning"].contains(&rule.severity.as_str()),
            "{rule:#?}"
        );
        assert!(rule.summary.contains("{{ $labels.instance }}"), "{rule:#?}");
        assert!(rule.description.len() > 40, "{rule:#?}");
        let place = format!("docs/operations.md#{}", rule.name.to_lowercase());
        assert_eq!(rule.runbook, place);
    }
}

#[test]
fn panels_lie_side_by_side_and_are_told_apart() {
    let board: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel:#}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{panel:#}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "two panels at {x}, {y}: {panel:#}");
            }
        }
    }
}
