//! An answered write survives the loss of power.
//!
//! A process that is killed leaves its writes to the system, which still stores them; a power cut
//! takes what was not synchronised. So the server runs under `strace`, and from its system calls the
//! folder is rebuilt as the disk had it for sure at some moment: the database file and its log cut
//! back to what an `fsync` had covered, in a second image with a random part of what was under way,
//! torn at sectors. What was answered by then is known from the same trace: the answer leaves the
//! server by a system call too, and carries the request's id. So no clock is compared.
//!
//! In each image everything that was answered must be there, the favorite and its event, and the
//! log must be whole; on some of them a server is started and asked. The same with
//! `synchronous = "normal"` must lose something: else this proof could not fail.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use reqwest::Method;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::support::{
    Device, Engine, Server,
    client::try_send,
    dice::Dice,
    disk::{self, Disk, Step},
};

const WRITERS: usize = 6;
/// Enough for the write-ahead log to be moved into the database, and begun anew.
const WRITES: usize = 60;
/// Moments at which the power is cut.
const CUTS: usize = 50;
/// Of these, those after which a server is started.
const STARTS: usize = 3;

/// An answered write.
#[derive(Debug, Clone)]
struct Answered {
    user: String,
    target: String,
    seq: u64,
}

/// A server's life under load, and what it answered by request id.
struct Life {
    steps: Vec<Step>,
    answered: HashMap<String, Answered>,
    devices: Vec<Device>,
}

impl Life {
    /// Writes with all devices at once, then kills the server.
    async fn under_load(synchronous: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("trace");
        let settings = [("database.synchronous", synchronous)];
        let program = disk::traced(&log);
        let mut server = Server::through(Engine::Sqlite, &settings, program).await;
        let mut devices = Vec::new();
        for index in 0..WRITERS {
            devices.push(server.api().newcomer(&format!("w{index}")).await);
        }
        let answered = Arc::new(Mutex::new(HashMap::new()));
        let writing: Vec<_> = devices
            .iter()
            .map(|device| tokio::spawn(write(device.clone(), answered.clone())))
            .collect();
        for writer in writing {
            writer.await.unwrap();
        }
        let data = server.data();
        server.kill9();
        // The tracer has ended with the process.
        let steps = disk::steps(&log, &data);
        let answered = answered.lock().unwrap().clone();
        assert_eq!(answered.len(), WRITERS * WRITES);
        Self {
            steps,
            answered,
            devices,
        }
    }

    /// The position of each answer among the steps.
    fn answers(&self) -> Vec<(usize, &Answered)> {
        let steps = self.steps.iter().enumerate();
        let answers: Vec<_> = steps
            .filter_map(|(at, step)| Some((at, self.answered.get(&request_id(step)?)?)))
            .collect();
        assert_eq!(
            answers.len(),
            self.answered.len(),
            "the trace has every answer"
        );
        answers
    }
}

async fn write(device: Device, answered: Arc<Mutex<HashMap<String, Answered>>>) {
    for index in 0..WRITES {
        let target = format!("t{index}");
        let id = format!("{}-{index}", device.device_id);
        let path = format!("/v1/me/favorites/song/{target}");
        let request = device.request(Method::PUT, &path);
        let answer = try_send(request.header("X-Request-ID", &id)).await.unwrap();
        let written = Answered {
            user: device.user_id.clone(),
            target,
            seq: answer.seq(),
        };
        answer.ok(201);
        answered.lock().unwrap().insert(id, written);
    }
}

/// The id of the request that is answered with `201` here.
fn request_id(step: &Step) -> Option<String> {
    let Step::Send(bytes) = step else { return None };
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut lines = head.strip_prefix("HTTP/1.1 201 ")?.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "))?;
    Some(id.to_owned())
}

/// What an image lacks of what was answered before it.
async fn missing(image: &Path, answered: &[&Answered]) -> Vec<String> {
    let mut db: SqliteConnection = SqliteConnectOptions::new()
        .filename(image.join("listen-stream.db"))
        .connect()
        .await
        .unwrap();
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(sound, "ok");
    let broken: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM user_logs l WHERE head_seq <>
             (SELECT count(*) FROM sync_events e WHERE e.user_id = l.user_id AND e.seq <= l.head_seq)
         OR head_seq <> (SELECT count(*) FROM favorites f WHERE f.user_id = l.user_id)",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(
        broken, 0,
        "a log with a gap, or another state than the log's"
    );
    let rows: Vec<(uuid::Uuid, String, i64)> = sqlx::query_as(
        "SELECT f.user_id, f.target_id, e.seq FROM favorites f
         JOIN sync_events e ON e.user_id = f.user_id AND e.seq = f.version
             AND e.data ->> 'target_id' = f.target_id",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    db.close().await.unwrap();
    let there: HashMap<(String, String), i64> = rows
        .into_iter()
        .map(|(user, target, seq)| ((user.to_string(), target), seq))
        .collect();
    answered
        .iter()
        .filter(|it| {
            let key = (it.user.clone(), it.target.clone());
            there
                .get(&key)
                .is_none_or(|seq| u64::try_from(*seq) != Ok(it.seq))
        })
        .map(|it| format!("{it:?}"))
        .collect()
}

