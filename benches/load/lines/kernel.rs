//! What the kernel adds to a bare actor: tell and ask, on one arbiter and across two.

use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, System};
use listen_stream::{
    actors::kernel::{
        Ask, Bookkeeping, Caps, Class, Cx, Handle, Kernel, KernelMetrics, Place, Public, Reply,
        RestartPolicy, Serve, Unit, view,
    },
    domain::clock::World,
};
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::{
    Plan, Res,
    machine::Cores,
    report::{Figures, Line},
    server::Reference,
};

const TELLS: u64 = 200_000;
const ASKS: u64 = 50_000;
/// A tell that is never heard would have no end: after so many one waits for the actor.
const BATCH: u64 = 1000;
/// 2 % of the CPU time of a request for the presence of a user's devices, which is about 10 µs.
const INSPECTION_NS: f64 = 200.0;

struct Adder(u64);

struct Add(u64);
struct Sum;

impl Ask for Add {
    type Reply = ();
    const CLASS: Class = Class::Control;
}

impl Ask for Sum {
    type Reply = u64;
    const CLASS: Class = Class::Read;
}

impl Message for Add {
    type Result = ();
}

impl Message for Sum {
    type Result = u64;
}

impl Actor for Adder {
    type Context = Context<Self>;
}

impl Handler<Add> for Adder {
    type Result = ();
    fn handle(&mut self, it: Add, _: &mut Context<Self>) {
        self.0 += it.0;
    }
}

impl Handler<Sum> for Adder {
    type Result = u64;
    fn handle(&mut self, _: Sum, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

view! {
    /// What it shows.
    struct AdderView {
        /// What was added.
        sum: Public<u64>,
    }
}

impl Unit for Adder {
    const KIND: &'static str = "adder";
    type View = AdderView;

    fn view(&self, _: Instant) -> AdderView {
        AdderView {
            sum: Public(self.0),
        }
    }
}

impl Serve<Add> for Adder {
    fn serve(&mut self, it: Add, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.0 += it.0;
        Reply::Now(())
    }
}

impl Serve<Sum> for Adder {
    fn serve(&mut self, _: Sum, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(self.0)
    }
}

/// The same actor under both: bare, and under the kernel.
struct Both {
    bare: Addr<Adder>,
    ours: Handle<Adder>,
}

impl Both {
    fn start(world: &World) -> Self {
        let kernel = Kernel::new(
            world.clone(),
            KernelMetrics::register(&mut Registry::default()),
        );
        let place = Place {
            caps: Caps {
                commands: 64,
                reads: 64,
            },
            policy: RestartPolicy::ROOT,
        };
        Self {
            bare: Adder(0).start(),
            ours: kernel.start(place, || Adder(0)),
        }
    }

    /// Nanoseconds of a tell and an ask, each bare and ours.
    async fn measure(&self, world: &World) -> Res<[f64; 4]> {
        let each = |took: Duration, count: u64| took.as_nanos() as f64 / count as f64;
        let deadline = || world.instant() + Duration::from_secs(10);
        let begun = Instant::now();
        for _ in 0..TELLS / BATCH {
            for _ in 0..BATCH {
                self.bare.do_send(Add(1));
            }
            self.bare.send(Sum).await?;
        }
        let bare_tell = each(begun.elapsed(), TELLS);
        let begun = Instant::now();
        for _ in 0..TELLS / BATCH {
            for _ in 0..BATCH {
                self.ours.tell(Add(1))?;
            }
            self.ours.ask(Sum, deadline()).await?;
        }
        let tell = each(begun.elapsed(), TELLS);
        let begun = Instant::now();
        for _ in 0..ASKS {
            self.bare.send(Sum).await?;
        }
        let bare_ask = each(begun.elapsed(), ASKS);
        let begun = Instant::now();
        for _ in 0..ASKS {
            self.ours.ask(Sum, deadline()).await?;
        }
        Ok([bare_tell, tell, bare_ask, each(begun.elapsed(), ASKS)])
    }
}

/// Measures once a line that it hears: `same` arbiter or `across` two.
pub fn serve(place: &str) -> Res<()> {
    use std::io::BufRead as _;
    let across = place == "across";
    System::new().block_on(async move {
        let world = World::system();
        let both = if across {
            let (made, there) = (oneshot::channel(), world.clone());
            let (tell, told) = made;
            Arbiter::new().spawn_fn(move || {
                let _ = tell.send(Both::start(&there));
            });
            told.await?
        } else {
            Both::start(&world)
        };
        println!("ready");
        for line in std::io::stdin().lock().lines() {
            line?;
            let [a, b, c, d] = both.measure(&world).await?;
            println!("{a} {b} {c} {d}");
        }
        Ok(())
    })
}

/// What is written down of each message for whoever may look, and the clock read for it: of a tell
/// that is timed, and of an ask. Nanoseconds for one of them.
fn inspection(world: &World) -> f64 {
    let metrics = KernelMetrics::register(&mut Registry::default());
    let kept = Bookkeeping::new(&metrics, world.instant());
    let begun = Instant::now();
    for _ in 0..TELLS / 2 {
        kept.told(world.instant(), world.instant(), world.instant());
        kept.asked(world.instant(), world.instant(), world.instant());
    }
    begun.elapsed().as_nanos() as f64 / TELLS as f64
}

fn inspection_line(plan: &Plan) -> Line {
    let world = World::system();
    // The first one warms up.
    inspection(&world);
    let mut line = Line {
        name: "inspection with nobody looking".to_owned(),
        unit: " ns",
        ours: Figures {
            values: (0..plan.rounds).map(|_| inspection(&world)).collect(),
            ..Figures::default()
        },
        goal: "< 2 % of a presence request's CPU (≈ 10 µs): 200 ns".to_owned(),
        ..Line::default()
    };
    line.met = Some(line.ours.median() < INSPECTION_NS);
    line
}

/// Tell and ask, on one arbiter and across two; and what inspection adds to each message.
pub fn lines(plan: &Plan) -> Res<Vec<Line>> {
    let mut lines = Vec::new();
    for (place, cores, told) in [
        ("same", Cores::First, "one arbiter"),
        ("across", Cores::All, "across two arbiters"),
    ] {
        let mut child = Reference::start(&["kernel", place], cores)?;
        child.hear()?;
        // The first one warms up.
        child.ask("go")?;
        let mut figures: [Figures; 4] = Default::default();
        for _ in 0..plan.rounds {
            let said = child.ask("go")?;
            for (figure, number) in figures.iter_mut().zip(said.split_whitespace()) {
                figure.values.push(number.parse()?);
            }
        }
        let [bare_tell, tell, bare_ask, ask] = figures;
        for (name, ours, bare) in [("tell", tell, bare_tell), ("ask", ask, bare_ask)] {
            let mut line = Line {
                name: format!("kernel, {name}, {told}"),
                unit: " ns",
                ours,
                reference: Some(("bare actix".to_owned(), bare)),
                goal: "≤ 1.3 ×".to_owned(),
                ..Line::default()
            };
            line.met = Some(line.ratio() <= 1.3);
            lines.push(line);
        }
    }
    lines.push(inspection_line(plan));
    Ok(lines)
}
