//! Runs the fuzz targets on every input that is kept in `fuzz/corpus`, and on the largest frames
//! there can be. `make fuzz` looks for new ones.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::PathBuf, time::Duration};

use listen_stream::domain::{clock::World, sync::ClientFrame};

fn corpora() -> PathBuf {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    PathBuf::from(root).join("fuzz/corpus")
}

#[test]
fn every_input_that_is_kept_does_no_harm() {
    for (name, target) in targets::TARGETS {
        let folder = corpora().join(name);
        let inputs = fs::read_dir(&folder).expect("each target has a folder of inputs");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("a folder that can be read").path();
            // Seen only if it panics.
            println!("{}", path.display());
            target(&fs::read(&path).expect("a file that can be read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no inputs");
    }
}

#[test]
fn every_folder_of_inputs_has_its_target() {
    for folder in fs::read_dir(corpora()).expect("a folder of corpora") {
        let name = folder.expect("a folder that can be read").file_name();
        assert!(targets::TARGETS.iter().any(|(n, _)| name == *n), "{name:?}");
    }
}

/// A frame that costs more than its length would starve the others of its user.
#[test]
fn the_largest_frames_are_read_in_no_time() {
    let full = |head: &str, piece: &str, tail: &str| {
        let room = ClientFrame::MAX_BYTES - head.len() - tail.len();
        format!("{head}{}{tail}", piece.repeat(room / piece.len()))
    };
    let frames = [
        full("", "[", ""),
        full("", r#"{"type":"#, ""),
        full(r#"{"type":""#, "x", r#""}"#),
        full(r#"{"type":"ping","ref":"#, "[", ""),
        full(r#"{"type":"ping","ref":["#, "1,", "1]}"),
        full(r#"{"type":"ping","ref":{"a":1"#, r#","a":1"#, "}}"),
        full(r#"{"type":"ping","ref":""#, r"\u0000", r#""}"#),
        full(r#"{"type":"ping""#, r#","a":0"#, "}"),
        full(r#"{"type":"ping","later":"#, "9", "}"),
        full(r#"{"type":"ping","ref":1e"#, "9", "}"),
        full(r#"{"type":"ack","up_to":"#, "9", "}"),
        full(r#"{"type":"ack","ack_token":""#, "A", r#""}"#),
        full(r#"{"type":"auth","token":""#, r"\ud83d\ude00", r#""}"#),
        full(r#"{"type":"signal","to":"all","name":"x","data":"#, "[", ""),
        full("", " ", r#"{"type":"ping"}"#),
    ];
    for frame in frames {
        assert!(frame.len() > ClientFrame::MAX_BYTES - 16);
        let world = World::system();
        let start = world.instant();
        targets::client_frame(frame.as_bytes());
        // Thousands of times what it takes: fails only for what grows faster than the frame.
        assert!(
            (world.instant() - start) < Duration::from_secs(2),
            "{}",
            &frame[..40]
        );
    }
}
