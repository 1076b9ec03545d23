//! Which changes are next, and how they are spelled.

use mobo_core::limits;
use mobo_core::live::{LiveChange, LiveKind, LivePage, LivePoint};
use mobo_core::rfc3339;
use mobo_core::schema::Schema;
use serde_json::{Value as Json, json};

/// One event for the external server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// The number of its change.
    pub(super) n: u64,
    /// As the server takes it.
    pub(super) body: Json,
}

/// Where publishing goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waiting {
    /// With this page.
    Next,
    /// Later: so many changes before that are gone. Of another log, nobody knows how many.
    Lost {
        /// There.
        from: LivePoint,
        /// As far as they can be counted; changes of other collections are among them.
        lost: u64,
    },
}

/// Whether a page goes on from a place.
pub(super) fn waiting(at: LivePoint, page: &LivePage) -> Waiting {
    let head = &page.head;
    if head.log != at.log || head.head < at.n {
        // The store has gone back in time.
        return Waiting::Lost { from: head.point(), lost: 1 };
    }
    // As long as the log holds them they wait: most of what comes between may be of collections that nobody publishes.
    if at.n >= head.floor {
        return Waiting::Next;
    }
    Waiting::Lost { from: LivePoint { log: at.log, n: head.floor }, lost: head.floor - at.n }
}

/// The changes of the collections of these names.
pub(super) fn events_of(page: &LivePage, schema: &Schema, names: &[String]) -> Vec<Event> {
    let event = |change: &LiveChange| {
        let name = &schema.get(change.collection)?.name;
        names.contains(name).then(|| event(name, page.head.log, change))
    };
    page.changes.iter().filter_map(event).collect()
}

fn event(collection: &str, log: u64, change: &LiveChange) -> Event {
    let id = change.after.as_ref().or(change.before.as_ref()).and_then(|row| row.get("id"));
    let old = change.before.as_ref().filter(|_| change.kind() == LiveKind::Delete);
    let head = json!({
        "collection": collection, "id": id, "at": rfc3339::format(change.at.0), "position": LivePoint { log, n: change.n }.to_string(),
    });
    let with = |members: Json| {
        let mut data = head.clone();
        if let (Some(data), Json::Object(members)) = (data.as_object_mut(), members) {
            data.extend(members);
        }
        data.to_string()
    };
    let mut data = with(json!({ "record": change.after, "old_record": old }));
    if data.len() > limits::PUBLISH_EVENT_BYTES_MAX {
        data = with(json!({ "too_large": true }));
    }
    Event { n: change.n, body: json!({ "channel": format!("private-{collection}"), "name": change.kind().name(), "data": data }) }
}

#[cfg(test)]
mod tests {
    use mobo_core::ids::CollectionId;
    use mobo_core::live::{LiveHead, LiveRow};
    use mobo_core::time::Eff;

    use super::*;

    #[test]
    fn what_cannot_be_published_any_more_is_counted() {
        let page = |log, floor, head| LivePage { head: LiveHead { log, floor, head, follows: Vec::new() }, ..LivePage::default() };
        let at = |n| LivePoint { log: 7, n };
        let many = limits::LIVE_ROWS_MAX;
        for (place, page, want) in [
            (at(5), page(7, 0, 5), Waiting::Next),
            (at(5), page(7, 5, 900), Waiting::Next),
            (at(5), page(7, 9, 900), Waiting::Lost { from: at(9), lost: 4 }),
            // What broke: as many changes of other collections made it give up the few of its own that the log had.
            (at(5), page(7, 0, many + 8), Waiting::Next),
            (at(5), page(7, 8, many + 8), Waiting::Lost { from: at(8), lost: 3 }),
            (at(5), page(7, 0, 4), Waiting::Lost { from: at(4), lost: 1 }),
            (at(5), page(8, 0, 9), Waiting::Lost { from: LivePoint { log: 8, n: 9 }, lost: 1 }),
        ] {
            assert_eq!(waiting(place, &page), want, "{place} {page:?}");
        }
    }

    #[test]
    fn a_change_is_spelled_with_its_row_unless_that_is_too_large() {
        let row = |text: &str| Some(LiveRow::from_iter([("id".to_owned(), json!("a")), ("title".to_owned(), json!(text))]));
        let large = "x".repeat(limits::PUBLISH_EVENT_BYTES_MAX);
        for (before, after, want) in [
            (None, row("new"), ("insert", json!({ "record": row("new"), "old_record": null }))),
            (row("old"), row("new"), ("update", json!({ "record": row("new"), "old_record": null }))),
            (row("old"), None, ("delete", json!({ "record": null, "old_record": row("old") }))),
            (None, row(&large), ("insert", json!({ "too_large": true }))),
        ] {
            let change = LiveChange { n: 3, at: Eff(0), collection: CollectionId::new(1).unwrap(), before, after, bytes: 0 };
            let told = event("orders", 0xa, &change);
            let data: Json = serde_json::from_str(told.body["data"].as_str().unwrap()).unwrap();
            let mut wanted = json!({ "collection": "orders", "id": "a", "at": rfc3339::format(0), "position": "a-3" });
            wanted.as_object_mut().unwrap().extend(want.1.as_object().unwrap().clone());
            assert_eq!((&told.body["channel"], &told.body["name"], data), (&json!("private-orders"), &json!(want.0), wanted));
        }
    }
}
