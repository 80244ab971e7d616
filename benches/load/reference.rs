//! What lines are compared with: each a process of this program, on the same cores as the server.
//!
//! `json`: a bare actix-web handler that answers a JSON body. `bytes`: one that streams what is in a file.
//! `store`: the store's own code, called by 64 tasks at a time, without HTTP and actors. `sockets`: a bare `actix-web-actors` connection that hands
//! what one of a pair sends to the other.

use std::{
    collections::HashMap,
    io::{BufRead as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, AsyncContext as _, Handler, Message, StreamHandler};
use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer,
    web::{self, Bytes},
};
use actix_web_actors::ws;
use bytestring::ByteString;
use listen_stream::{
    domain::{
        clock::World,
        ids::{EventId, FavoriteId, PlayId, UserId},
        library::{ArtistName, FavoriteKey, FavoriteType, MAX_PLAYS, NewPlay, SongName, TargetId},
    },
    store::{Database, FavoriteCommand, HistoryAdd, Issued, Store, StoreConfig, StoreMetrics},
};
use serde::Serialize;

use super::{Res, machine};

/// Becomes the reference that the arguments name.
pub fn serve(arguments: &[String]) -> Res<()> {
    let word = |n: usize| arguments.get(n).map_or("", String::as_str);
    match word(0) {
        "json" => http(|cfg| {
            cfg.route("/", web::get().to(json));
        }),
        "sockets" => {
            let waiting = web::Data::new(Waiting::default());
            http(move |cfg| {
                cfg.app_data(waiting.clone())
                    .route("/", web::get().to(socket));
            })
        }
        "bytes" => {
            let body = web::Data::new(Bytes::from(std::fs::read(word(1))?));
            http(move |cfg| {
                cfg.app_data(body.clone())
                    .default_service(web::get().to(bytes));
            })
        }
        "store" => store(word(1), word(2), word(3)),
        "kernel" => super::lines::kernel::serve(word(1)),
        other => Err(format!("no reference {other}").into()),
    }
}

fn say(line: &str) -> Res<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn http(routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static) -> Res<()> {
    actix_web::rt::System::new().block_on(async move {
        let server = HttpServer::new(move || App::new().configure(routes.clone()))
            .workers(machine::cores())
            .tcp_nodelay(true)
            .backlog(4096)
            .max_connections(100_000)
            .bind(("127.0.0.1", 0))?;
        let address = server.addrs().first().copied().ok_or("no address")?;
        say(&address.to_string())?;
        Ok(server.run().await?)
    })
}

#[derive(Serialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    device_id: String,
}

async fn json() -> web::Json<Devices> {
    let device_id = "device-0".to_owned();
    web::Json(Devices {
        devices: vec![Device { device_id }],
    })
}

/// In pieces, as the server sends what it does not know the length of.
async fn bytes(body: web::Data<Bytes>) -> HttpResponse {
    let body = Bytes::clone(&body);
    let piece = move |n| (n < body.len()).then(|| body.slice(n..body.len().min(n + PIECE)));
    let pieces = (0..).step_by(PIECE).map_while(piece).map(Ok::<_, Error>);
    HttpResponse::Ok().streaming(futures_util::stream::iter(pieces))
}

/// See [`bytes`].
const PIECE: usize = 16 * 1024;

/// Who came first of a pair, by the pair's name.
type Waiting = Mutex<HashMap<String, Addr<Conn>>>;

struct Conn {
    peer: Option<Addr<Self>>,
    waiting: web::Data<Waiting>,
    pair: String,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Text(ByteString);

#[derive(Message)]
#[rtype(result = "()")]
struct Meet(Addr<Conn>);

impl Actor for Conn {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = waiting.remove(&self.pair) {
            first.do_send(Meet(ctx.address()));
            self.peer = Some(first);
        } else {
            waiting.insert(self.pair.clone(), ctx.address());
        }
        drop(waiting);
        ctx.text("{\"type\":\"welcome\"}");
    }
}

impl Handler<Meet> for Conn {
    type Result = ();
    fn handle(&mut self, it: Meet, _: &mut Self::Context) {
        self.peer = Some(it.0);
    }
}

