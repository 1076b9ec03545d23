//! Who counts and measures hears of every request, once when it comes and once when it goes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mobo_gate::watch::{Ended, Watch};
use mobo_gate::{NodeKind, Role, Settings};

use crate::World;
use crate::memory::key;

#[derive(Debug, Default)]
struct Book(Mutex<Vec<String>>);

impl Book {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Watch for Book {
    fn came(&self) {
        self.write("came".to_owned());
    }

    fn left(&self) {
        self.write("left".to_owned());
    }

    fn answered(&self, request: &Ended<'_>, _: Duration) {
        self.write(format!("{} {} {}", request.method, request.route, request.status));
    }

    fn authenticated(&self, method: &'static str, failure: Option<&'static str>) {
        self.write(format!("{method} {failure:?}"));
    }
}

/// A path, the headers of a request, and what is watched.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
async fn every_request_is_heard_of_by_its_route() {
    let book = Arc::new(Book::default());
    let world = World::with(NodeKind::Hub, Settings { watch: Some(Arc::clone(&book) as _), ..Settings::default() });
    let good = key(Role::Service);
    let cases: [Case<'_>; 4] = [
        ("GET /livez", &[], &["came", "GET /livez 200", "left"]),
        ("GET /no/where?x=1", &[], &["came", "GET none 404", "left"]),
        ("GET /rest/v1/work_orders", &[("apikey", good.text())], &["came", "key None", "GET /rest/v1/{collection} 200", "left"]),
        (
            "GET /rest/v1/work_orders",
            &[("apikey", "mobo_sec_x")],
            &["came", "key Some(\"refused\")", "GET /rest/v1/{collection} 401", "left"],
        ),
    ];
    for (line, headers, want) in cases {
        world.ask_from("192.0.2.7:50000", line, headers, "").await;
        assert_eq!(std::mem::take(&mut *book.0.lock().unwrap()), want, "{line}");
    }
}
