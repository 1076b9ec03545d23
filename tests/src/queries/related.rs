//! Related collections in generated queries: parts of work orders, which name one or two of them, or none that is there.

use std::sync::Arc;

use mobo_core::author::Intent;
use mobo_core::ids::{CollectionId, FieldId};
use mobo_core::query::{Embedded, Filter, Presence, Related, Relations, related};
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};
use serde_json::{Map, Value as Json, json};

use super::{TEXTS, lets_through, maybe};
use crate::seed::Rng;
use crate::store_conformance::World;

/// Makes the collection of parts.
///
/// # Panics
///
/// When the world has it.
pub(super) async fn create(world: &mut World) {
    let orders = world.collection("work_orders").clone();
    let field = |(n, name, kind, references): (u64, &str, FieldType, Option<CollectionId>)| Field {
        id: FieldId::new(900 + n).unwrap_or_else(|| panic!("not 0")),
        name: name.to_owned(),
        kind,
        retired: false,
        references,
    };
    let fields = [
        (1, "order", FieldType::Text, Some(orders.id)),
        (2, "spare", FieldType::Text, Some(orders.id)),
        (3, "label", FieldType::Text, None),
        (4, "n", FieldType::Int, None),
        (5, "due", FieldType::Timestamp, None),
    ];
    let id = CollectionId::new(9).unwrap_or_else(|| panic!("not 0"));
    let (name, fields) = ("parts".to_owned(), fields.map(field).to_vec());
    world.create(Collection { id, name, kind: Kind::Table, rev: 1, fields, ..orders }).await;
}

/// What both stores hold of it.
pub(super) async fn fill(world: &World, rng: &mut Rng) {
    for n in 0..40 {
        // Some name orders that are not there.
        let fields = json!({
            "order": maybe(rng, |rng| json!(format!("r{:02}", rng.below(70)))),
            "spare": maybe(rng, |rng| json!(format!("r{:02}", rng.below(20)))),
            "label": maybe(rng, |rng| json!(rng.pick(&TEXTS))),
            "n": maybe(rng, |rng| json!(rng.below(4))),
            "due": maybe(rng, |rng| json!(["1969-12-31T23:59:59.5Z", "9999-12-31T23:59:59.999999Z"][usize::from(rng.chance(50))])),
        });
        world.merged(world.local("parts", Intent::Insert, &format!("p{n:02}"), &fields)).await;
    }
}

/// Whoever asks sees everything.
#[derive(Debug)]
pub(super) struct All(pub(super) Arc<Schema>);

impl Relations for All {
    fn from(&self, near: &Collection, name: &str) -> Vec<Related> {
        related(&self.0, near, name)
    }
}

/// Parameters that embed, with some that speak of what they embed.
pub(super) fn parameters(rng: &mut Rng, name: &str) -> Vec<(String, String)> {
    const OF_PARTS: [(&str, &str); 7] = [
        ("order(*)", "order"),
        ("order!inner(id,title)", "order"),
        ("o:work_orders!spare(id,n,j:meta->a,photo,due,ratio,done,hours,t:title::text)", "o"),
        ("...spare(spare_title:title,x:ratio)", "spare"),
        ("order(id,parts!order(id,n,order(title)))", "order"),
        ("order!inner()", "order"),
        ("order(id),s:spare!inner(title,meta)", "s"),
    ];
    const OF_ORDERS: [(&str, &str); 6] = [
        ("parts!order(*)", "parts"),
        ("p:parts!spare!inner(id,label)", "p"),
        ("parts!order(label,order(id,title),spare(ratio,meta))", "parts"),
        ("parts!spare!inner()", "parts"),
        ("a:parts!order(id),b:parts!spare(n,due)", "b"),
        ("parts!order(id,...spare(title))", "parts"),
    ];
    let to_one = name == "parts";
    let (list, alias) = if to_one { *rng.pick(&OF_PARTS) } else { *rng.pick(&OF_ORDERS) };
    let mut parameters = vec![("select".to_owned(), format!("id,{list}"))];
    for _ in 0..rng.below(3) {
        let filters: &[(&str, &str)] = if to_one {
            &[
                ("title", "like.a*"),
                ("n", "gt.0"),
                ("done", "is.true"),
                ("meta->a", "not.is.null"),
                ("ratio", "lt.5"),
                ("or", "(n.eq.1,hours.gt.0)"),
            ]
        } else {
            &[("label", "in.(a,\"x,y\")"), ("n", "gte.2"), ("due", "lt.1970-01-01T00:00:00Z"), ("not.and", "(n.is.null,label.eq.a)")]
        };
        let (operand, comparison) = *rng.pick(filters);
        parameters.push((format!("{alias}.{operand}"), comparison.to_owned()));
    }
    if rng.chance(20) {
        parameters.push((alias.to_owned(), (*rng.pick(&["is.null", "not.is.null"])).to_owned()));
    }
    if to_one && rng.chance(40) {
        let term = *rng.pick(&["title", "ratio.desc", "n.nullsfirst", "due.desc.nullslast", "meta->>a"]);
        let (column, words) = term.split_once('.').map_or((term, String::new()), |(column, words)| (column, format!(".{words}")));
        parameters.push(("order".to_owned(), format!("{alias}({column}){words},id.desc")));
    }
    if !to_one && rng.chance(50) {
        parameters.push((format!("{alias}.order"), (*rng.pick(&["n.desc", "label.nullsfirst,id.desc", "due"])).to_owned()));
        parameters.push((format!("{alias}.limit"), rng.below(4).to_string()));
        parameters.push((format!("{alias}.offset"), rng.below(2).to_string()));
    }
    parameters
}

/// All rows of the collections, as anybody reads them.
pub(super) type Rows<'a> = dyn Fn(&str) -> &'a [Json] + 'a;

/// Whether a row is given, by the rule itself.
pub(super) fn is_given(rows: &Rows<'_>, row: &Map<String, Json>, filter: &Filter, embeds: &[Embedded]) -> bool {
    let has = |embedded: &Embedded| {
        let far = |far: &Map<String, Json>| {
            leads(row, far, &embedded.related) && is_given(rows, far, &embedded.query.filter, &embedded.query.embeds)
        };
        rows(&embedded.related.collection.name).iter().filter_map(Json::as_object).any(far)
    };
    let holds = |embedded: &Embedded| match embedded.presence {
        Presence::Any => true,
        Presence::Some => has(embedded),
        Presence::None => !has(embedded),
    };
    lets_through(filter, row) && embeds.iter().all(holds)
}

fn leads(near: &Map<String, Json>, far: &Map<String, Json>, way: &Related) -> bool {
    let (one, many) = if way.to_one { (far, near) } else { (near, far) };
    many.get(&way.field.name).is_some_and(|id| id.is_string() && Some(id) == one.get("id"))
}
