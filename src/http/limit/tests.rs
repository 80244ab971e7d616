use std::time::Duration;

use actix_web::{test::TestRequest, web};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::error::ErrorCode;
use crate::http::testing::{Answer, Server, ok, server};

const CONFIG: LimitConfig = LimitConfig {
    ip_per_second: 2,
    ip_burst: 5,
    user_per_second: 1,
    user_burst: 2,
    auth_per_minute: 6,
    auth_burst: 2,
};

fn tight() -> Server {
    server(|cfg| {
        cfg.route("/thing", web::get().to(ok))
            .route("/v1/auth/tokens", web::get().to(ok))
            .route("/me", web::get().to(me));
    })
    .limited(&CONFIG)
}

async fn me(req: HttpRequest, limits: web::Data<Limits>) -> Result<&'static str, ApiError> {
    limits.check_user(&req, UserId(Uuid::nil()))?;
    Ok("me")
}

async fn from(server: &Server, peer: &str, uri: &str) -> Answer {
    let peer = format!("{peer}:4000").parse().unwrap();
    server
        .call(TestRequest::get().uri(uri).peer_addr(peer))
        .await
}

fn left(answer: &Answer) -> (&str, &str) {
    (
        answer.header("ratelimit-policy").unwrap(),
        answer.header("ratelimit").unwrap(),
    )
}

#[track_caller]
fn is_limited(answer: &Answer, policy: &str, retry_after: &str) {
    let detail = format!("over the limit \"{policy}\"");
    answer.is_problem(ErrorCode::RateLimited, &detail, &json!({}));
    assert_eq!(answer.header("retry-after"), Some(retry_after));
}

