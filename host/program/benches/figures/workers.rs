//! A backfill by one and by two workers, and what bounds the second.

use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::Outcome;
use super::backfill::{check, prepare};
use super::place::{Database, Place, fill_b, host};
use super::report::FiguresReport;
use super::work::{awake, run};

const TARGET: Duration = Duration::from_millis(100);

/// Two workers, beside one that was measured in the same way, and beside two bare loops at once.
pub(super) async fn measure(report: &mut FiguresReport, place: &Place, rows: i64) -> Outcome<()> {
    if matches!(place, Place::Sqlite { .. }) {
        return Ok(());
    }
    let database = place.fresh().await?;
    let one = rate(&database, rows, 1).await?;
    let two = rate(&database, rows, 2).await?;
    let bare_one = bare(&database, rows, 1).await?;
    let bare_two = bare(&database, rows, 2).await?;
    let mut section = report.section("workers", "rows/s", place.name());
    let baseline = section.baseline("tidegate, one worker", one);
    section.add("tidegate, two workers", two, &baseline);
    let baseline = section.baseline("UPDATE of all at once", bare_one);
    section.add("two UPDATEs of half at once each", bare_two, &baseline);
    Ok(())
}

async fn rate(database: &Database, rows: i64, workers: usize) -> Outcome<f64> {
    prepare(database, rows).await?;
    let spec = database.spec(awake(TARGET)).update("bench", fill_b().with_workers(workers));
    let (_, took) = run(host(spec).build()?).await?;
    check(database).await?;
    Ok(rows as f64 / took.as_secs_f64())
}

/// As many statements at once, each of its part of the rows: what the server can do.
async fn bare(database: &Database, rows: i64, parts: i64) -> Outcome<f64> {
    prepare(database, rows).await?;
    let mut statements = Vec::new();
    for part in 0..parts {
        let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await?;
        tokio::spawn(connection);
        let (after, upto) = (rows * part / parts, rows * (part + 1) / parts);
        statements.push(async move {
            client.execute("UPDATE items SET b = upper(a) WHERE id > $1 AND id <= $2", &[&after, &upto]).await
        });
    }
    let began = Instant::now();
    let running: Vec<_> = statements.into_iter().map(tokio::spawn).collect();
    for each in running {
        each.await??;
    }
    let took = began.elapsed();
    check(database).await?;
    Ok(rows as f64 / took.as_secs_f64())
}
