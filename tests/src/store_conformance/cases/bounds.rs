//! What policies let an author write is decided where nobody else's write can come in between.

use mobo_core::author::{EditError, Intent};
use mobo_core::merge::{Outcome, Prepared};
use mobo_core::query::{self, Filter, Op};
use mobo_core::rights::{Bounds, Granted};
use mobo_core::value::Value;
use serde_json::json;
use std::sync::Arc;

use super::super::{Place, World};

/// The write, by somebody who may do everything to rows with that title and nothing to others.
fn by_who_has(world: &World, title: &str, write: Prepared) -> Prepared {
    let Prepared::Local(mut write) = write else { panic!("a write of the hub's own") };
    let column = query::columns(world.collection("work_orders")).into_iter().find(|column| column.name == "title").unwrap();
    let granted = Some(Arc::new(Granted { rows: Filter::is(column, Op::Eq(Value::Text(title.to_owned()))), fields: None }));
    write.bounds = Some(Arc::new(Bounds { create: granted.clone(), update: granted.clone(), delete: granted }));
    Prepared::Local(write)
}

/// An author is held to the row that his write finds, not to the one that was there when he was let in; the whole write is refused.
pub async fn hold_where_the_row_is_locked(place: Box<dyn Place>) {
    let world = World::new(place, 23).await;
    let local = |intent, id: &str, fields| world.local("work_orders", intent, id, &fields);
    let hers = |write| by_who_has(&world, "hers", write);
    world.merged(hers(local(Intent::Insert, "w", json!({"title": "hers", "n": 1})))).await;
    let stolen = world.outcome(hers(local(Intent::Insert, "x", json!({"title": "his"})))).await;
    assert!(matches!(stolen, Outcome::Refused(EditError::Denied(_))), "{stolen:?}");
    // Both are on their way at the same time, and one batch takes them: when the second was sent, the row was still hers.
    let given = local(Intent::Patch, "w", json!({"title": "his"}));
    let late = hers(local(Intent::Patch, "w", json!({"n": 2})));
    let gone = hers(local(Intent::Delete, "w", json!({})));
    let report = world.merge(vec![given, late, gone]).await;
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(EditError::Denied(_)));
    assert!(!refused(&report.outcomes[0]) && report.outcomes[1..].iter().all(refused), "{:?}", report.outcomes);
    assert_eq!((&world.rows("work_orders").await[0]["title"], &world.rows("work_orders").await[0]["n"]), (&json!("his"), &json!(1)));
    // What nobody holds to anything goes on.
    world.merged(local(Intent::Patch, "w", json!({"n": 3}))).await;
    world.is_sound().await;
}