#[actix_web::test]
async fn an_address_has_a_burst_and_a_rate() {
    let server = tight();
    for expected in [
        r#""ip";r=4;t=1"#,
        r#""ip";r=3;t=1"#,
        r#""ip";r=2;t=2"#,
        r#""ip";r=1;t=2"#,
        r#""ip";r=0;t=3"#,
    ] {
        let answer = from(&server, "192.0.2.1", "/thing").await;
        assert_eq!(answer.status, 200);
        assert_eq!(left(&answer), (r#""ip";q=5;w=3"#, expected));
    }
    let answer = from(&server, "192.0.2.1", "/thing").await;
    is_limited(&answer, "ip", "1");
    assert_eq!(left(&answer), (r#""ip";q=5;w=3"#, r#""ip";r=0;t=3"#));
    // Nowhere is limited too, and another address is not.
    is_limited(&from(&server, "192.0.2.1", "/nowhere").await, "ip", "1");
    assert_eq!(from(&server, "192.0.2.2", "/thing").await.status, 200);

    server.hands.advance(Duration::from_millis(500));
    assert_eq!(from(&server, "192.0.2.1", "/thing").await.status, 200);
    is_limited(&from(&server, "192.0.2.1", "/thing").await, "ip", "1");
}

#[actix_web::test]
async fn an_ipv6_caller_is_its_whole_network() {
    let server = tight();
    for n in 1..=5 {
        let peer = format!("[2001:db8:1:2::{n}]");
        assert_eq!(from(&server, &peer, "/thing").await.status, 200);
    }
    is_limited(
        &from(&server, "[2001:db8:1:2:ffff::9]", "/thing").await,
        "ip",
        "1",
    );
    assert_eq!(
        from(&server, "[2001:db8:1:3::1]", "/thing").await.status,
        200
    );
    // A mapped address is the IPv4 address, not one network for all of them.
    let mapped = network(Some("::ffff:192.0.2.1".parse().unwrap()));
    assert_eq!(mapped, "192.0.2.1".parse::<IpAddr>().unwrap());
}

#[actix_web::test]
async fn signing_in_has_a_limit_of_its_own() {
    let server = tight();
    let policy = r#""auth";q=2;w=20"#;
    let answer = from(&server, "192.0.2.1", "/v1/auth/tokens").await;
    assert_eq!(left(&answer), (policy, r#""auth";r=1;t=10"#));
    let answer = from(&server, "192.0.2.1", "/v1/%61uth/tokens").await;
    assert_eq!(left(&answer), (policy, r#""auth";r=0;t=20"#));
    is_limited(
        &from(&server, "192.0.2.1", "/v1/auth/tokens").await,
        "auth",
        "10",
    );
    assert_eq!(from(&server, "192.0.2.1", "/thing").await.status, 200);
}

#[actix_web::test]
async fn a_user_is_limited_from_any_address() {
    let server = tight();
    let answer = from(&server, "192.0.2.1", "/me").await;
    assert_eq!(left(&answer), (r#""user";q=2;w=2"#, r#""user";r=1;t=1"#));
    assert_eq!(from(&server, "192.0.2.2", "/me").await.status, 200);
    let answer = from(&server, "192.0.2.3", "/me").await;
    is_limited(&answer, "user", "1");
    assert_eq!(left(&answer), (r#""user";q=2;w=2"#, r#""user";r=0;t=2"#));
}

#[actix_web::test]
async fn a_page_can_read_that_it_is_limited() {
    let server = tight();
    let page = ("origin", "https://app.example.com");
    for _ in 0..5 {
        server.get("/thing").await;
    }
    let answer = server
        .call(TestRequest::get().uri("/thing").insert_header(page))
        .await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("access-control-allow-origin"), Some(page.1));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[actix_web::test]
async fn full_buckets_are_forgotten() {
    let server = tight();
    let limits = server.surface.limits.clone().unwrap();
    for n in 0..100 {
        from(&server, &format!("198.51.100.{n}"), "/thing").await;
    }
    assert_eq!(limits.len(), 100);
    limits.sweep();
    assert_eq!(limits.len(), 100, "they are not full yet");
    server.hands.advance(Duration::from_secs(5));
    limits.sweep();
    assert!(limits.is_empty());
}

#[test]
fn a_flood_of_addresses_is_bounded_between_sweeps() {
    let server = tight();
    let limiter = Limiter::new(
        Policy::Ip,
        Quota::per_second(at_least_one(1)),
        &server.surface.world,
    );
    for n in 0..3 * SWEEP_EVERY {
        let _ = limiter.check(&n, NonZeroU32::MIN);
        server.hands.advance(Duration::from_millis(1));
    }
    let kept = u32::try_from(limiter.len()).unwrap();
    assert!(kept <= SWEEP_EVERY + 2000, "{kept}");
}

#[test]
fn zero_counts_as_one() {
    let server = tight();
    let config = LimitConfig {
        ip_per_second: 0,
        ip_burst: 0,
        user_per_second: 0,
        user_burst: 0,
        auth_per_minute: 0,
        auth_burst: 0,
    };
    let limits = Limits::new(&config, &server.surface.world);
    let req = TestRequest::default().to_http_request();
    assert!(limits.check_user(&req, UserId(Uuid::nil())).is_ok());
    assert!(limits.check_user(&req, UserId(Uuid::nil())).is_err());
}

/// The buckets that all nodes share, as a test has them; counts what it is asked.
#[derive(Debug, Default)]
struct Together {
    verdict: std::sync::Mutex<Option<Verdict>>,
    asked: std::sync::atomic::AtomicU32,
}

impl SharedBuckets for Together {
    fn take(&self, _: LimitKey, rate: Rate, _: u32) -> Option<Verdict> {
        assert_eq!((rate.burst, rate.interval), (2, Duration::from_secs(1)));
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *self.verdict.lock().unwrap()
    }

    fn sweep(&self) {}
}

#[test]
fn what_all_nodes_share_is_asked_only_where_this_node_lets_in() {
    let shared = Arc::new(Together::default());
    let limits = Limits::new(&CONFIG, &World::system()).together(Some(shared.clone()));
    let check = |user: u128, verdict| {
        *shared.verdict.lock().unwrap() = verdict;
        let user = UserId(Uuid::from_u128(user));
        let (left, outcome) = limits.check(
            &limits.shared.user,
            &user,
            LimitKey::User(user),
            NonZeroU32::MIN,
        );
        (left.remaining, outcome.is_ok())
    };
    let wait = Duration::from_secs(9);
    for (user, verdict, expected) in [
        // Limits count per node at present.
        (1, None, (1, true)),
        (1, None, (0, true)),
        (2, Some(Verdict::Pass(70)), (1, true)),
        (3, Some(Verdict::Pass(0)), (0, true)),
        (4, Some(Verdict::Refuse(wait)), (0, false)),
    ] {
        assert_eq!(check(user, verdict), expected, "{user} {verdict:?}");
    }
    let asked = || shared.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked(), 5);
    assert_eq!(check(1, Some(Verdict::Pass(70))), (0, false));
    assert_eq!(asked(), 5, "what is refused here costs no question");
}

#[test]
fn a_large_body_costs_more() {
    let costs = |request: TestRequest| cost(&request.to_http_request()).get();
    assert_eq!(costs(TestRequest::put()), 1);
    for (length, tokens) in [
        (0, 1),
        (8191, 1),
        (8192, 2),
        (MAX_BODY, 129),
        (usize::MAX, 129),
    ] {
        let said = TestRequest::put().insert_header((header::CONTENT_LENGTH, length));
        assert_eq!(costs(said), tokens, "{length}");
    }
}

#[test]
fn a_body_that_does_not_say_its_length_costs_the_most_and_none_costs_nothing() {
    let costs = |request: TestRequest, version| {
        let json = (header::CONTENT_TYPE, "application/json");
        let request = request.version(version).insert_header(json);
        cost(&request.to_http_request()).get()
    };
    let pieces = || TestRequest::post().insert_header((header::TRANSFER_ENCODING, "chunked"));
    assert_eq!(costs(pieces(), Version::HTTP_11), 129);
    // Some clients say what kind of a body it would be with everything.
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(costs(TestRequest::get(), version), 1);
        assert_eq!(costs(TestRequest::delete(), version), 1);
    }
    assert_eq!(costs(TestRequest::post(), Version::HTTP_11), 1);
    assert_eq!(costs(TestRequest::post(), Version::HTTP_2), 129);
}

#[actix_web::test]
async fn what_costs_more_than_a_bucket_holds_takes_all_of_it() {
    let limits = Limits::new(&CONFIG, &World::system());
    let body = (header::CONTENT_LENGTH, MAX_BODY);
    let large = TestRequest::put().insert_header(body).to_http_request();
    let small = TestRequest::get().to_http_request();
    let user = UserId(Uuid::nil());
    assert!(limits.check_user(&large, user).is_ok());
    assert!(limits.check_user(&small, user).is_err());
}
