//! Reads Rust sources just far enough for the house rules: tokens without comments, which of them
//! only tests compile, and the paths they name.

use std::path::Path;

/// A piece of code; `::` is one piece, a literal is one piece, comments are none.
pub struct Token {
    pub text: String,
    pub line: usize,
    /// Only compiled for tests.
    pub test: bool,
    /// Only compiled with the planted faults that some tests need.
    pub planted: bool,
    /// How many modules of this file surround it.
    inline_modules: usize,
}

/// A source file, its path as seen from the crate's folder.
pub struct Source {
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

/// A path from the crate's root, and the line that names it.
pub struct Named {
    pub line: usize,
    pub path: Vec<String>,
}

/// The crate's own name, as its program and its tests say it.
const CRATE: &str = "listen_stream";

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let mut tokens = tokenize(text);
        fence(&mut tokens, "test", |token| token.test = true);
        fence(&mut tokens, "\"faults\"", |token| token.planted = true);
        count_inline_modules(&mut tokens);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
        }
    }

    /// The top-level module that it belongs to, or `lib` or `main`.
    pub fn layer(&self) -> &str {
        let path = self.path.trim_start_matches("src/");
        path.split('/')
            .next()
            .map_or(path, |first| first.strip_suffix(".rs").unwrap_or(first))
    }

    /// Whether it is `module.rs` or lies in the folder `module`.
    pub fn is_in(&self, module: &str) -> bool {
        self.path
            .strip_prefix(module)
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// What ships: neither tests nor planted faults.
    pub fn shipped(&self) -> impl Iterator<Item = (usize, &Token)> {
        let ships = |(_, token): &(usize, &Token)| !token.test && !token.planted;
        self.tokens.iter().enumerate().filter(ships)
    }

    /// Whether the tokens from `at` on are these.
    pub fn reads(&self, at: usize, expected: &[&str]) -> bool {
        let texts = self.tokens.iter().skip(at).map(|token| token.text.as_str());
        texts.take(expected.len()).eq(expected.iter().copied())
    }

    /// The lines that hold code or comments of tests.
    pub fn is_test_line(&self, line: usize) -> bool {
        let mut tokens = self.tokens.iter();
        let before = tokens.rfind(|token| token.line <= line);
        let after = self.tokens.iter().find(|token| token.line >= line);
        match (before, after) {
            (Some(before), Some(after)) => before.test && after.test,
            (Some(only), None) | (None, Some(only)) => only.test,
            (None, None) => false,
        }
    }

    /// Attributes, each as the range of what is between its brackets.
    pub fn attributes(&self) -> Vec<std::ops::Range<usize>> {
        (0..self.tokens.len())
            .filter_map(|at| match () {
                () if self.reads(at, &["#", "["]) => Some(at + 2),
                () if self.reads(at, &["#", "!", "["]) => Some(at + 3),
                () => None,
            })
            .map(|start| start..closing(&self.tokens, start - 1))
            .collect()
    }

    /// Everything of this crate that it names by a path from the root or from a parent module.
    pub fn named(&self) -> Vec<Named> {
        let mut named = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let starts = self.reads(at + 1, &["::"]) && (at == 0 || !self.reads(at - 1, &["::"]));
            let root = match token.text.as_str() {
                "crate" | CRATE if starts => Vec::new(),
                "super" if starts => self.parent_of(at),
                _ => continue,
            };
            self.branch(at + 2, &root, &mut named);
        }
        named
    }

    fn parent_of(&self, at: usize) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
        if let Some("lib" | "main" | "mod") = module.last().map(String::as_str) {
            module.pop();
        }
        module.extend((0..self.tokens[at].inline_modules).map(|_| "inline".to_owned()));
        module.pop();
        module
    }

    /// Follows one path from `at`, into every branch of its braces; returns where it ends.
    fn branch(&self, mut at: usize, root: &[String], named: &mut Vec<Named>) -> usize {
        let mut path = root.to_vec();
        while let Some(token) = self.tokens.get(at) {
            match token.text.as_str() {
                "{" => {
                    let end = closing(&self.tokens, at);
                    at += 1;
                    while at < end {
                        at = self.branch(at, &path, named).max(at + 1);
                    }
                    return self.next_branch(end + 1);
                }
                "super" => {
                    path.pop();
                }
                "self" => {}
                name => path.push(name.to_owned()),
            }
            if !self.reads(at + 1, &["::"]) || self.reads(at + 2, &["<"]) {
                let line = token.line;
                named.push(Named { line, path });
                return self.next_branch(at + 1);
            }
            at += 2;
        }
        at
    }

    /// Past `as name` and the comma, when there are such.
    fn next_branch(&self, mut at: usize) -> usize {
        if self.reads(at, &["as"]) {
            at += 2;
        }
        if self.reads(at, &[","]) { at + 1 } else { at }
    }
}

