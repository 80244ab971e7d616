//! What a server exposes, read from the text of its metrics.

use std::collections::{BTreeMap, BTreeSet};

/// Before every name.
pub const PREFIX: &str = "listen_stream_";
/// Exposed only where a listener speaks TLS.
const TLS: &str = "listen_stream_tls_";

/// A family's type and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub kind: String,
    pub labels: BTreeSet<String>,
}

/// Families by the name that their samples have; a histogram's without `_bucket`, `_sum`, `_count`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Families(BTreeMap<String, Family>);

impl Families {
    pub fn add(&mut self, name: &str, family: Family) {
        let before = self.0.insert(name.to_owned(), family);
        assert!(before.is_none(), "{name} twice");
    }

    /// Adds those of a server; every line must be understood.
    pub fn read(&mut self, text: &str) {
        let mut kinds = BTreeMap::new();
        for line in text.lines() {
            if let Some(told) = line.strip_prefix("# TYPE ") {
                let (name, kind) = told.split_once(' ').unwrap();
                let before = kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (name, labels, _) = sample(line);
                let (name, kind) = family(&kinds, name);
                let family = self.0.entry(name).or_insert_with(|| Family {
                    kind: kind.clone(),
                    labels: BTreeSet::new(),
                });
                assert_eq!(family.kind, kind);
                let labels = labels.into_iter().map(|(name, _)| name.to_owned());
                let own = labels.filter(|name| !(kind == "histogram" && name == "le"));
                family.labels.extend(own);
            }
        }
    }

    /// What is not just so among `others`, but for those that only TLS has.
    pub fn beyond(&self, others: &Self) -> Vec<String> {
        let all = self.0.iter().filter(|(name, _)| !name.starts_with(TLS));
        all.filter(|(name, family)| others.0.get(*name) != Some(family))
            .map(|(name, family)| format!("{name}: {family:?}"))
            .collect()
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The labels of the samples of this name, if there are any.
    pub fn labels_of(&self, sample: &str) -> Option<BTreeSet<String>> {
        if sample.starts_with(TLS) {
            return Some(BTreeSet::new());
        }
        if let Some(family) = self.0.get(sample) {
            return (family.kind != "histogram").then(|| family.labels.clone());
        }
        ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let family = self.0.get(sample.strip_suffix(end)?)?;
            let mut labels = family.labels.clone();
            labels.extend((*end == "_bucket").then(|| "le".to_owned()));
            (family.kind == "histogram").then_some(labels)
        })
    }
}

/// Whose sample this is: its family's name, as people know it, and type.
fn family(kinds: &BTreeMap<String, String>, sample: &str) -> (String, String) {
    let known = |name: &str, kind: &str| kinds.get(name).is_some_and(|it| it == kind);
    assert!(sample.starts_with(PREFIX), "{sample}");
    let ends: [(&str, &[&str]); 4] = [
        ("gauge", &[""]),
        ("counter", &["_total"]),
        ("info", &["_info"]),
        ("histogram", &["_bucket", "_sum", "_count"]),
    ];
    for (kind, ends) in ends {
        for end in ends {
            if let Some(name) = sample.strip_suffix(end).filter(|name| known(name, kind)) {
                let shown = if kind == "histogram" { name } else { sample };
                return (shown.to_owned(), kind.to_owned());
            }
        }
    }
    panic!("{sample} is of no family");
}

type Labels<'t> = Vec<(&'t str, &'t str)>;

/// Name, labels and value of a line. No value of ours has a quotation mark in it.
fn sample(line: &str) -> (&str, Labels<'_>, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap();
    let Some((name, labels)) = head.split_once('{') else {
        return (head, Vec::new(), value);
    };
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels.split("\",").filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name, value.strip_suffix('"').unwrap_or(value))
    });
    (name, labels.collect(), value)
}

/// The value of a line, by its name after the prefix, labels and all.
#[track_caller]
pub fn value(text: &str, name: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(PREFIX));
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}

/// The sum of all lines of this name, after the prefix.
pub fn sum(text: &str, name: &str) -> f64 {
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(sample);
    samples
        .filter(|(it, ..)| it.strip_prefix(PREFIX) == Some(name))
        .map(|(_, _, value)| value)
        .sum()
}

#[test]
fn families_are_read_from_their_samples() {
    let text = "# HELP listen_stream_a A.\n# TYPE listen_stream_a counter\n\
                listen_stream_a_total{x=\"1\",y=\"/v1/{id}\"} 3\nlisten_stream_a_total{x=\"2\",y=\"\"} 4\n\
                # TYPE listen_stream_b histogram\nlisten_stream_b_sum 0.5\nlisten_stream_b_count 1\n\
                listen_stream_b_bucket{le=\"+Inf\"} 1\n# EOF\n";
    let mut families = Families::default();
    families.read(text);
    let names: Vec<_> = families.names().collect();
    assert_eq!(names, ["listen_stream_a_total", "listen_stream_b"]);
    let labels = |sample| {
        families
            .labels_of(sample)
            .map(|it| it.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(labels("listen_stream_a_total").unwrap(), ["x", "y"]);
    assert_eq!(labels("listen_stream_b_bucket").unwrap(), ["le"]);
    assert_eq!(labels("listen_stream_b"), None);
    assert_eq!(labels("listen_stream_a"), None);
    assert_eq!(sum(text, "a_total").to_bits(), 7.0_f64.to_bits());
    assert_eq!(value(text, "b_sum").to_bits(), 0.5_f64.to_bits());
}
