//! What came of the run: a table from the history that tidegate keeps, and checks by SQL that knows nothing of it.

use comfy_table::{CellAlignment, Table, presets};
use tidegate::scheduler::database::Record;

use super::Outcome;
use super::store::Store;

/// Prints a line for each update.
pub(super) async fn print(store: &Store) -> Outcome<()> {
    let rows = store.query("SELECT record FROM tidegate_history ORDER BY id").await?;
    let records: Vec<Record> = rows.iter().map(|row| serde_json::from_str(&row[0])).collect::<Result<_, _>>()?;
    let mut names: Vec<&str> = Vec::new();
    for record in &records {
        if !names.contains(&record.update_name.as_str()) {
            names.push(&record.update_name);
        }
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["update", "items", "batches", "time", "items/s", "mean batch", "target", "fuel/iteration"]);
    for name in names {
        let of_update: Vec<&Record> = records.iter().filter(|record| record.update_name == name).collect();
        table.add_row(line(name, &of_update));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n");
    Ok(())
}

fn line(name: &str, records: &[&Record]) -> [String; 8] {
    let items: u64 = records.iter().map(|record| record.items).sum();
    let ran: f64 = records.iter().map(|record| record.duration_ms).sum();
    let waited: f64 = records.iter().map(|record| record.waited_ms).sum();
    let seconds = (ran + waited) / 1000.0;
    let one_shot = records.iter().any(|record| record.one_shot);
    let targets = records.iter().filter_map(|record| record.target_ms).map(|target| target as f64);
    let fuel = records.iter().filter_map(|record| record.fuel).map(|fuel| fuel as f64);
    [
        name.to_owned(),
        items.to_string(),
        records.len().to_string(),
        format!("{seconds:.1} s"),
        if one_shot { "-".to_owned() } else { format!("{:.0}", items as f64 / seconds) },
        format!("{:.0} ms", ran / records.len() as f64),
        if one_shot { "one-shot".to_owned() } else { mean(targets).map_or("-".to_owned(), |ms| format!("{ms:.0} ms")) },
        mean(fuel).map_or("-".to_owned(), |fuel| format!("{fuel:.0}")),
    ]
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0.0), |(sum, count), number| (sum + number, count + 1.0));
    (count > 0.0).then_some(sum / count)
}

/// Counts by SQL what should not be, tells it, and returns how many checks failed.
pub(super) async fn check(store: &Store, rows: u64) -> Outcome<usize> {
    let left = (rows - super::store::redacted(rows)).to_string();
    let checks = [
        ("rows whose search_body is missing or wrong", WRONG_SEARCH_BODY, "0"),
        ("rows not touched exactly once", "SELECT count(*) FROM messages WHERE touched <> 1", "0"),
        ("redacted messages", "SELECT count(*) FROM messages WHERE body = ''", "0"),
        ("messages in all", "SELECT count(*) FROM messages", left.as_str()),
        ("valid indexes on search_body", store.index_query(), "1"),
        ("updates in the queue", "SELECT count(*) FROM background_updates", "0"),
    ];
    let mut wrong = 0;
    for (what, sql, wanted) in checks {
        let rows = store.query(sql).await?;
        let found = rows.first().and_then(|row| row.first()).map_or("nothing", String::as_str);
        if found == wanted {
            println!("  ok     {what}: {found}");
        } else {
            println!("  WRONG  {what}: {found}, not {wanted}");
            wrong += 1;
        }
    }
    Ok(wrong)
}

const WRONG_SEARCH_BODY: &str = "SELECT count(*) FROM messages WHERE search_body IS NULL OR search_body <> lower(body)";