/// Moments to cut the power at: some right when an answer leaves, the others anywhere after the first.
fn moments(life: &Life, answers: &[(usize, &Answered)], dice: &mut Dice) -> Vec<usize> {
    let first = answers[0].0;
    let mut moments: Vec<usize> = (0..CUTS)
        .map(|cut| {
            if cut % 2 == 0 {
                answers[dice.index(answers.len())].0
            } else {
                first + dice.index(life.steps.len() - first)
            }
        })
        .collect();
    moments.push(life.steps.len() - 1);
    moments.sort_unstable();
    moments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_power_is_lost() {
    let mut dice = Dice::new(Dice::seed("power loss"));
    let life = Life::under_load("full").await;
    let answers = life.answers();
    let is_of = |step: &Step, file: &str| matches!(step, Step::Sync(name, _) if name == file);
    let of_log = |step: &Step| is_of(step, "listen-stream.db-wal");
    let restarts =
        |step: &&Step| matches!(step, Step::Write(name, Some(0), _) if name.ends_with("-wal"));
    assert!(
        life.steps.iter().filter(restarts).count() > 1,
        "the log was never begun anew"
    );

    let moments = moments(&life, &answers, &mut dice);
    let folder = TempDir::new().unwrap();
    let (mut disk, mut at, mut checked) = (Disk::default(), 0, 0);
    for (n, moment) in moments.iter().enumerate() {
        while at <= *moment {
            disk.step(&life.steps[at]);
            at += 1;
        }
        let before: Vec<&Answered> = answers
            .iter()
            .filter(|(at, _)| at <= moment)
            .map(|(_, it)| *it)
            .collect();
        let sure = folder.path().join(format!("sure-{n}"));
        let torn = folder.path().join(format!("torn-{n}"));
        disk.cut_power(&sure, None);
        disk.cut_power(&torn, Some(&mut dice));
        for image in [&sure, &torn] {
            if n % (CUTS / STARTS) == 0 {
                serves(image, &life, &before).await;
            }
            assert_eq!(
                missing(image, &before).await,
                [""; 0],
                "cut at {moment}: {image:?}"
            );
            checked += before.len();
            std::fs::remove_dir_all(image).unwrap();
        }
    }
    println!(
        "power loss: {} writes answered over {} synchronisations of the log, power cut at {} \
         moments in two ways, {checked} times an answered write was looked for and found",
        answers.len(),
        life.steps.iter().filter(|step| of_log(step)).count(),
        moments.len(),
    );
}

/// A server on the image has what was answered, and takes more.
async fn serves(image: &Path, life: &Life, answered: &[&Answered]) {
    let server = Server::on_files(image).await;
    for device in &life.devices {
        let me = device.at(&server);
        let log = me.log().await;
        for it in answered.iter().filter(|it| it.user == me.user_id) {
            let event = &log[usize::try_from(it.seq - 1).unwrap()];
            assert_eq!(event["data"]["target_id"], it.target.as_str(), "{it:?}");
        }
        assert_eq!(me.all_favorites(200).await.len(), log.len());
        let added = me.put("song", "after").await;
        assert_eq!(added.seq(), log.len() as u64 + 1);
        added.ok(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_synchronising_an_answered_write_is_lost_and_the_rest_is_whole() {
    let life = Life::under_load("normal").await;
    let answers = life.answers();
    let mut disk = Disk::default();
    let (before, after) = life.steps.split_at(answers[0].0);
    for step in before {
        disk.step(step);
    }
    let folder = TempDir::new().unwrap();
    // The next start must see it.
    disk.cut_power(folder.path(), None);
    assert!(folder.path().join("unclean").exists());
    for step in after {
        disk.step(step);
    }
    let folder = TempDir::new().unwrap();
    disk.cut_power(folder.path(), None);
    let answered: Vec<&Answered> = answers.iter().map(|(_, it)| *it).collect();
    let missing = missing(folder.path(), &answered).await;
    assert!(
        !missing.is_empty(),
        "nothing was lost: this proof cannot fail"
    );
}
