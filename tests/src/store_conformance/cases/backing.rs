//! What a store knows of its backups, and how far it is.

use mobo_core::author::Intent;
use mobo_core::backup::RepositoryId;
use mobo_core::backup::change::{Body, Change, Deed, decode};
use mobo_core::backup::manifest::Anchor;
use mobo_core::ids::FieldId;
use mobo_core::limits;
use mobo_core::schema::{Field, FieldChanges, FieldType, altered};
use mobo_core::store::transfer::{Row, Table, TableName};
use mobo_core::store::{BackupRow, Cut, Filter};
use serde_json::json;

use crate::store_conformance::{Device, Place, World, samples};

/// A manifest is noted once it was tried, and not behind one that is newer; those before it are forgotten.
pub async fn notes_what_was_tried(place: Box<dyn Place>) {
    let world = World::new(place, 90).await;
    let store = &world.store;
    let anchor = |number: u64| Anchor { number, hash: [u8::try_from(number).unwrap(); 32] };
    let [one, other] = [1, 2].map(|byte| RepositoryId([byte; 16]));
    let note = async |repository: RepositoryId, number: u64| {
        let (place, anchor) = ("somewhere".to_owned(), anchor(number));
        let row = BackupRow { repository, place, anchor, taken_us: 1, base: 1, heads: Vec::new() };
        store.note_backup(world.project, row, Vec::new()).await.unwrap()
    };
    let noted = async || store.backup().await.unwrap().map(|row| (row.repository, row.anchor.number));
    assert!(!note(one, 5).await, "nobody was about to write it");
    assert_eq!(noted().await, None);
    for number in [5, 6, 7, 8] {
        store.try_backup(one, anchor(number)).await.unwrap();
    }
    assert!(!note(other, 6).await, "it is of another repository");
    assert!(note(one, 6).await);
    assert!(!note(one, 5).await && !note(one, 6).await, "a newer one was noted since");
    assert_eq!(noted().await, Some((one, 6)));
    assert!(note(one, 8).await && !note(one, 7).await);
    assert_eq!(noted().await, Some((one, 8)));
    // By somebody's word, an older one may follow.
    store.try_backup(one, anchor(3)).await.unwrap();
    assert!(note(one, 3).await);
    assert_eq!(noted().await, Some((one, 3)));
    for number in 0..=u64::try_from(limits::BACKUP_TRIED_MAX).unwrap() {
        store.try_backup(other, anchor(number)).await.unwrap();
    }
    assert!(!note(other, 0).await, "only the last ones are kept");
    assert_eq!(world.sql("SELECT count(*) FROM {own}backup_tried").await, limits::BACKUP_TRIED_MAX.to_string());
    assert!(note(other, 1).await);
    assert!(store.turn(std::time::Duration::ZERO).await.unwrap().is_some());
}

/// The positions of all buckets together are known without any of them being told.
pub async fn knows_how_far_it_is(place: Box<dyn Place>) {
    let world = World::new(place, 91).await;
    let mut before = 0;
    for n in 0..5 {
        for (collection, fields) in [("work_orders", json!({ "title": "t" })), ("pumps", json!({ "site": format!("s{n}") }))] {
            world.outcome(world.local(collection, Intent::Put, &format!("id-{n}"), &fields)).await;
        }
        let heads = world.store.heads(world.project).await.unwrap();
        let sum: u64 = heads.iter().map(|(_, head)| head.0).sum();
        assert_eq!(world.store.positions(world.project).await.unwrap(), sum);
        assert!(sum > before, "{sum} after {before}");
        before = sum;
    }
}