impl Handler<Text> for Conn {
    type Result = ();
    fn handle(&mut self, it: Text, ctx: &mut Self::Context) {
        ctx.text(it.0);
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Conn {
    fn handle(&mut self, it: Result<ws::Message, ws::ProtocolError>, _: &mut Self::Context) {
        if let (Ok(ws::Message::Text(text)), Some(peer)) = (it, &self.peer) {
            peer.do_send(Text(text));
        }
    }
}

async fn socket(
    req: HttpRequest,
    stream: web::Payload,
    waiting: web::Data<Waiting>,
) -> Result<HttpResponse, actix_web::Error> {
    let pair = req.query_string().to_owned();
    let conn = Conn {
        peer: None,
        waiting,
        pair,
    };
    ws::start(conn, &req, stream)
}

/// Callers of the store at a time: as many as share a transaction.
const AT_ONCE: usize = 64;

/// A command, for a user and of a number.
async fn favorite(store: Store, user: UserId, n: u64, world: World) -> Res<()> {
    let command = FavoriteCommand {
        user,
        key: FavoriteKey {
            kind: FavoriteType::Song,
            target_id: TargetId::parse(format!("ref-{}-{n}", std::process::id()))?,
        },
        origin: None,
        now: world.now(),
        favorite_id: FavoriteId(world.uuid()?),
        event_id: EventId(world.uuid()?),
    };
    let deadline = world.instant() + Duration::from_secs(5);
    store.favorite_put(deadline, command).await?;
    Ok(())
}

/// Plays of one command.
const PLAYS: u64 = 200;

/// The same with many plays.
async fn plays(store: Store, user: UserId, n: u64, world: World) -> Res<()> {
    let now = world.now();
    let mut plays = Vec::with_capacity(PLAYS as usize);
    for play in 0..PLAYS {
        plays.push(NewPlay {
            id: PlayId(world.uuid()?),
            song_id: TargetId::parse(format!("song-{}", n * PLAYS + play))?,
            song_name: SongName::parse("The name of a song of some length")?,
            artist_name: ArtistName::parse("Somebody who sings")?,
            duration: 215,
            played_at: now,
        });
    }
    let command = HistoryAdd {
        issued: Issued {
            user,
            origin: None,
            now,
            event_id: EventId(world.uuid()?),
        },
        key: None,
        plays,
        keep: MAX_PLAYS,
    };
    let deadline = world.instant() + Duration::from_secs(5);
    store.history_add(deadline, command).await?;
    Ok(())
}

/// Hears `run MILLIS`, answers `COUNT MICROS CPU_MICROS`.
fn store(what: &str, database: &str, users: &str) -> Res<()> {
    let is_plays = what == "plays";
    let users: Vec<UserId> = std::fs::read_to_string(users)?
        .lines()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let users = Arc::new(users);
    // As the server has it: two threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let config = StoreConfig {
        database: if database.starts_with("postgres://") {
            Database::Postgres(database.to_owned())
        } else {
            Database::Sqlite(database.into())
        },
        max_connections: 20,
        read_connections: 4,
        write_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        synchronous_full: true,
    };
    let world = World::system();
    let opening = Store::open(
        config,
        world.clone(),
        runtime.handle().clone(),
        StoreMetrics::default(),
    );
    let store = runtime.block_on(opening)?;
    say("ready")?;
    let next = Arc::new(AtomicU64::new(0));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let millis: u64 = line.trim_start_matches("run ").parse()?;
        let cpu = machine::cpu(std::process::id())?;
        let begun = Instant::now();
        let end = begun + Duration::from_millis(millis);
        let first = next.load(Relaxed);
        let mut tasks = Vec::new();
        for _ in 0..AT_ONCE {
            let (store, users, next, world) = (
                store.clone(),
                Arc::clone(&users),
                Arc::clone(&next),
                world.clone(),
            );
            tasks.push(runtime.spawn(async move {
                while Instant::now() < end {
                    let n = next.fetch_add(1, Relaxed);
                    let (store, world) = (store.clone(), world.clone());
                    if is_plays {
                        // As many as the clients of the server have.
                        let user = users[n as usize % users.len().min(200)];
                        plays(store, user, n, world).await?;
                    } else {
                        let user = users[n as usize % users.len()];
                        favorite(store, user, n, world).await?;
                    }
                }
                Res::Ok(())
            }));
        }
        for task in tasks {
            runtime.block_on(task)??;
        }
        let count = next.load(Relaxed) - first;
        let cpu = machine::cpu(std::process::id())? - cpu;
        say(&format!(
            "{count} {} {}",
            begun.elapsed().as_micros(),
            (cpu * 1e6) as u64
        ))?;
    }
    runtime.block_on(store.close());
    Ok(())
}
