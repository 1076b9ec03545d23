//! The same rights by GraphQL: what the schema of a caller holds, and what every operation does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{ACTIONS, COLLECTIONS, Headers, STREAM, User, Who, World, may};

/// `zq_own` as the name of a type.
fn base(collection: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    collection.split('_').map(capital).collect()
}

/// One way to ask: the root field, what is asked, and the actions that it takes.
type Operation = (String, String, &'static [&'static str]);

fn operations(world: &World, who: Who, collection: &str) -> Vec<Operation> {
    let base = base(collection);
    let field = base[..1].to_lowercase() + &base[1..];
    let (list, changes) = (format!("{field}Collection"), format!("{field}Changes"));
    if collection == STREAM {
        let read = format!("{{ {list}(first: 1) {{ edges {{ node {{ title }} }} }} }}");
        return vec![(list, read, &["read"]), (changes, String::new(), &["read"])];
    }
    let owner = if who == User { world.users[0].clone() } else { "somebody".to_owned() };
    let id = format!("graphql{who:?}").replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
    let (insert, update, delete) =
        (format!("insertInto{base}Collection"), format!("update{base}Collection"), format!("deleteFrom{base}Collection"));
    let title = format!("{who:?}").replace('"', "\\\"");
    let read = format!("{{ {list}(filter: {{ id: {{ eq: \"own\" }} }}) {{ edges {{ node {{ id title }} }} }} }}");
    let row = format!("{{ id: \"{id}\", owner: \"{owner}\", title: \"{title}\" }}");
    let inserting = format!("mutation {{ {insert}(objects: [{row}]) {{ affectedCount }} }}");
    let updating =
        format!("mutation {{ {update}(set: {{ title: \"{title}\" }}, filter: {{ id: {{ eq: \"own\" }} }}) {{ affectedCount }} }}");
    let deleting = format!("mutation {{ {delete}(filter: {{ id: {{ eq: \"{id}\" }} }}) {{ affectedCount }} }}");
    vec![
        (list, read, &["read"]),
        (changes, String::new(), &["read"]),
        (insert, inserting, &["create"]),
        (update, updating, &["read", "update"]),
        (delete, deleting, &["read", "delete"]),
    ]
}

/// What is wrong, and how many questions were asked.
pub(crate) fn every_action(world: &mut World, who: Who, headers: &Headers) -> (Vec<String>, usize) {
    let (mut wrong, mut asked) = (Vec::new(), 0);
    let mut ask = |world: &mut World, query: &str| {
        asked += 1;
        world.ask("POST", "/graphql/v1", headers, &json!({ "query": query }))
    };
    let roots = "{ __schema { queryType { fields { name } } mutationType { fields { name } } subscriptionType { fields { name } } } }";
    let answer = ask(world, roots);
    if !who.is_somebody() {
        let wrong = if answer.status == 401 { Vec::new() } else { vec![format!("{who:?} is told of the schema: {}", answer.text())] };
        return (wrong, asked);
    }
    let is_allowed =
        |collection: &str, actions: &[&str]| actions.iter().all(|action| ACTIONS.contains(action) && may(who, collection, action));
    let mut wanted = BTreeSet::from(["apiVersion".to_owned()]);
    for collection in COLLECTIONS {
        for (root, query, actions) in operations(world, who, collection) {
            let allowed = is_allowed(collection, actions);
            if allowed {
                wanted.insert(root.clone());
            }
            if query.is_empty() {
                continue;
            }
            let answer = ask(world, &query);
            let told = answer.json();
            let data = &told["data"][&root];
            let done = answer.status == 200 && told["errors"].is_null() && (data["affectedCount"] == 1 || data["edges"].is_array());
            let refused = answer.status == 200 && told["errors"].is_array() && data.is_null() && !answer.text().contains("Admin");
            let fits = if allowed { done } else { refused };
            if !fits {
                wrong.push(format!("{who:?} {query}: {} {}", answer.status, answer.text()));
            }
        }
        // Who may listen is told of changes in a test of realtime.
        if !may(who, collection, "read") {
            let listening = [headers.clone(), vec![("accept", "text/event-stream".to_owned())]].concat();
            let query = format!("subscription {{ {}{}Changes {{ type }} }}", base(collection)[..1].to_lowercase(), &base(collection)[1..]);
            let answer = world.ask("POST", "/graphql/v1", &listening, &json!({ "query": query }));
            if answer.status != 200 || !answer.text().contains("\"errors\"") {
                wrong.push(format!("{who:?} listens to {collection}: {} {}", answer.status, answer.text()));
            }
        }
    }
    let schema = answer.json();
    let schema = &schema["data"]["__schema"];
    let fields = ["queryType", "mutationType", "subscriptionType"].map(|root| schema[root]["fields"].clone());
    let found = fields.iter().filter_map(Value::as_array).flatten().filter_map(|field| field["name"].as_str());
    let found: BTreeSet<String> = found.map(str::to_owned).collect();
    if found != wanted {
        wrong.push(format!("{who:?} has a schema of {found:?} instead of {wanted:?}"));
    }
    (wrong, asked)
}
