//! `restore --project|--collection|--device`: a part of a backup, written into the hub that runs.

use std::process::ExitCode;

use indicatif::ProgressBar;
use mobo_core::backup::manifest::Anchor;
use mobo_core::limits;
use mobo_core::rfc3339;
use mobo_core::schema::Collection;
use mobo_runtime::command::{self, block_on};
use mobo_runtime::control::ControlClient;
use mobo_runtime::output::Failure;
use serde_json::{Value, json};

use super::Common;
use super::backup::{bar, failed, place, repository, told};
use super::restore::RestoreArgs;
use super::scratch::Scratch;
use super::store::say;
use crate::backup::{Part, Point, Step, Wanted};

pub(super) fn restore(common: &Common, args: &RestoreArgs, point: (Point, &[Anchor])) -> Result<ExitCode, Failure> {
    if args.force || args.store.is_some() {
        return Err(Failure::usage("a part is written into the hub that runs", "leave --store and --force out, and boot the hub first"));
    }
    let wanted = Wanted { project: args.project.clone(), collections: args.collections.clone(), device: args.device.clone() };
    let scratch = Scratch::new("part")?;
    let bar = bar(common.output);
    let done = block_on(async {
        // Asked first: without a hub, nothing needs to be fetched.
        let mut hub = ControlClient::connect(&common.data_dir).await?;
        let (address, key) = place(common, &args.vault)?;
        let repository = repository(&address, &key).await?;
        let part = Part::open(&repository, point, &wanted, &scratch.path().join("unpacked"), |step| tell(&step, &bar)).await;
        let mut part = part.map_err(|error| failed(&error))?;
        let done = write(&mut hub, &mut part, args.dry_run).await;
        part.close().await;
        done
    });
    bar.finish_and_clear();
    drop(scratch);
    if !args.dry_run {
        let detail = done.as_ref().map_or_else(|failure| failure.message.clone(), |done| said(done));
        told(common, "restore", (done.is_ok(), detail.as_str()));
    }
    command::show(common.output, &Value::Array(done?))?;
    if args.dry_run {
        say("nothing was written: leave --dry-run out to do it");
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(step: &Step, bar: &ProgressBar) {
    match step {
        Step::Begins(both) => {
            let (point, newest) = both.as_ref();
            let of = rfc3339::format(point.taken_us);
            say(&format!("out of the backup {} of {of} (the newest is {}):", point.number, newest.number));
            say("each record becomes what it was, by a write of now; what is newer than the backup and not in it stays");
        }
        Step::Applied(done, total) => {
            bar.set_message(format!("{done} of {total} objects"));
            bar.tick();
        }
        Step::Auditing | Step::Placing => bar.set_message("recomputing digests and chains"),
    }
}

/// What became of the records, in a sentence.
fn said(done: &[Value]) -> String {
    let sum = |name: &str| done.iter().filter_map(|of| of.get(name)?.as_u64()).sum::<u64>();
    format!("of {} collections, {} records came back and {} were changed", done.len(), sum("back"), sum("changed"))
}

async fn write(hub: &mut ControlClient, part: &mut Part, dry_run: bool) -> Result<Vec<Value>, Failure> {
    let mut done = Vec::new();
    while let Some(collection) = part.collection() {
        let is_there = is_there(hub, &collection.name).await?;
        if !is_there && !dry_run {
            hub.call("collection create", definition(&collection)).await?;
        }
        let mut sums = [0_u64; 3];
        while let Some(rows) = part.next().await.map_err(|error| failed(&error))? {
            for rows in pages(rows) {
                if !is_there && dry_run {
                    sums[0] += rows.len() as u64;
                    continue;
                }
                let answer = hub.call("record restore", json!({ "collection": collection.name, "rows": rows, "dry_run": dry_run })).await?;
                for (sum, name) in sums.iter_mut().zip(["back", "changed", "same"]) {
                    *sum += answer.get(name).and_then(Value::as_u64).unwrap_or(0);
                }
            }
        }
        let [back, changed, same] = sums;
        done.push(json!({ "collection": collection.name, "made": !is_there, "back": back, "changed": changed, "same": same }));
    }
    Ok(done)
}

async fn is_there(hub: &mut ControlClient, name: &str) -> Result<bool, Failure> {
    let known = hub.call("collection list", json!({})).await?;
    Ok(known.as_array().into_iter().flatten().any(|collection| collection.get("name").and_then(Value::as_str) == Some(name)))
}

/// How a collection is made as it was. A hub that has none of the name gives it ids of its own.
fn definition(collection: &Collection) -> Value {
    let fields = collection.fields.iter().filter(|field| !field.retired);
    let fields: Vec<String> = fields.map(|field| format!("{}:{}", field.name, field.kind.name())).collect();
    let kind = collection.kind.name();
    json!({ "name": collection.name, "kind": kind, "fields": fields, "buckets": collection.rules })
}

/// Rows in lots that fit one request.
fn pages(rows: Vec<Value>) -> Vec<Vec<Value>> {
    let (mut pages, mut bytes) = (Vec::<Vec<Value>>::new(), usize::MAX);
    for row in rows {
        let size = row.to_string().len();
        match pages.last_mut().filter(|_| bytes.saturating_add(size) <= limits::CONTROL_PAGE_BYTES_MAX) {
            Some(page) => {
                bytes += size;
                page.push(row);
            }
            None => {
                bytes = size;
                pages.push(vec![row]);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_small_and_keep_the_order() {
        let row = |n: usize, bytes: usize| json!({ "id": n.to_string(), "fields": { "title": "x".repeat(bytes) } });
        let rows = vec![row(0, 10), row(1, 200_000), row(2, 70_000), row(3, 50_000), row(4, 50_000)];
        let lots: Vec<usize> = pages(rows.clone()).iter().map(Vec::len).collect();
        assert_eq!((lots, pages(rows.clone()).concat()), (vec![1, 1, 2, 1], rows));
        assert_eq!(pages(Vec::new()), Vec::<Vec<Value>>::new());
    }
}