/// Rows that are only carried are the rows that there are, in their order, of every table, in more than one page; and a cut knows the tables as
/// they are now, whatever the one before it has found.
pub async fn gives_packed_rows_like_any_others(place: Box<dyn Place>) {
    let world = World::new(place, 92).await;
    let mut device = Device::enrolled(&world, "a", &["all", "site:a"]).await;
    device.write(&world, "notes", Intent::Merge, ("note", json!({ "title": "ä", "likes": {"$inc": 1} })));
    device.append(&world, &samples(&world, &[0.5, 1e300]));
    for lane in device.lanes.keys().copied().collect::<Vec<_>>() {
        world.outcome(device.push_from(&world, lane, 1)).await;
    }
    for n in 0..230 {
        let (site, fields) = (format!("s{}", n % 2), ["x".repeat(n), "\\'\"".to_owned()]);
        world.outcome(world.local("pumps", Intent::Put, &format!("p-{n}"), &json!({ "site": site, "speed": n }))).await;
        let order = json!({ "title": fields.concat(), "ratio": 0.5, "due": "2026-02-03T04:05:06Z", "meta": {"b": [1]} });
        world.outcome(world.local("work_orders", Intent::Put, &format!("o-{n}"), &order)).await;
    }
    let before = alike(&world).await;
    let pumps = world.collection("pumps").clone();
    let field = Field { id: FieldId::new(991).unwrap(), name: "maker".to_owned(), kind: FieldType::Text, retired: false, references: None };
    let next = altered(&pumps, &FieldChanges { add: vec![field], ..FieldChanges::default() }).unwrap();
    world.store.alter_fields(world.project, next).await.unwrap();
    let after = alike(&world).await;
    let name = TableName::Collection("pumps".to_owned());
    let columns = |tables: &[Table]| tables.iter().find(|table| table.name == name).unwrap().columns.clone();
    assert!(!columns(&before).contains(&"maker".to_owned()) && columns(&after).contains(&"maker".to_owned()));
}

/// Reads every table of a cut in each way; gives the tables.
async fn alike(world: &World) -> Vec<Table> {
    let mut cut = world.store.cut().await.unwrap();
    let tables: Vec<Table> = cut.tables().await.unwrap().into_iter().map(|found| found.table).collect();
    for table in &tables {
        let above = table.columns.iter().find(|column| ["seq", "_position"].contains(&column.as_str()));
        let filters = [Filter::default(), Filter { above: above.map(|column| (column.clone(), 3)), limit: Some(215), ..Filter::default() }];
        for filter in filters {
            cut.open(table.clone(), filter.clone()).await.unwrap();
            let mut rows: Vec<Row> = Vec::new();
            loop {
                let page = cut.next().await.unwrap();
                if page.is_empty() {
                    break;
                }
                rows.extend(page);
            }
            assert_eq!(packed(cut.as_mut(), (table, vec![filter.clone()])).await, rows, "{}", table.name);
            let twice = packed(cut.as_mut(), (table, vec![filter.clone(), filter.clone()])).await;
            assert_eq!(twice, [rows.clone(), rows.clone()].concat(), "{}: one filter behind the other", table.name);
            let small = cut.read_small(vec![(table.clone(), filter.clone()), (table.clone(), filter.clone())]).await.unwrap();
            let fits = |times: usize| times * rows.len() < limits::MOVE_ROWS_MAX;
            assert_eq!(small.len(), usize::from(fits(1)) + usize::from(fits(2)), "{}: {} rows", table.name, rows.len());
            assert!(small.iter().all(|small| *small == rows), "{}", table.name);
        }
    }
    cut.end().await.unwrap();
    tables
}

async fn packed(cut: &mut dyn Cut, (table, filters): (&Table, Vec<Filter>)) -> Vec<Row> {
    cut.pack(table.clone(), filters).await.unwrap();
    let mut body = Body::default();
    loop {
        let page = cut.next_packed().await.unwrap();
        if page.is_empty() {
            break;
        }
        body.add_packed(Deed::Put, (&table.name, &table.columns), page);
    }
    let mut bytes = Vec::new();
    let count = body.encode(&mut bytes);
    let rows: Vec<Row> = decode(&bytes).unwrap().into_iter().flat_map(|Change { rows, .. }| rows).collect();
    assert_eq!(rows.len() as u64, count);
    rows
}
