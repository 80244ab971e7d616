use std::{fs, path::Path};

use chrono::TimeZone as _;
use tempfile::TempDir;

use super::*;

struct Folder(TempDir);

impl Folder {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (
            self.write(&format!("{name}.crt"), &made.cert.pem()),
            self.write(&format!("{name}.key"), &made.signing_key.serialize_pem()),
        )
    }
}

fn read(cert: &Path, key: &Path) -> Content {
    let (cert, key) = (cert.to_owned(), key.to_owned());
    PemFiles { cert, key }.read()
}

fn refused(cert: &Path, key: &Path) -> Vec<Finding> {
    read(cert, key).pair().err().unwrap()
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = Folder(TempDir::new().unwrap());
    let ((cert, key), (_, other)) = (folder.pair("one"), folder.pair("two"));
    let (empty, none) = (folder.write("empty", ""), folder.0.path().join("none"));
    let half = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        folder.write("half", &text[..text.len() / 2])
    };
    assert!(read(&cert, &key).pair().is_ok());
    let (unreadable, bad) = (ProblemKind::UnreadableFile, ProblemKind::BadValue);
    for (cert, key, named, kind, path) in [
        (&none, &key, CERT, unreadable, &none),
        (&empty, &key, CERT, bad, &empty),
        (&key, &key, CERT, bad, &key),
        (&half(&cert), &key, CERT, bad, &half(&cert)),
        (&cert, &none, KEY, unreadable, &none),
        (&cert, &empty, KEY, bad, &empty),
        (&cert, &cert, KEY, bad, &cert),
        (
            &cert,
            &folder.0.path().to_owned(),
            KEY,
            unreadable,
            &folder.0.path().to_owned(),
        ),
        (&cert, &other, KEY, ProblemKind::Conflict, &other),
    ] {
        let found = refused(cert, key);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].key, found[0].kind), (named, kind));
        let path = path.display().to_string();
        assert!(found[0].found.starts_with(&path), "{found:?}");
    }
    let both: Vec<_> = refused(&none, &empty).iter().map(|it| it.key).collect();
    assert_eq!(both, [CERT, KEY]);
}

#[test]
fn nothing_of_a_key_is_shown() {
    let folder = Folder(TempDir::new().unwrap());
    let (cert, key) = folder.pair("one");
    let text = fs::read_to_string(&key).unwrap();
    let body: Vec<_> = text.lines().filter(|it| !it.starts_with("-----")).collect();
    let begin = text.lines().next().unwrap();
    let (half, _) = text.split_at(text.len() * 3 / 4);
    for broken in [
        half.to_owned(),
        format!("{begin} hunter2\n{}\n", body.join("\n")),
        text.replacen(body[0], &format!("hunter2!{}", body[0]), 1),
        text.replace("END", "hunter2"),
        text.replace("PRIVATE KEY", "hunter2"),
    ] {
        let broken = folder.write("broken", &broken);
        for found in refused(&cert, &broken)
            .iter()
            .chain(&refused(&broken, &broken))
        {
            let said = format!("{found} {found:?}");
            assert!(!said.contains("hunter2"), "{said}");
            assert!(body.iter().all(|line| !said.contains(line)), "{said}");
        }
    }
}

#[test]
fn huge_files_are_not_read() {
    let folder = Folder(TempDir::new().unwrap());
    let (cert, key) = folder.pair("one");
    let mut text = fs::read_to_string(&cert).unwrap();
    text.push_str(&"#".repeat(usize::try_from(MAX_BYTES).unwrap()));
    let found = refused(&folder.write("huge", &text), &key);
    assert_eq!(found[0].kind, ProblemKind::UnreadableFile);
}

#[test]
fn contents_are_told_apart() {
    let folder = Folder(TempDir::new().unwrap());
    let ((cert, key), (other_cert, other_key)) = (folder.pair("one"), folder.pair("two"));
    let none = folder.0.path().join("none");
    let (empty, copy) = (
        folder.write("empty", ""),
        folder.write("copy", &fs::read_to_string(&cert).unwrap()),
    );
    let digest = |cert, key| read(cert, key).digest();
    let mut seen = vec![
        digest(&cert, &key),
        digest(&other_cert, &key),
        digest(&cert, &other_key),
        digest(&key, &cert),
        digest(&none, &key),
        digest(&empty, &key),
        digest(&cert, &none),
        digest(&none, &none),
    ];
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
    assert_eq!(digest(&copy, &key), digest(&cert, &key));
    assert_eq!(digest(&none, &key), digest(&none, &key));
}

#[test]
fn a_certificate_tells_when_it_holds() {
    let folder = Folder(TempDir::new().unwrap());
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 2);
    params.not_after = rcgen::date_time_ymd(2026, 3, 4);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let cert = folder.write("crt", &cert.pem());
    let key = folder.write("key", &key.serialize_pem());
    let validity = read(&cert, &key).pair().unwrap().validity.unwrap();
    let day = |month, day| Utc.with_ymd_and_hms(2026, month, day, 0, 0, 0).unwrap();
    assert_eq!((validity.from, validity.until), (day(1, 2), day(3, 4)));
    let refusal = |at| validity.refusal(at);
    assert!(refusal(day(1, 1)).unwrap().contains("2026-01-02"));
    assert_eq!((refusal(day(1, 2)), refusal(day(3, 4))), (None, None));
    assert!(refusal(day(3, 5)).unwrap().contains("2026-03-04"));
}
