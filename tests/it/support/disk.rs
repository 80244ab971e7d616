//! What a power cut leaves of a folder: the folder's files as the disk had them for sure at any
//! moment of a process's life, made from a trace of its system calls.
//!
//! A write is on the disk for sure once an `fsync` or `fdatasync` of its file that began after it has
//! returned; a name once its folder was synchronised. Whatever else was written is there, is not
//! there, or is there in part, in any combination. Memory maps are not seen: `SQLite` writes only its
//! `-shm` file so, which it makes anew after a crash.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::dice::Dice;

/// What disks write whole.
const SECTOR: usize = 512;

/// The program and its arguments that have a process traced into `log`.
pub fn traced(log: &Path) -> Vec<String> {
    let calls = "trace=openat,write,pwrite64,writev,sendto,ftruncate,fsync,fdatasync,\
                 rename,renameat,renameat2,link,linkat,unlink,unlinkat";
    let words = [
        "strace",
        "-f",
        "-y",
        "-xx",
        "-s",
        "100000",
        "--seccomp-bpf",
        "-e",
        calls,
        "-o",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend([log.display().to_string(), "--".to_owned()]);
    words
}

/// What a process did, as far as its files and its callers could notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file was opened that may be new, and is emptied if so said.
    Make(String, bool),
    /// At the end where no place is given.
    Write(String, Option<usize>, Vec<u8>),
    Truncate(String, usize),
    /// A file was synchronised: what was done before the step of this number is on the disk.
    Sync(String, usize),
    SyncFolder,
    /// A second name.
    Link(String, String),
    Rename(String, String),
    Remove(String),
    /// The process began to send this.
    Send(Vec<u8>),
}

/// Reads the trace of a process; of files only those in `folder`.
pub fn steps(log: &Path, folder: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(log).expect("strace wrote its log: is it installed?");
    let folder = format!("{}/", folder.display());
    let mut steps = Vec::new();
    // Calls that have begun, by thread.
    let mut begun: HashMap<&str, (&str, usize)> = HashMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix("<unfinished ...>") {
            // An answer may be read before the call that sends it returns.
            steps.extend(sent(beginning));
            begun.insert(thread, (beginning, steps.len()));
        } else if call.starts_with("<... ") {
            let (_, end) = call.split_once("resumed>").expect("a call goes on");
            if let Some((beginning, at)) = begun.remove(thread) {
                steps.extend(done(&format!("{beginning}{end}"), &folder, at));
            }
        } else {
            steps.extend(sent(call));
            let at = steps.len();
            steps.extend(done(call, &folder, at));
        }
    }
    steps
}

fn sent(call: &str) -> Option<Step> {
    let sends = ["sendto(", "write(", "writev("];
    let to_socket =
        sends.iter().any(|name| call.starts_with(name)) && named(call)?.starts_with("socket:");
    to_socket.then(|| Step::Send(quoted(call).concat()))
}

/// What a call did that has returned.
fn done(call: &str, folder: &str, began: usize) -> Option<Step> {
    let (asked, result) = call.rsplit_once(" = ")?;
    let result: usize = result.split([' ', '<']).next()?.parse().ok()?;
    let (kind, _) = asked.split_once('(')?;
    let inside = |path: &str| {
        let name = path.strip_prefix(folder)?;
        (!name.ends_with("-shm")).then(|| name.to_owned())
    };
    let mut texts = quoted(asked);
    let path = |bytes: &[u8]| inside(&String::from_utf8_lossy(bytes));
    let last = || {
        let inside = asked.trim_end_matches([')', ' ']);
        let last = inside.rsplit(", ").next().and_then(|it| it.parse().ok());
        last.unwrap_or_else(|| panic!("no number at the end of {inside}"))
    };
    Some(match kind {
        "openat" if asked.contains("O_CREAT") => {
            Step::Make(path(texts.first()?)?, asked.contains("O_TRUNC"))
        }
        "pwrite64" | "write" => {
            let name = inside(&named(asked)?)?;
            let data = texts.pop()?;
            assert_eq!(
                data.len(),
                result,
                "all was written, and traced: {kind} {name}"
            );
            let at = if kind == "write" { None } else { Some(last()) };
            Step::Write(name, at, data)
        }
        "ftruncate" => Step::Truncate(inside(&named(asked)?)?, last()),
        "fsync" | "fdatasync" => {
            let name = named(asked)?;
            if format!("{name}/") == folder {
                Step::SyncFolder
            } else {
                Step::Sync(inside(&name)?, began)
            }
        }
        "rename" | "renameat" | "renameat2" => {
            Step::Rename(path(texts.first()?)?, path(texts.get(1)?)?)
        }
        "link" | "linkat" => Step::Link(path(texts.first()?)?, path(texts.get(1)?)?),
        "unlink" | "unlinkat" => Step::Remove(path(texts.first()?)?),
        _ => return None,
    })
}

/// What the call's first descriptor stands for.
fn named(call: &str) -> Option<String> {
    let (descriptor, rest) = call.split_once('(')?.1.split_once('<')?;
    descriptor.parse::<u32>().ok()?;
    Some(String::from_utf8_lossy(&bytes(rest.split_once('>')?.0)).into_owned())
}

/// The call's strings.
fn quoted(call: &str) -> Vec<Vec<u8>> {
    call.split('"').skip(1).step_by(2).map(bytes).collect()
}

/// Reads `\x..` again and again.
fn bytes(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes()
        .chunks_exact(4)
        .map_while(|it| Some(digit(it[2])? << 4 | digit(it[3])?))
        .collect()
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    /// What is on the disk for sure.
    sure: Vec<u8>,
    /// The length as the process sees it.
    len: usize,
    /// What was done since, and at which step.
    since: Vec<(usize, Change)>,
}

