//! The daily clean-up of histories, with a wall clock that is set (feature `faults`).

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    clock_set::set_clock,
    history::{add, history, now, plays},
    support::{
        Server, Socket,
        admin::{Admin, WITH_TOKEN},
        within,
    },
};

/// The longest that a run that is due may take to begin and to end.
const SOON: Duration = Duration::from_secs(30);

/// Sets the server's wall clock to this moment.
fn set_to(server: &Server, moment: &str) {
    let moment: DateTime<Utc> = moment.parse().unwrap();
    set_clock(server, (moment - now()).num_seconds());
}

async fn runs(server: &Server) -> u64 {
    server.metric("history_cleanup_runs_total").await
}

async fn removed(server: &Server, what: &str) -> u64 {
    let name = format!("history_cleanup_removed_total{{what=\"{what}\"}}");
    server.metric(&name).await
}

both_engines! {
    async fn what_is_left_over_goes_at_two_or_at_the_next_start(engine) {
        let settings = [("history.time_zone", "Asia/Shanghai"), WITH_TOKEN];
        let mut server = Server::with(engine, &settings).await;
        let me = server.api().newcomer("one").await;
        add(&me, &plays(0..10, 10), Some("key")).await.ok(200);
        let listed = history(&me, 50).await;
        let path = format!("/v1/me/history/{}", listed[9]["id"].as_str().unwrap());
        let remove = me.request(reqwest::Method::DELETE, &path);
        crate::support::client::send(remove).await.ok(204);
        server.stop().await;

        // A year later fewer plays are kept, and it is noon in Shanghai: nobody was up at two.
        server.set("history.max_plays", "4");
        set_to(&server, "2100-11-20T04:00:00Z");
        server.restart().await;
        let me = server.api().login(&me.phone, "one").await;
        let mut socket = Socket::open(&me).await;
        within(SOON, "the run that was missed", async || runs(&server).await == 1).await;
        let event = socket.expect_events(1, 3).await.pop().unwrap();
        assert_eq!(event["event_type"], "history.trimmed");
        assert_eq!(event["data"]["oldest"]["id"], listed[3]["id"]);
        assert_eq!(history(&me, 50).await, &listed[..4]);
        for (what, n) in [("plays", 5), ("removed_plays", 1), ("idempotency_keys", 1)] {
            assert_eq!(removed(&server, what).await, n, "{what}");
        }
        assert_eq!(server.metric("history_cleanup_failures_total").await, 0);
        let said = server.output();
        let line = said.lines().find(|it| it.contains("histories were cleaned up")).unwrap();
        assert!(line.contains("plays=5") && line.contains("2100-11-19 18:00:00 UTC"), "{line}");

        // At two again, while the server is up.
        add(&me, &plays(20..23, 23), Some("key")).await.ok(200);
        set_to(&server, "2100-11-20T17:59:58Z");
        within(SOON, "the run at two", async || runs(&server).await == 2).await;
        // Started anew it knows what was done.
        server.stop().await;
        server.restart().await;
        let admin = Admin::of(&server);
        within(SOON, "a look at the table of runs", async || {
            let janitor = admin.get("/actors/history_janitor:node").await.ok(200);
            janitor["view"]["next_at"] == "2100-11-21T18:00:00Z"
        })
        .await;
        assert_eq!(runs(&server).await, 0, "it was not done again");
    }
}
