//! A collection whose definition changes while devices with three versions of it write.

use mobo_core::author::Intent;
use mobo_core::ids::FieldId;
use mobo_core::schema::{Field, FieldChanges, FieldType, Kind};
use serde_json::json;

use crate::world::{Device, World, collection, edit};

fn field(id: u64, name: &str, kind: FieldType) -> Field {
    Field { id: FieldId::new(id).unwrap(), name: name.to_owned(), kind, retired: false, references: None }
}

fn pair(before: &str, after: &str) -> (String, String) {
    (before.to_owned(), after.to_owned())
}

/// The rows of the hub, byte by byte, and where they stand in their buckets.
fn bytes(world: &World) -> Vec<String> {
    let hub = rusqlite::Connection::open(world.folder.path().join("hub.db")).unwrap();
    let mut statement =
        hub.prepare("SELECT id || ' ' || mobo_ver || ' ' || _position || ' ' || hex(_mobo) FROM gauges ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

async fn all(world: &World, devices: &[&Device]) {
    for _ in 0..2 {
        for device in devices {
            device.sync(world).await;
        }
    }
}

/// Version 1 of `gauges` has label, level and hits; 2 calls the label a title and adds a unit; 3 measures the level in floats.
#[tokio::test]
async fn devices_with_three_versions_of_a_collection_write_it() {
    let mut world = World::new().await;
    world.create(collection(6, "gauges", Kind::Table, "label:text level:int hits:counter", &[])).await;
    world.write("gauges", vec![edit(Intent::Put, "h", json!({"label": "first", "level": 7, "hits": 1}))]).await;
    let (old, before) = (world.device("old", &["all"]).await, bytes(&world));
    let second =
        FieldChanges { rename: vec![pair("label", "title")], add: vec![field(650, "unit", FieldType::Text)], ..FieldChanges::default() };
    world.alter("gauges", &second).await;
    let middle = world.device("middle", &["all"]).await;
    let (rename, retire) = (vec![pair("level", "level_int")], vec!["level_int".to_owned()]);
    world.alter("gauges", &FieldChanges { rename, retire, add: vec![field(651, "level", FieldType::Float)] }).await;
    let new = world.device("new", &["all"]).await;
    assert_eq!(bytes(&world), before, "another definition rewrites no row");

    let writes = [
        (&old, "INSERT INTO gauges(id, label, level, hits) VALUES ('p', 'old', 1, 1), ('o', 'old', 1, 1)"),
        (&middle, "INSERT INTO gauges(id, title, level, unit, hits) VALUES ('p', 'middle', 2, 'bar', 2), ('m', 'middle', 2, 'bar', 2)"),
        (&new, "INSERT INTO gauges(id, title, level, unit, hits) VALUES ('p', 'new', 3.5, 'psi', 4), ('n', 'new', 3.5, 'psi', 4)"),
    ];
    for (device, sql) in writes {
        device.raw().execute_batch(sql).unwrap();
    }
    all(&world, &[&old, &middle, &new]).await;
    let at_hub = |id: &str, rows: &[serde_json::Value]| rows.iter().find(|row| row["id"] == id).unwrap().clone();
    let rows = world.rows("gauges").await;
    assert_eq!(at_hub("p", &rows)["hits"], 7, "increments of all three");
    assert_eq!(at_hub("o", &rows), json!({"id": "o", "title": "old", "hits": 1, "unit": null, "level": null}));
    assert_eq!(at_hub("m", &rows), json!({"id": "m", "title": "middle", "hits": 2, "unit": "bar", "level": null}));

    // Whoever does not know a field changes the rest of the row, and the field comes back bit for bit.
    old.raw().execute_batch("UPDATE gauges SET label = 'by old', level = 9 WHERE id IN ('m', 'n')").unwrap();
    middle.raw().execute_batch("UPDATE gauges SET unit = 'kPa' WHERE id IN ('n', 'o', 'h')").unwrap();
    all(&world, &[&old, &middle, &new]).await;
    let rows = world.rows("gauges").await;
    assert_eq!(at_hub("n", &rows), json!({"id": "n", "title": "by old", "hits": 4, "unit": "kPa", "level": 3.5}));
    assert_eq!(at_hub("m", &rows), json!({"id": "m", "title": "by old", "hits": 2, "unit": "bar", "level": null}));
    assert_eq!(at_hub("h", &rows), json!({"id": "h", "title": "first", "hits": 1, "unit": "kPa", "level": null}));

    // A retired field keeps what was written there, also by those who learn of its end.
    let level = "SELECT level FROM gauges WHERE id = 'n'";
    assert_eq!((old.count(level), middle.count(level)), (9, 9));
    for device in [&old, &middle] {
        device.store.put_schema(world.definitions()).await.unwrap();
        assert_eq!(device.rows(&world, "gauges").await, rows, "what was kept is shown");
        assert_eq!(device.count("SELECT level_int FROM gauges WHERE id = 'n'"), 9);
        device.is_sound().await;
    }
    old.raw().execute_batch("UPDATE gauges SET level = 0.25 WHERE id = 'o'").unwrap();
    all(&world, &[&old, &middle, &new]).await;
    assert_eq!(new.rows(&world, "gauges").await, world.rows("gauges").await);
}