/// A folder, as the process sees it and as the disk has it.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    sure_names: BTreeMap<String, usize>,
    done: usize,
}

impl Disk {
    /// Goes on by one step.
    pub fn step(&mut self, step: &Step) {
        let at = self.done;
        self.done += 1;
        match step {
            Step::Make(name, emptied) => {
                if !self.names.contains_key(name) {
                    self.names.insert(name.clone(), self.files.len());
                    self.files.push(File::default());
                }
                if *emptied {
                    let file = self.file(name);
                    file.len = 0;
                    file.since.push((at, Change::Truncate(0)));
                }
            }
            Step::Write(name, place, data) => {
                let file = self.file(name);
                let place = place.unwrap_or(file.len);
                file.len = file.len.max(place + data.len());
                file.since.push((at, Change::Write(place, data.clone())));
            }
            Step::Truncate(name, len) => {
                let file = self.file(name);
                file.len = *len;
                file.since.push((at, Change::Truncate(*len)));
            }
            Step::Sync(name, began) => {
                let file = self.file(name);
                let (sure, open) = file.since.drain(..).partition(|(at, _)| at < began);
                let sure: Vec<_> = sure;
                file.since = open;
                for (_, change) in sure {
                    apply(&mut file.sure, &change);
                }
            }
            Step::SyncFolder => self.sure_names = self.names.clone(),
            Step::Link(from, to) => {
                let file = *self.names.get(from).expect("a file that is there");
                self.names.insert(to.clone(), file);
            }
            Step::Rename(from, to) => {
                let file = self.names.remove(from).expect("a file that is there");
                self.names.insert(to.clone(), file);
            }
            Step::Remove(name) => {
                self.names.remove(name);
            }
            Step::Send(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let file = self.names.get(name);
        let file = file.unwrap_or_else(|| panic!("{name} was never made"));
        &mut self.files[*file]
    }

    /// Writes into `folder` what a power cut now would leave: what is sure and no more; or, with
    /// `dice`, with some of the rest, whole or in part.
    pub fn cut_power(&self, folder: &Path, mut dice: Option<&mut Dice>) {
        std::fs::create_dir_all(folder).unwrap();
        let mut flip = |one_in: u64| dice.as_mut().is_some_and(|dice| dice.below(one_in) == 0);
        let names = if flip(2) {
            &self.names
        } else {
            &self.sure_names
        };
        for (name, file) in names {
            let file = &self.files[*file];
            let mut content = file.sure.clone();
            for (_, change) in &file.since {
                if !flip(2) {
                    continue;
                }
                match change {
                    Change::Write(at, data) if flip(3) => {
                        // Torn: its sectors one by one.
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if flip(2) {
                                apply(
                                    &mut content,
                                    &Change::Write(at + n * SECTOR, sector.to_vec()),
                                );
                            }
                        }
                    }
                    change => apply(&mut content, change),
                }
            }
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, data) => {
            let end = at + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(data);
        }
        Change::Truncate(len) => content.resize(*len, 0),
    }
}

#[test]
fn only_what_was_synchronised_survives() {
    let hex = |text: &str| {
        use std::fmt::Write as _;
        text.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "\\x{byte:02x}").unwrap();
            hex
        })
    };
    let (file, socket) = (hex("/d/a"), hex("socket:[1]"));
    let log = [
        format!(
            "7  openat(AT_FDCWD<{0}>, \"{1}\", O_RDWR|O_CREAT, 0600) = 3<{1}>",
            hex("/"),
            file
        ),
        format!("7  pwrite64(3<{file}>, \"{}\", 3, 0) = 3", hex("one")),
        format!("7  fsync(3<{file}> <unfinished ...>"),
        format!(
            "8  pwrite64(4<{file}>, \"{}\", 3, 3 <unfinished ...>",
            hex("two")
        ),
        "8  <... pwrite64 resumed>)       = 3".to_owned(),
        "7  <... fsync resumed>) = 0".to_owned(),
        format!(
            "8  sendto(9<{socket}>, \"{}\", 2, MSG_NOSIGNAL, NULL, 0) = 2",
            hex("ok")
        ),
        format!("7  fsync(5<{}>) = 0", hex("/d")),
        "7  +++ killed by SIGKILL +++".to_owned(),
    ];
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, log.join("\n")).unwrap();
    let steps = steps(&path, Path::new("/d"));
    let name = "a".to_owned();
    let write = |at, text: &str| Step::Write(name.clone(), Some(at), text.into());
    let expected = [
        Step::Make(name.clone(), false),
        write(0, "one"),
        write(3, "two"),
        Step::Sync(name.clone(), 2),
        Step::Send(b"ok".to_vec()),
        Step::SyncFolder,
    ];
    assert_eq!(steps, expected);
    let mut disk = Disk::default();
    let after = |disk: &Disk, n: usize| {
        let place = folder.path().join(n.to_string());
        disk.cut_power(&place, None);
        std::fs::read(place.join("a")).ok()
    };
    for step in &steps[..5] {
        disk.step(step);
    }
    assert_eq!(after(&disk, 0), None, "its name is not sure");
    disk.step(&steps[5]);
    assert_eq!(after(&disk, 1).as_deref(), Some(&b"one"[..]));
    disk.step(&Step::Sync(name, 9));
    assert_eq!(after(&disk, 2).as_deref(), Some(&b"onetwo"[..]));
}
