//! What it costs to have a server at all.

use crate::{
    Plan, Res,
    machine::{Cores, resident},
    report::{Figures, Line},
    server::Server,
};

/// Start, memory at rest, size.
pub async fn lines(plan: &Plan) -> Res<Vec<Line>> {
    let (mut first, mut again, mut memory) =
        (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..plan.rounds {
        let folder = tempfile::TempDir::new()?;
        let data = folder.path().join("data");
        let server = Server::start(&data, &[], Cores::All).await?;
        first.values.push(server.start.as_secs_f64() * 1000.0);
        drop(server);
        let server = Server::start(&data, &[], Cores::All).await?;
        again.values.push(server.start.as_secs_f64() * 1000.0);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        memory.values.push(resident(server.id())? as f64 / 1024.0);
    }
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_listen-stream"))?.len();
    let size = Figures {
        values: vec![size as f64 / (1024.0 * 1024.0)],
        ..Figures::default()
    };
    let line = |name: &str, unit, ours| Line {
        name: name.to_owned(),
        unit,
        ours,
        goal: "–".to_owned(),
        ..Line::default()
    };
    Ok(vec![
        line("start to ready, an empty folder", " ms", first),
        line("start to ready after a kill", " ms", again),
        line("memory at rest", " MiB", memory),
        line("binary", " MiB", size),
    ])
}
