//! The end of the demo: one merged record, and what it came to.

use std::path::Path;
use std::time::Duration;

use mobo_runtime::output::Table;
use serde_json::{Value, json};

use super::cluster::{Node, ask_for};
use super::collections::WORK_ORDERS;
use super::judge::Verdict;
use super::story::Story;

/// Records that are looked at for one that all three have written.
const TRIES: usize = 40;

/// A work order as it is after the merge: what each field holds, and who wrote it.
pub(super) fn merged_record(hub: &Node) -> anyhow::Result<String> {
    let mut best: Option<(usize, String, Value)> = None;
    for n in 0..TRIES {
        let id = format!("wo-{n:03}");
        let shown = ask_for(&hub.folder, "record show", json!({ "collection": WORK_ORDERS.name, "id": id }))?;
        let count = writers(&shown);
        if best.as_ref().is_none_or(|(most, ..)| count > *most) {
            best = Some((count, id, shown));
        }
        if count == 3 {
            break;
        }
    }
    let Some((_, id, shown)) = best else { return Ok(String::new()) };
    Ok(format!("work order {id}, merged (`mobo record show {} {id}`):\n{}", WORK_ORDERS.name, table(&shown)))
}

/// How many nodes have a field of a record.
fn writers(shown: &Value) -> usize {
    let fields = shown.get("fields").and_then(Value::as_object);
    let by = fields.into_iter().flat_map(|fields| fields.values()).filter_map(|field| field.get("by").and_then(Value::as_str));
    by.collect::<std::collections::BTreeSet<_>>().len()
}

fn table(shown: &Value) -> Table {
    let mut table = Table::new(&["field", "value", "written by", "at"]);
    let fields = shown.get("fields").and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let value = field.get("value").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
        let parts = field.get("from").and_then(Value::as_array).into_iter().flatten();
        let part = |part: &Value| {
            let word = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            format!("{} +{}", word("by"), word("added"))
        };
        let from = parts.map(part).collect::<Vec<_>>().join(", ");
        table.row([name.clone(), value, if from.is_empty() { text("by") } else { from }, text("at")]);
    }
    table
}

/// The verdict, for people.
pub(super) fn for_people(verdict: &Verdict, took: Duration) -> String {
    let Verdict { records, samples, unknown, lost, duplicated, conflicts, recomputed, compared, .. } = verdict;
    let mut table = Table::new(&["what", "is"]);
    let mut row = |what: &str, is: String| table.row([what.to_owned(), is]);
    row("converged", if verdict.converged() { "yes".to_owned() } else { "NO".to_owned() });
    row("acknowledged", format!("{}: {records} writes to records, {samples} samples", records + samples));
    row("without an answer", unknown.to_string());
    row("lost", lost.to_string());
    row("duplicated", duplicated.to_string());
    row("conflicts", format!("{conflicts} decisions, each on the hub's ledger with what lost"));
    row("compared", format!("{compared} rows, in 3 APIs and 3 databases"));
    row("recomputed", format!("{recomputed} digests and chains, from rows and entries"));
    row("took", format!("{:.1} s", took.as_secs_f64()));
    let problems = verdict.findings.iter().chain(&verdict.unhealthy);
    let problems: String = problems.map(|sentence| format!("  {sentence}\n")).collect();
    if problems.is_empty() { table.to_string() } else { format!("{table}\nWhat is wrong:\n{problems}") }
}

/// The verdict, for programs: one line.
pub(super) fn for_programs(verdict: &Verdict, took: Duration) -> Value {
    json!({
        "converged": verdict.converged(),
        "acknowledged": verdict.records + verdict.samples,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "conflicts": verdict.conflicts,
        "seconds": seconds(took),
    })
}

/// The same line for a demo that broke off before anybody could judge.
pub(super) fn unfinished(acknowledged: u64, took: Duration) -> Value {
    json!({
        "converged": false, "acknowledged": acknowledged, "lost": null, "duplicated": null, "conflicts": null, "seconds": seconds(took),
    })
}

fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 10.0).round() / 10.0
}

/// How to go on with nodes that were left running.
pub(super) fn how_to_play(story: &Story<'_>, home: &Path) -> anyhow::Result<String> {
    let mut text = format!("Everything is in {} and runs on:\n", home.display());
    for node in std::iter::once(&story.hub).chain(&story.devices) {
        text.push_str(&format!("  {:<9} http://{}/rest/v1/work_orders\n", node.name, node.address("http")?));
    }
    let mobo = std::env::current_exe().map_or_else(|_| "mobo".to_owned(), |path| path.display().to_string());
    let (hub, device) = (story.hub.folder.display(), story.devices[0].folder.display());
    text.push_str(&format!("  the key for the hub's API: {}\n\nTry\n", story.key));
    text.push_str(&format!("  curl -H 'apikey: {}' 'http://{}/rest/v1/notes?limit=1'\n", story.key, story.hub.address("http")?));
    text.push_str(&format!("  {mobo} edge patch work_orders wo-001 '{{\"hours\": {{\"$inc\": 1}}}}' --data-dir {device}\n"));
    text.push_str(&format!("  {mobo} record show work_orders wo-001 --data-dir {hub}\n  {mobo} conflict list --data-dir {hub}\n\n"));
    text.push_str("Stop them with\n");
    for device in &story.devices {
        text.push_str(&format!("  {mobo} edge shutdown --data-dir {}\n", device.folder.display()));
    }
    text.push_str(&format!("  {mobo} shutdown --data-dir {hub}\n"));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_one_line() {
        let verdict = Verdict { records: 2_000, samples: 10, lost: 1, duplicated: 2, conflicts: 3, ..Verdict::default() };
        let line = for_programs(&verdict, Duration::from_millis(12_345)).to_string();
        assert_eq!(line, r#"{"converged":true,"acknowledged":2010,"lost":1,"duplicated":2,"conflicts":3,"seconds":12.3}"#);
        let apart = Verdict { differing: 1, ..Verdict::default() };
        assert_eq!(for_programs(&apart, Duration::ZERO)["converged"], json!(false));
        let ill = Verdict { unhealthy: vec!["bucket all".to_owned()], ..Verdict::default() };
        assert!(!ill.converged() && for_people(&ill, Duration::ZERO).contains("What is wrong:\n  bucket all"));
    }

    #[test]
    fn a_record_shows_who_wrote_what() {
        let shown = json!({ "fields": {
            "title": { "value": "a", "by": "device-2", "at": "t" },
            "hours": { "value": 5, "from": [{ "by": "hub", "added": "2" }, { "by": "device-1", "added": "3" }] },
            "site": { "value": null },
        }});
        assert_eq!(writers(&shown), 1);
        let text = table(&shown).to_string();
        for part in ["device-2", "hub +2, device-1 +3", "site   null"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
