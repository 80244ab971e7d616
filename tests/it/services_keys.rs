//! Keys of other services: the command line, the control socket, who is let in, and how soon one who is
//! not is kept out.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Cluster, Engine, Server, Service,
    client::send,
    proxy::Way,
    server::run,
    service::{INTERNAL, create_key},
    within,
};

const APPEND: &str = "events:append";
const BROADCAST: &str = "events:broadcast";
const OFFLINE: &str = "offline:read";

/// What is promised: everywhere in under a second.
const SOON: Duration = Duration::from_secs(1);

both_engines! {
    async fn keys_are_made_listed_and_revoked(engine) {
        let server = Server::with(engine, &[INTERNAL, ("log.level", "debug")]).await;
        let me = server.api().newcomer("mine").await;
        let more = ["--events-per-hour", "7"];
        let service = Service::made(&server, &[APPEND, OFFLINE, APPEND], &more).await;
        let other = Service::with(&server, &[BROADCAST]).await;
        service.append(&me, "billing.paid", json!({})).await.ok(201);

        let listed = server.run(&["keys", "list"]).await;
        assert_eq!(listed.code, Some(0), "{}", listed.output);
        let lines: Vec<_> = listed.output.lines().filter(|line| line.contains("\ttest\t")).collect();
        assert_eq!(lines.len(), 2, "{}", listed.output);
        assert!(lines[0].contains("\ttest\tevents:append,offline:read\t7\t"), "{}", lines[0]);
        assert!(lines[1].contains("\ttest\tevents:broadcast\t-\t") && lines[1].ends_with("\t-"));
        let id = lines[0].split('\t').next().unwrap();
        assert_eq!(id.replace('-', ""), service.key_id());

        let revoked = server.run(&["keys", "revoke", id]).await;
        assert_eq!(revoked.code, Some(0), "{}", revoked.output);
        // A write looks at the key as it is: there is no moment in which it is let through.
        let answer = service.append(&me, "billing.paid", json!({})).await;
        answer.problem(401, "api_key_invalid");
        service.offline(&me, "").await.problem(401, "api_key_invalid");
        other.get("/broadcasts").await.ok(200);
        // Once more changes nothing; another is unknown.
        let again = server.run(&["keys", "revoke", id]).await;
        assert_eq!(again.code, Some(0), "{}", again.output);
        let unknown = server.run(&["keys", "revoke", &me.user_id]).await;
        assert_eq!(unknown.code, Some(1));
        assert!(unknown.output.contains("there is no key"), "{}", unknown.output);

        let listed = server.run(&["keys", "list"]).await.output;
        assert!(!listed.lines().find(|line| line.starts_with(id)).unwrap().ends_with("\t-"));
        for secret in [&service.key, &other.key].map(|key| &key[37..]) {
            assert!(!listed.contains(secret) && !server.output().contains(secret));
        }
    }

    async fn keys_work_while_the_server_is_stopped_and_outlive_it(engine) {
        let mut server = Server::with(engine, &[INTERNAL]).await;
        let me = server.api().newcomer("mine").await;
        let before = Service::with(&server, &[APPEND]).await;
        let socket = server.data().join("control.sock");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        server.stop().await;
        assert!(!socket.exists());
        let key = create_key(&server, &["--name", "late", "--scope", APPEND]).await;
        server.restart().await;
        let late = Service { api: server.internal(), key };
        late.append(&me, "a.b", json!({})).await.ok(201);
        before.at(&server).append(&me, "a.b", json!({})).await.ok(201);
        // What a killed server leaves of its socket stands in nobody's way.
        server.kill9();
        assert!(socket.exists());
        assert_eq!(server.run(&["keys", "list"]).await.code, Some(0));
        server.restart().await;
        let listed = server.run(&["keys", "list"]).await;
        assert!(listed.output.contains("\tlate\t"), "{}", listed.output);
    }

    async fn a_call_needs_a_key_with_its_scope(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let me = server.api().newcomer("mine").await;
        let user = &me.user_id;
        let calls = [
            (Method::POST, format!("/users/{user}/events"), APPEND),
            (Method::POST, "/events:broadcast".to_owned(), BROADCAST),
            (Method::GET, "/broadcasts".to_owned(), BROADCAST),
            (Method::GET, format!("/broadcasts/{user}"), BROADCAST),
            (Method::POST, format!("/broadcasts/{user}:cancel"), BROADCAST),
            (Method::GET, format!("/users/{user}/offline"), OFFLINE),
        ];
        let body = json!({"event_type": "a.b", "data": {}});
        let mut services = Vec::new();
        for scope in [APPEND, BROADCAST, OFFLINE] {
            services.push((scope, Service::with(&server, &[scope]).await));
        }
        for (method, path, needed) in calls {
            for (scope, service) in &services {
                let answer = send(service.request(method.clone(), &path).json(&body)).await;
                if *scope == needed {
                    assert!(![401, 403].contains(&answer.status), "{path}: {answer:#?}");
                } else {
                    answer.problem(403, "scope_missing");
                }
            }
            let path = format!("/internal/v1{path}");
            let bare = send(server.internal().request(method.clone(), &path).json(&body)).await;
            bare.problem(401, "api_key_invalid");
            // A user's token is no key.
            let token = server.internal().request(method, &path).bearer_auth(&me.access);
            send(token.json(&body)).await.problem(401, "api_key_invalid");
        }
        // And a key is no user's token.
        let key = &services[0].1.key;
        server.api().me_with(&format!("Bearer {key}")).await.problem(401, "token_invalid");
        server.api().get("/internal/v1/broadcasts").await.problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_on_all_nodes_in_under_a_second() {
    let cluster = Cluster::with(&[INTERNAL]).await;
    let me = cluster.a.api().newcomer("mine").await;
    for _ in 0..3 {
        let there = Service::with(&cluster.a, &[OFFLINE]).await.at(&cluster.b);
        there.offline(&me, "").await.ok(200);
        let revoked = cluster.a.run(&["keys", "revoke", there.key_id()]).await;
        assert_eq!(revoked.code, Some(0), "{}", revoked.output);
        // The command ends less than a second after it is stored.
        there.offline(&me, "").await.problem(401, "api_key_invalid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_believed_only_while_they_can_be_read() {
    let (server, proxy) = Server::behind_proxy(&[INTERNAL]).await;
    let me = server.api().newcomer("mine").await;
    // The command reaches the database by the same way, so it is made before.
    let service = Service::with(&server, &[OFFLINE]).await;
    service.offline(&me, "").await.ok(200);
    proxy.set(Way::Silent);
    // Whether it was revoked meanwhile nobody can say.
    within(SOON, "it is not believed any more", async || {
        let request = service.request(Method::GET, "/broadcasts");
        send(request).await.code() == "store_unavailable"
    })
    .await;
    proxy.set(Way::Open);
    within(Duration::from_secs(10), "it is again", async || {
        service.offline(&me, "").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn who_guesses_keys_is_told_to_wait_and_keeps_nobody_out() {
    let server = Server::with(Engine::Sqlite, &[INTERNAL]).await;
    let service = Service::with(&server, &[BROADCAST]).await;
    let mut wrong = service.clone();
    wrong.key.pop();
    let mut refused = 0;
    loop {
        let answer = wrong.get("/broadcasts").await;
        if answer.status == 429 {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            answer.problem(429, "rate_limited");
            break;
        }
        answer.problem(401, "api_key_invalid");
        refused += 1;
    }
    assert!((9..=10).contains(&refused), "{refused}");
    service.get("/broadcasts").await.ok(200);
}

#[tokio::test]
async fn a_mistyped_folder_or_argument_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let at = ["--data", data.to_str().unwrap()];
    let none = run(&[&["keys", "list"], &at[..]].concat(), &[]).await;
    assert_eq!(none.code, Some(1));
    assert!(
        none.output.contains("start the server once"),
        "{}",
        none.output
    );
    let good = ["keys", "create", "--name", "x", "--scope", APPEND];
    for (wrong, said) in [
        (&["keys", "create", "--name", "x"][..], "--scope"),
        (
            &["keys", "create", "--name", "x", "--scope", "all"],
            "one of events:append",
        ),
        (
            &["keys", "create", "--name", "a\nb", "--scope", APPEND],
            "control characters",
        ),
        (&["keys", "create", "--scope", APPEND], "--name"),
        (
            &[&good[..], &["--events-per-hour", "0"]].concat(),
            "1..=1000000",
        ),
        (&["keys", "revoke", "x"], "invalid"),
    ] {
        let refused = run(&[wrong, &at[..]].concat(), &[]).await;
        assert_eq!(refused.code, Some(2), "{wrong:?}: {}", refused.output);
        assert!(
            refused.output.contains(said),
            "{wrong:?}: {}",
            refused.output
        );
    }
    assert!(!data.exists());
}
