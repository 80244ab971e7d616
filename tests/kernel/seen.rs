//! Spans, views and meters.

use std::sync::{Arc, Mutex};

use actix::Arbiter;
use listen_stream::actors::kernel::{CallError, Reply};
use tokio::sync::oneshot;
use tracing::{Instrument, Span, info_span};

use crate::probe::{Bench, PLACE, command, echo, fail, hint, long, well, which_life};

#[actix_rt::test]
async fn the_callers_span_crosses_the_mailbox() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    let (probe, _) = Bench::new().start(PLACE, well);
    let (done, all) = oneshot::channel();
    let elsewhere = Arbiter::new();
    elsewhere.spawn(async move {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let note = |spans: &Arc<Mutex<Vec<_>>>| spans.lock().unwrap().push(Span::current().id());
        let noted = Arc::clone(&spans);
        let later = command(move |_, _| {
            note(&noted);
            let in_work = Arc::clone(&noted);
            let work = async move {
                tokio::task::yield_now().await;
                note(&in_work);
            };
            Reply::later(work, move |_, (), _| {
                note(&noted);
                0
            })
        });
        let span = info_span!("request");
        let answer = probe.ask(later, long()).instrument(span.clone()).await;
        let noted = Arc::clone(&spans);
        span.in_scope(|| probe.tell(hint(move |_, _| note(&noted))))
            .unwrap();
        probe.ask(echo(1), long()).await.unwrap();
        let spans = spans.lock().unwrap().clone();
        let _ = done.send((answer, span.id(), spans));
    });
    let (answer, span, spans) = all.await.unwrap();
    assert_eq!(answer, Ok(0));
    assert!(span.is_some());
    assert_eq!(spans, [const { None }; 4].map(|_: Option<()>| span.clone()));
    elsewhere.stop();
}

#[actix_rt::test]
async fn an_actor_shows_its_state() {
    let (probe, _) = Bench::new().start(PLACE, well);
    let view = |life| Some(serde_json::json!({ "life": life }));
    assert_eq!(probe.observe(long()).await, view(1));
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    assert_eq!(probe.observe(long()).await, view(2));
}

#[actix_rt::test]
async fn an_actor_is_counted_over_its_lives_and_with_its_kind() {
    let bench = Bench::new();
    let (probe, _) = bench.start(PLACE, well);
    let (other, _) = bench.start(PLACE, well);
    for _ in 0..3 {
        probe.ask(which_life(), long()).await.unwrap();
    }
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    probe.ask(which_life(), long()).await.unwrap();
    other.ask(which_life(), long()).await.unwrap();
    assert_eq!((probe.handled(), probe.restarts()), (4, 1));
    assert_eq!((other.handled(), other.restarts()), (1, 0));
    let text = bench.text();
    for line in [
        "actor_live{kind=\"probe\"} 2",
        "actor_messages_total{kind=\"probe\"} 5",
        "actor_shed_total{kind=\"probe\"} 0",
        "actor_expired_total{kind=\"probe\"} 0",
        "actor_restarts_total{kind=\"probe\"} 1",
        "actor_quarantines_total{kind=\"probe\"} 0",
        "actor_handle_seconds_count{kind=\"probe\"} 5",
        "actor_wait_seconds_count{kind=\"probe\"} 5",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