/// Parses the files of a crate: pairs of a path and a text.
pub fn parse(files: &[(impl AsRef<str>, impl AsRef<str>)]) -> Vec<Source> {
    let mut sources: Vec<Source> = files
        .iter()
        .map(|(path, text)| Source::parse(path.as_ref(), text.as_ref()))
        .collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        if tests.iter().any(|module| source.is_in(module)) {
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
    sources
}

/// Reads all of the crate's sources.
pub fn read_all(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the crate") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root");
                let name = name.to_str().expect("a name in UTF-8").replace('\\', "/");
                files.push((name, std::fs::read_to_string(&path).expect("a text")));
            }
        }
    }
    files.sort();
    parse(&files)
}

/// The files (without `.rs`) of modules that a source declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let path = source.path.trim_end_matches(".rs");
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => path,
    };
    let declared = |at: &usize| {
        source.tokens[*at].test && source.reads(*at, &["mod"]) && source.reads(*at + 2, &[";"])
    };
    (0..source.tokens.len())
        .filter(declared)
        .map(|at| format!("{folder}/{}", source.tokens[at + 1].text))
        .collect()
}

/// Marks every item, statement, field or arm under a `#[cfg(…)]` that is on for `flag` alone.
fn fence(tokens: &mut [Token], flag: &str, mark: impl Fn(&mut Token)) {
    let mut at = 0;
    while at < tokens.len() {
        let end = if is(tokens, at, "#") && is(tokens, at + 1, "[") && is(tokens, at + 2, "cfg") {
            let close = closing(tokens, at + 1);
            let words: Vec<&str> = tokens[at..close].iter().map(|t| t.text.as_str()).collect();
            let only = words.contains(&flag) && !words.contains(&"not") && !words.contains(&"any");
            only.then(|| end_of_item(tokens, close + 1))
        } else {
            None
        };
        match end {
            Some(end) => {
                let end = end.min(tokens.len() - 1);
                tokens[at..=end].iter_mut().for_each(&mark);
                at = end + 1;
            }
            None => at += 1,
        }
    }
}

/// How items begin; what begins otherwise (a field, an arm, a statement) may end with a comma.
const ITEMS: [&str; 14] = [
    "pub", "fn", "async", "const", "static", "unsafe", "extern", "mod", "use", "struct", "enum",
    "trait", "impl", "type",
];

/// The last token of the item, statement, field or arm that starts at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while is(tokens, at, "#") {
        at = closing(tokens, at + 1) + 1;
    }
    let commas_end = !ITEMS.iter().any(|item| is(tokens, at, item));
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at,
            "," if commas_end => return at,
            ")" | "]" | "}" => return at - 1,
            "{" => {
                let end = closing(tokens, at);
                let goes_on = [";", "else", ".", "?"]
                    .iter()
                    .any(|t| is(tokens, end + 1, t));
                if !goes_on {
                    return end;
                }
                at = end;
            }
            "(" | "[" => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
    at
}

fn count_inline_modules(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        if is(tokens, at, "mod") && is(tokens, at + 2, "{") {
            let end = closing(tokens, at + 2).min(tokens.len() - 1);
            tokens[at + 2..=end]
                .iter_mut()
                .for_each(|t| t.inline_modules += 1);
        }
    }
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// Where the bracket that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let comment = comment_len(rest);
        let len = match comment {
            0 => token_len(rest, first),
            len => len,
        };
        let (piece, tail) = rest.split_at(len);
        if comment == 0 && !first.is_whitespace() {
            tokens.push(Token {
                text: piece.to_owned(),
                line,
                test: false,
                planted: false,
                inline_modules: 0,
            });
        }
        line += piece.matches('\n').count();
        rest = tail;
    }
    tokens
}

fn comment_len(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth > 0 => (depth, at) = (depth - 1, at + 2),
            [_, ..] if depth > 0 => at += 1,
            _ => return at,
        }
        if depth == 0 {
            return at;
        }
    }
}

fn token_len(rest: &str, first: char) -> usize {
    let word = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    let (prefix, after) = rest.split_at(word);
    if matches!(prefix, "r" | "br" | "cr") && after.starts_with(['#', '"']) {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = word + hashes + 1;
            return rest[body..]
                .find(&end)
                .map_or(rest.len(), |at| body + at + end.len());
        }
    }
    match (prefix, after.chars().next()) {
        ("" | "b" | "c", Some('"')) => word + quoted_len(after, '"'),
        ("b", Some('\'')) => word + quoted_len(after, '\''),
        ("", Some('\'')) => {
            let mut next = after.chars().skip(1);
            match (next.next(), next.next()) {
                (Some('\\'), _) | (_, Some('\'')) => quoted_len(after, '\''),
                // A lifetime.
                _ => 1 + token_len(&after[1..], '_'),
            }
        }
        ("", Some(':')) if after.starts_with("::") => 2,
        ("", _) => first.len_utf8(),
        _ => word,
    }
}

fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
