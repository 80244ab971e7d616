//! Backups: made while the server serves, brought back on either engine, and what clients then see.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    playlists,
    support::{
        Api, Cluster, Device, Engine, Incoming, Server, Socket, assert_shape, client::send,
        eventually, unique, within,
    },
};

/// Longer than two looks at the heads.
const SILENCE: Duration = Duration::from_millis(2500);

both_engines! {
    async fn a_backup_under_load_is_one_state_on_either_engine(engine) {
        let (mut source, key) = server(engine).await;
        let users = users(&source.api()).await;
        let load = Load::start(&users);
        eventually("the writers are under way", async || load.answered().len() > 30).await;
        let before = load.answered();
        let file = Backup::of(&source).await;
        let after = load.stop().await;
        assert!(after.len() > before.len(), "the server went on");
        source.stop().await;
        drop(source);

        let mut there = place(other(engine), &key).await;
        there.restored(&file).await;
        there.restart().await;
        let mut states = Vec::new();
        for device in &users {
            let state = State::of(&device.at(&there)).await;
            state.is_one_moment();
            for (user, target) in &before {
                if *user == device.user_id {
                    assert!(state.targets.contains_key(target), "{target} was answered");
                }
            }
            states.push(state);
        }
        let total: usize = states.iter().map(|it| it.log.len()).sum();
        assert!(total <= after.len(), "nothing else is in it");

        // And back again, onto what stands there.
        let file = Backup::of(&there).await;
        let mut back = place(engine, &key).await;
        back.restart().await;
        back.api().newcomer("somebody").await.put("song", "x").await.ok(201);
        back.stop().await;
        back.restored_with(&file, &["--replace"]).await;
        back.restart().await;
        for (device, state) in users.iter().zip(states) {
            assert_eq!(State::of(&device.at(&back)).await, state);
        }
    }

    async fn a_client_ahead_of_the_restored_state_is_told_once(engine) {
        let (mut server, _) = server(engine).await;
        let me = server.api().newcomer("mine").await;
        let other = server.api().login(&me.phone, "other").await;
        add(&other, 3).await;
        let file = Backup::of(&server).await;
        add(&other, 2).await;
        let mut socket = Socket::open(&me).await;
        let events = socket.expect_events(1, 5).await;
        socket.ack(&events[4]).await;
        eventually("the ack is stored", async || me.waiting().await.is_empty()).await;
        let old = socket.epoch();
        server.stop().await;
        server.restored_with(&file, &["--replace"]).await;
        server.restart().await;

        // Another writer fills the log again, up to where this one was and beyond.
        add(&other.at(&server), 4).await;
        let me = me.at(&server);
        let refused = me.changes(&format!("?since=5&epoch={old}")).await;
        refused.problem(410, "epoch_changed");
        let mut socket = Socket::open_with(&me, &format!("?since=5&epoch={old}")).await;
        let epoch = socket.epoch();
        assert_ne!(epoch, old);
        let acked = socket.welcome["acked_seq"].as_u64().unwrap();
        assert!(acked <= 3, "{acked} is beyond the restored head");
        let resync = socket.next_frame("resync").await;
        assert_shape(&resync, json!({
            "type": "resync",
            "epoch": epoch,
            "floor_seq": 0,
            "head_seq": 7,
            "reason": "epoch_changed",
        }));
        // It loads its data anew, and is not disturbed.
        assert_eq!(me.all_favorites(200).await.len(), 7);
        socket.expect_quiet(SILENCE).await;
        socket.ack_up_to(7, &epoch).await;
        add(&other.at(&server), 1).await;
        socket.expect_event(8).await;
        socket.ack_up_to(8, &epoch).await;
        eventually("the ack is stored", async || me.waiting().await.is_empty()).await;
        socket.close().await;
        // Told once.
        let mut socket = Socket::open_with(&me, &format!("?since=8&epoch={epoch}")).await;
        assert_eq!(socket.welcome["acked_seq"], 8);
        socket.ping().await;
    }

    async fn a_version_of_before_the_restore_names_nothing_after_it(engine) {
        let (mut server, _) = server(engine).await;
        let me = server.api().newcomer("mine").await;
        let place = playlists::create(&me).await;
        playlists::add(&me, &place, &["a", "b"]).await;
        let file = Backup::of(&server).await;
        playlists::add(&me, &place, &["c"]).await;
        let seen = me.get(&format!("{place}/songs?limit=1")).await;
        let tag = seen.header("etag").unwrap().to_owned();
        let seen = seen.ok(200);
        server.stop().await;
        server.restored_with(&file, &["--replace"]).await;
        server.restart().await;

        // Another state gets the number of the one that is lost.
        let me = me.at(&server);
        let put = json!({"song_ids": ["x", "y"]});
        let songs = format!("{place}/songs");
        let now = send(me.request(Method::PUT, &songs).json(&put)).await.ok(200);
        assert_eq!(now["version"], seen["version"]);
        let known = me.request(Method::GET, &place).header("If-None-Match", &tag);
        assert_eq!(send(known).await.ok(200), now);
        let known = me.request(Method::GET, &songs).header("If-None-Match", &tag);
        send(known).await.ok(200);
        let blind = me.request(Method::PATCH, &place).header("If-Match", &tag);
        let refused = send(blind.json(&json!({"name": "blind"}))).await;
        assert_eq!(refused.problem(412, "precondition_failed")["version"], now["version"]);
        let cursor = seen["next_cursor"].as_str().unwrap();
        let next = me.get(&format!("{songs}?limit=1&cursor={cursor}")).await;
        next.problem(412, "precondition_failed");
        // The tag of now is good.
        let tag = me.get(&place).await.header("etag").unwrap().to_owned();
        let seeing = me.request(Method::PATCH, &place).header("If-Match", &tag);
        send(seeing.json(&json!({"name": "seen"}))).await.ok(200);
    }

    async fn what_cannot_be_restored_changes_nothing(engine) {
        let (mut server, key) = server(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 40).await;
        let file = Backup::of(&server).await;
        add(&me, 1).await;
        server.stop().await;
        let good = std::fs::read(&file.path).unwrap();
        let bad = file.path.with_extension("bad");
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        let cases: [(&str, &[u8], &str); 6] = [
            ("changed", &flipped, "damaged"),
            ("cut short", &good[..middle], "damaged"),
            ("without its last byte", &good[..good.len() - 1], "damaged"),
            ("followed by something", &[&good[..], b"x"].concat(), "damaged"),
            ("foreign", b"-- SQL dump\n", "not a backup"),
            ("empty", b"", "not a backup"),
        ];
        for (what, bytes, said) in cases {
            std::fs::write(&bad, bytes).unwrap();
            let arguments = ["restore", "--replace", bad.to_str().unwrap()];
            let ended = server.run(&arguments).await;
            assert_eq!(ended.code, Some(1), "{what}: {}", ended.output);
            assert!(ended.output.contains(said), "{what}: {}", ended.output);
            assert!(!ended.output.contains("panicked"), "{what}: {}", ended.output);
        }
        let missing = server.run(&["restore", "--replace", "/nowhere/b.lsb"]).await;
        assert_eq!(missing.code, Some(1), "{}", missing.output);
        assert!(missing.output.contains("/nowhere/b.lsb"), "{}", missing.output);
        // A master key that is another's.
        let mut other = place(engine, &new_key()).await;
        let ended = other.run(&["restore", file.arg()]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.output);
        assert!(ended.output.contains("master key"), "{}", ended.output);
        other.restart().await;
        drop(other);

        assert_eq!(names(&server, "restor"), [""; 0], "nothing is left of the tries");
        server.restart().await;
        assert_eq!(me.at(&server).head().await.0, 41);

        // With its own key it goes anywhere.
        let mut other = place(engine, &key).await;
        other.restored(&file).await;
        other.restart().await;
        assert_eq!(me.at(&other).head().await.0, 40);
    }

    async fn a_restore_is_not_for_a_place_in_use(engine) {
        let (mut server, _) = server(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 1).await;
        let file = Backup::of(&server).await;
        let refused = server.run(&["restore", "--replace", file.arg()]).await;
        assert_eq!(refused.code, Some(1), "{}", refused.output);
        assert!(refused.output.contains("stop it first"), "{}", refused.output);
        add(&me, 1).await;
        server.stop().await;
        let ended = server.run(&["restore", file.arg()]).await;
        if engine == Engine::Postgres {
            assert_eq!(ended.code, Some(1), "{}", ended.output);
            assert!(ended.output.contains("--replace"), "{}", ended.output);
            server.restart().await;
            assert_eq!(me.at(&server).head().await.0, 2);
        } else {
            assert_eq!(ended.code, Some(0), "{}", ended.output);
            server.restart().await;
            assert_eq!(me.at(&server).head().await.0, 1);
        }
    }

    async fn a_killed_restore_leaves_one_of_the_two_states(engine) {
        let (mut server, _) = server(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 150).await;
        let file = Backup::of(&server).await;
        add(&me, 1).await;
        server.stop().await;
        let start = Instant::now();
        server.restored_with(&file, &["--replace"]).await;
        let whole = start.elapsed();
        server.restart().await;
        add(&me.at(&server), 1).await;
        let mut seen = BTreeSet::new();
        for round in 0..=10 {
            server.stop().await;
            let mut child = server.spawn(&["restore", "--replace", file.arg()], Stdio::null());
            // From before it began to after it was done, or nearly: the last one may end.
            if round < 10 {
                tokio::time::sleep(whole * round / 8).await;
                child.kill().unwrap();
            }
            child.wait().unwrap();
            server.restart().await;
            let me = me.at(&server);
            let head = me.head().await.0;
            State::of(&me).await.is_one_moment();
            assert!(head == 150 || head == 151, "{head}");
            seen.insert(head);
            assert_eq!(names(&server, ".restor"), [""; 0]);
            if head == 150 {
                add(&me, 1).await;
            }
        }
        assert_eq!(seen.len(), 2, "both were seen");
    }

    async fn sessions_are_those_of_the_restored_state(engine) {
        let (mut server, _) = server(engine).await;
        let api = server.api();
        let first = api.newcomer("first").await;
        let second = api.login(&first.phone, "second").await;
        let gone = api.login(&first.phone, "gone").await;
        let file = Backup::of(&server).await;
        // After the backup: one renews its tokens, one is removed, one is new.
        let renewed = first.renewed().await;
        second.remove_device(&gone.id).await.ok(204);
        let young = api.login(&first.phone, "young").await;
        let stranger = api.newcomer("stranger").await;
        server.stop().await;
        server.restored_with(&file, &["--replace"]).await;
        server.restart().await;
        let api = server.api();

        // A token that is newer than what is known is nobody's theft: it opens nothing, and ends
        // nothing.
        for newer in [&renewed, &young, &stranger] {
            let refused = api.rotate(&newer.refresh, None).await;
            refused.problem(401, "refresh_token_invalid");
        }
        let first = first.at(&server);
        first.me().await.ok(200);
        let first = first.renewed().await;
        first.me().await.ok(200);
        // Who is back, is back.
        gone.at(&server).renewed().await.me().await.ok(200);
        young.at(&server).changes("").await.problem(401, "token_revoked");

        // Whom the restored state does not know is logged out, whatever is asked.
        let stranger = stranger.at(&server);
        stranger.me().await.problem(401, "token_revoked");
        stranger.put("song", "x").await.problem(401, "token_revoked");
        stranger.changes("").await.problem(401, "token_revoked");
        stranger.changes("?since=0").await.problem(401, "token_revoked");

        // A revocation of the restored state refuses what was handed out before and after.
        let again = api.login(&second.phone, "second").await;
        second.at(&server).me().await.problem(401, "token_revoked");
        again.me().await.ok(200);

        // And for those who trust nothing that was.
        server.stop().await;
        server.restored_with(&file, &["--replace", "--sign-out-everyone"]).await;
        server.restart().await;
        for device in [&first, &renewed, &second, &gone] {
            let device = device.at(&server);
            device.me().await.problem(401, "token_revoked");
            let refused = device.api.rotate(&device.refresh, None).await;
            refused.problem(401, "refresh_token_invalid");
        }
        let back = server.api().login(&first.phone, "first").await;
        assert_eq!(back.id, first.id, "the device keeps its place");
        back.me().await.ok(200);
    }

    async fn a_code_of_before_the_restore_is_spent(engine) {
        let (mut server, _) = server(engine).await;
        let phone = crate::support::phone();
        let code = server.api().new_code(&phone).await;
        let file = Backup::of(&server).await;
        let body = crate::support::client::login_body(&phone, &code, "mine");
        server.api().sign_in(&body).await.ok(201);
        server.stop().await;
        server.restored_with(&file, &["--replace"]).await;
        server.restart().await;
        let again = server.api().sign_in(&body).await;
        again.problem(401, "sms_code_invalid");
        server.api().login(&phone, "mine").await.me().await.ok(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_private_and_kept() {
    let mut server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("b.lsb");
    let arg = path.to_str().unwrap();

    let made = server.run(&["backup", arg]).await;
    assert_eq!(made.code, Some(0), "{}", made.output);
    for said in [
        "1 user, 1 device, 0 events",
        "master key  is NOT in it",
        "master.key",
    ] {
        assert!(made.output.contains(said), "{}", made.output);
    }
    let allowed = std::fs::metadata(&path).unwrap().permissions();
    assert_eq!(allowed.mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    add(&me, 1).await;
    let first = std::fs::read(&path).unwrap();
    let refused = server.run(&["backup", arg]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(refused.output.contains("--force"), "{}", refused.output);
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let forced = server.run(&["backup", "--force", arg]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.output);
    assert_ne!(std::fs::read(&path).unwrap(), first);

    let nowhere = server.run(&["backup", "/nowhere/b.lsb"]).await;
    assert_eq!(nowhere.code, Some(1), "{}", nowhere.output);
    assert!(
        nowhere.output.contains("/nowhere/b.lsb"),
        "{}",
        nowhere.output
    );

    // The same to standard output, and nothing else.
    let piped = folder.path().join("piped.lsb");
    let to = std::fs::File::create(&piped).unwrap();
    let mut child = server.spawn(&["backup", "-"], to.into());
    assert!(child.wait().unwrap().success());
    let place = place(Engine::Sqlite, &new_key()).await;
    std::fs::create_dir(place.data()).unwrap();
    let restored = place.run(&["restore", piped.to_str().unwrap()]).await;
    assert_eq!(restored.code, Some(1), "{}", restored.output);
    assert!(
        restored.output.contains("master key"),
        "whole: {}",
        restored.output
    );

    // No server has to run; but there must be something.
    server.kill9();
    let made = server.run(&["backup", "--force", arg]).await;
    assert_eq!(made.code, Some(0), "{}", made.output);
    assert!(made.output.contains("1 event"), "{}", made.output);
    let empty = self::place(Engine::Sqlite, &new_key()).await;
    let refused = empty.run(&["backup", "--force", arg]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(
        refused.output.contains("no database at"),
        "{}",
        refused.output
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stood_there_before_a_restore_is_kept_whole() {
    let (mut server, key) = server(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    add(&me, 1).await;
    let file = Backup::of(&server).await;
    add(&me, 4).await;
    // What was written last is in the write-ahead log only.
    server.kill9();
    server.restored(&file).await;
    let kept = names(&server, "before-restore");
    assert!(!kept.is_empty(), "{kept:?}");
    server.restart().await;
    assert_eq!(me.at(&server).head().await.0, 1);

    let mut old = place(Engine::Sqlite, &key).await;
    std::fs::create_dir_all(old.data()).unwrap();
    for name in kept {
        let wal = if name.ends_with("-wal") { "-wal" } else { "" };
        let to = old.data().join(format!("listen-stream.db{wal}"));
        std::fs::copy(server.data().join(name), to).unwrap();
    }
    old.restart().await;
    assert_eq!(me.at(&old).head().await.0, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_the_master_key_is_told_where_to_put_it() {
    let source = Server::start(Engine::Sqlite).await;
    let me = source.api().newcomer("mine").await;
    add(&me, 2).await;
    let file = Backup::of(&source).await;
    let mut there = Server::prepare(Engine::Sqlite, &[]).await;
    let ended = there.run(&["restore", file.arg()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let place = there.data().join("master.key");
    assert!(ended.output.contains("MISSING"), "{}", ended.output);
    assert!(
        ended.output.contains(place.to_str().unwrap()),
        "{}",
        ended.output
    );
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let refused = there.run(&arguments).await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(refused.output.contains("put it at"), "{}", refused.output);
    assert!(!place.exists(), "a key that opens nothing was made");
    std::fs::copy(source.data().join("master.key"), place).unwrap();
    there.restart().await;
    assert_eq!(me.at(&there).head().await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_nodes_notice_renewed_epochs() {
    let key = new_key();
    let cluster = Cluster::with(&[("keys.master_key", &key)]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    add(&one, 3).await;
    let mut sockets = [Socket::open(&one).await, Socket::open(&two).await];
    let old = sockets[0].epoch();
    for socket in &mut sockets {
        socket.expect_events(1, 3).await;
    }
    let renewed = cluster.a.run(&["renew-epochs"]).await;
    assert_eq!(renewed.code, Some(0), "{}", renewed.output);
    assert!(renewed.output.contains("of 1 logs"), "{}", renewed.output);
    for (socket, device) in sockets.iter_mut().zip([&one, &two]) {
        let resync = socket.next_frame("resync").await;
        assert_eq!(resync["reason"], "epoch_changed");
        assert_eq!(resync["head_seq"], 3);
        let epoch = resync["epoch"].as_str().unwrap();
        assert_ne!(epoch, old);
        socket.expect_quiet(SILENCE).await;
        socket.ack_up_to(3, epoch).await;
        device.me().await.ok(200);
    }
    two.put("song", "after").await.ok(201);
    for socket in &mut sockets {
        socket.expect_event(4).await;
    }
    // With nodes that serve, nothing is put in their database's place.
    let file = Backup::of(&cluster.a).await;
    let idle = place_on(&cluster.a, &key).await;
    let refused = idle.run(&["restore", "--replace", file.arg()]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(refused.output.contains("stop them"), "{}", refused.output);
    // Everybody out, from below.
    let renewed = cluster
        .b
        .run(&["renew-epochs", "--sign-out-everyone"])
        .await;
    assert_eq!(renewed.code, Some(0), "{}", renewed.output);
    within(Duration::from_secs(5), "tokens are refused", async || {
        one.me().await.code() == "token_revoked"
    })
    .await;
    for socket in &mut sockets {
        until_closed(socket, 4003).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_epochs_of_a_copied_file_are_renewed() {
    let (mut server, _) = server(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    add(&me, 2).await;
    let (_, old) = me.head().await;
    let refused = server.run(&["renew-epochs"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(
        refused.output.contains("stop it first"),
        "{}",
        refused.output
    );
    server.stop().await;
    let renewed = server.run(&["renew-epochs"]).await;
    assert_eq!(renewed.code, Some(0), "{}", renewed.output);
    server.restart().await;
    let me = me.at(&server);
    let (head, epoch) = me.head().await;
    assert_eq!(head, 2);
    assert_ne!(epoch, old);
    me.renewed().await.me().await.ok(200);
}

/// A server whose master key is known.
async fn server(engine: Engine) -> (Server, String) {
    let key = new_key();
    (
        Server::with(engine, &[("keys.master_key", &key)]).await,
        key,
    )
}

/// A place for a server with this master key, empty and not started.
async fn place(engine: Engine, key: &str) -> Server {
    Server::prepare(engine, &[("keys.master_key", key)]).await
}

/// Another place on the database of this server.
async fn place_on(server: &Server, key: &str) -> Server {
    let url = server.database_url().unwrap();
    let settings = [("database.url", url), ("keys.master_key", key)];
    Server::prepare(Engine::Sqlite, &settings).await
}

fn new_key() -> String {
    use base64::Engine as _;
    let key = listen_stream::domain::clock::World::system().bytes::<32>();
    base64::engine::general_purpose::STANDARD.encode(key.unwrap())
}

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Sqlite => Engine::Postgres,
        Engine::Postgres => Engine::Sqlite,
    }
}

/// Files of the data folder whose names hold `part`.
fn names(server: &Server, part: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.data()).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let before = "before-restore";
    names
        .filter(|it| it.contains(part) && (part == before || !it.contains(before)))
        .collect()
}

/// A backup in a folder of its own.
struct Backup {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Backup {
    async fn of(server: &Server) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("backup.lsb");
        let made = server.run(&["backup", path.to_str().unwrap()]).await;
        assert_eq!(made.code, Some(0), "{}", made.output);
        Self {
            path,
            _folder: folder,
        }
    }

    fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Server {
    async fn restored(&self, file: &Backup) {
        self.restored_with(file, &[]).await;
    }

    async fn restored_with(&self, file: &Backup, flags: &[&str]) {
        let arguments = [&["restore", file.arg()], flags].concat();
        let ended = self.run(&arguments).await;
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        assert!(ended.output.contains("is in no backup"), "{}", ended.output);
    }
}

impl Device {
    /// The device with its next tokens.
    pub async fn renewed(&self) -> Self {
        let body = self.api.rotate(&self.refresh, None).await.ok(200);
        Self::new(&self.api, &body)
    }
}

/// Adds this many favorites.
async fn add(me: &Device, count: usize) {
    for _ in 0..count {
        me.put("song", &unique()).await.ok(201);
    }
}

/// Reads until the socket closes, with this code.
async fn until_closed(socket: &mut Socket, code: u16) {
    loop {
        match socket.next().await {
            Incoming::Frame(_) => {}
            Incoming::Close(got) => return assert_eq!(got, code),
            Incoming::Gone => panic!("gone without a close frame"),
        }
    }
}

async fn users(api: &Api) -> Vec<Device> {
    let mut users = Vec::new();
    for _ in 0..3 {
        users.push(api.newcomer("mine").await);
    }
    users
}

/// Users and targets of favorites that were added and answered.
type Answered = Vec<(String, String)>;

/// Writers that add and remove favorites until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<std::sync::Mutex<Answered>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(users: &[Device]) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::default());
        let writers = users.iter().cycle().take(2 * users.len()).map(|device| {
            let (device, stop, answered) = (device.clone(), stop.clone(), Arc::clone(&answered));
            tokio::spawn(write(device, stop, answered))
        });
        Self {
            writers: writers.collect(),
            stop,
            answered,
        }
    }

    fn answered(&self) -> Answered {
        self.answered.lock().unwrap().clone()
    }

    async fn stop(self) -> Answered {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.unwrap();
        }
        let answered = self.answered.lock().unwrap();
        answered.clone()
    }
}

async fn write(device: Device, stop: Arc<AtomicBool>, answered: Arc<std::sync::Mutex<Answered>>) {
    let mut last: Option<String> = None;
    for step in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let target = match last.take() {
            Some(last) if step % 3 == 2 => {
                device.remove("song", &last).await.ok(204);
                last
            }
            _ => {
                let target = unique();
                device.put("song", &target).await.ok(201);
                target
            }
        };
        answered
            .lock()
            .unwrap()
            .push((device.user_id.clone(), target.clone()));
        last = Some(target);
    }
}

/// What a user's log and favorites say.
#[derive(Debug, PartialEq)]
struct State {
    log: Vec<Value>,
    /// Every target that the log names, and whether it is a favorite at its end.
    targets: BTreeMap<String, bool>,
    favorites: Vec<Value>,
    devices: Vec<Value>,
}

impl State {
    async fn of(me: &Device) -> Self {
        let mut log = me.log().await;
        let mut targets = BTreeMap::new();
        for event in &mut log {
            let target = event["data"]["target_id"].as_str().unwrap().to_owned();
            targets.insert(target, event["event_type"] != "favorite.removed");
            // It names the epoch.
            event.as_object_mut().unwrap().remove("ack_token");
        }
        Self {
            targets,
            log,
            favorites: me.all_favorites(200).await,
            devices: me.devices().await,
        }
    }

    /// The favorites are those that the log leads to. (That the log has no gap up to its head was
    /// checked when it was read.)
    fn is_one_moment(&self) {
        let listed: BTreeSet<_> = self
            .favorites
            .iter()
            .map(|it| it["target_id"].as_str().unwrap())
            .collect();
        let replayed = self.targets.iter().filter(|(_, there)| **there);
        let replayed: BTreeSet<_> = replayed.map(|(target, _)| target.as_str()).collect();
        assert_eq!(listed, replayed);
        assert_eq!(listed.len(), self.favorites.len());
    }
}
