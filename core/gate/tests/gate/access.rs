//! Who may (R2): on a hub a key, on a device a program of its own.

use std::sync::Arc;

use mobo_core::ids::CollectionId;
use mobo_core::rights::{Action, Condition, Policy};
use mobo_gate::key::{ApiKey, KeyKind};
use mobo_gate::{NodeKind, Policies, Rates, Role, Settings};

use crate::memory::key;
use crate::{Headers, World};

/// Who is asking, with what, and the code and words of a refusal.
type Asking<'a> = (&'a str, Headers<'a>, Option<(&'a str, &'a str)>);

const LINE: &str = "GET /rest/v1/work_orders";

#[tokio::test]
async fn a_hub_opens_collections_to_its_secret_keys_only() {
    let world = World::new(NodeKind::Hub);
    let (admin, service, anon) = (key(Role::Admin), key(Role::Service), key(Role::Anon));
    let (admin, service, anon) = (admin.text(), service.text(), anon.text());
    let bearer = |token: &str| format!("Bearer {token}");
    let (service_bearer, anon_bearer, jwt) = (bearer(service), bearer(anon), bearer("eyJhbGciOiJub25lIn0.e30."));
    let small = service_bearer.replace("Bearer", "bearer");
    let stranger = ApiKey::generate(KeyKind::Secret, [9; 20]);
    let (stranger, slip) = (stranger.text(), service.replace("mobo_sec_a", "mobo_sec_b"));
    let cases: [Asking<'_>; 19] = [
        ("an admin key", &[("apikey", admin)], None),
        ("a service key", &[("apikey", service)], None),
        ("a service key as a bearer", &[("authorization", &service_bearer)], None),
        ("a service key in both", &[("apikey", service), ("authorization", &service_bearer)], None),
        ("a key of ours as a bearer beside the app's", &[("apikey", service), ("authorization", &anon_bearer)], None),
        ("a scheme in small letters", &[("authorization", &small)], None),
        ("no key", &[], Some(("PGRST301", "key create"))),
        ("an anon key", &[("apikey", anon)], Some(("42501", "is closed until"))),
        ("an unknown key", &[("apikey", stranger)], Some(("PGRST301", "not known here"))),
        ("a slip in a key", &[("apikey", &slip)], Some(("PGRST301", "not a mobo key"))),
        ("an empty key", &[("apikey", "")], Some(("PGRST301", "not a mobo key"))),
        ("a key of somebody else's", &[("apikey", "sb_secret_x")], Some(("PGRST301", "not a mobo key"))),
        ("two keys", &[("apikey", service), ("apikey", anon)], Some(("PGRST301", "sent twice"))),
        ("a token without a signature", &[("authorization", &jwt)], Some(("PGRST301", "JSON web token"))),
        ("likewise beside a key", &[("apikey", service), ("authorization", &jwt)], Some(("PGRST301", "JSON web token"))),
        ("a password", &[("authorization", "Basic YTpi")], Some(("PGRST301", "Bearer <key>"))),
        ("a bearer of nothing", &[("authorization", "Bearer ")], Some(("PGRST301", "Bearer <key>"))),
        ("a secret key in a browser", &[("apikey", service), ("user-agent", "Mozilla/5.0 (X11)")], Some(("PGRST301", "browser"))),
        ("an anon key in a browser", &[("apikey", anon), ("user-agent", "Mozilla/5.0 (X11)")], Some(("42501", "policy"))),
    ];
    for (name, headers, want) in cases {
        for peer in ["127.0.0.1:50000", "192.0.2.7:50000"] {
            let answer = world.ask_from(peer, LINE, headers, "").await;
            match want {
                None => assert_eq!(answer.status, 200, "{name}: {}", answer.text),
                Some((code, words)) => {
                    answer.is_problem(name, 401, code, words);
                    assert_eq!(answer.header("www-authenticate"), "Bearer", "{name}");
                }
            }
            assert!(!answer.text.contains(&service[..20]), "{name}: a key in an answer");
        }
    }
    for (line, body) in [("POST /rest/v1/work_orders", "{}"), ("PATCH /rest/v1/work_orders?id=eq.a", "{}"), ("DELETE /rest/v1/vitals", "")]
    {
        world.ask(line, &[("apikey", anon)], body).await.is_problem(line, 401, "42501", "policy");
    }
    let unknown = world.ask("GET /rest/v1/no_such", &[("apikey", anon)], "").await;
    unknown.is_problem("what is there is not told either", 401, "42501", "policy");
}

#[tokio::test]
async fn a_device_opens_them_to_its_own_programs_only() {
    let world = World::new(NodeKind::Edge);
    let service = key(Role::Service);
    let here: [(&str, &str, Headers<'_>); 5] = [
        ("a program", "127.0.0.1:50000", &[("host", "127.0.0.1:8001")]),
        ("a program over IPv6", "[::1]:50000", &[("host", "[::1]:8001")]),
        ("a program over mapped IPv4", "[::ffff:127.0.0.1]:50000", &[]),
        ("a page of this machine", "127.0.0.1:50000", &[("host", "localhost:8001"), ("origin", "http://localhost:3000")]),
        ("a person's browser", "127.0.0.1:50000", &[("host", "localhost:8001"), ("user-agent", "Mozilla/5.0"), ("sec-fetch-site", "none")]),
    ];
    for (name, peer, headers) in here {
        assert_eq!(world.ask_from(peer, LINE, headers, "").await.status, 200, "{name}");
    }
    let elsewhere: [(&str, &str, Headers<'_>); 7] = [
        ("another machine", "192.0.2.7:50000", &[]),
        ("another machine that says it is this one", "192.0.2.7:50000", &[("host", "localhost:8001")]),
        ("a page of another site", "127.0.0.1:50000", &[("host", "localhost:8001"), ("origin", "https://evil.example")]),
        ("a page without an origin", "127.0.0.1:50000", &[("host", "localhost:8001"), ("origin", "null")]),
        ("a foreign name for this machine", "127.0.0.1:50000", &[("host", "rebound.evil.example:8001")]),
        ("a proxy on this machine", "127.0.0.1:50000", &[("host", "localhost:8001"), ("x-forwarded-for", "192.0.2.7")]),
        ("a key, which a device cannot check", "127.0.0.1:50000", &[("apikey", service.text())]),
    ];
    for (name, peer, headers) in elsewhere {
        world.ask_from(peer, LINE, headers, "").await.is_problem(name, 401, "PGRST301", "key");
        world.ask_from(peer, "POST /rest/v1/work_orders", headers, "{}").await.is_problem(name, 401, "PGRST301", "key");
    }
    assert_eq!(world.rows("/rest/v1/work_orders").await, serde_json::json!([]));
}

#[tokio::test]
async fn a_tag_tells_nothing_of_a_row_that_a_policy_hides() {
    let world = World::new(NodeKind::Hub);
    let (service, anon) = (key(Role::Service), key(Role::Anon));
    let json = ("content-type", "application/json");
    let rows = r#"[{"id":"open","status":"open"},{"id":"shut","status":"shut"}]"#;
    assert_eq!(world.ask("POST /rest/v1/work_orders", &[("apikey", service.text()), json], rows).await.status, 201);
    let opened = |action| Policy {
        collection: CollectionId::new(1).unwrap(),
        role: Role::Anon,
        action,
        condition: Some(Condition::parse("status=eq.open").unwrap()),
        fields: None,
    };
    *world.memory.policies.lock().unwrap() = Arc::new(Policies::new([Action::Read, Action::Update, Action::Delete].map(opened)));
    let ask = |line: &'static str, header: (&'static str, &'static str)| {
        let (world, anon) = (&world, anon.text());
        async move { world.ask(line, &[("apikey", anon), header], "").await }
    };
    let open = ask("GET /rest/v1/work_orders?id=eq.open", json).await;
    assert_ne!(open.header("etag"), "", "{}", open.text);
    let shut = ask("GET /rest/v1/work_orders?id=eq.shut", json).await;
    assert_eq!((shut.status, shut.header("etag"), shut.text.as_str()), (200, "", "[]"));
    assert_eq!(ask("GET /rest/v1/work_orders?id=eq.open", ("if-none-match", "*")).await.status, 304);
    assert_eq!(ask("GET /rest/v1/work_orders?id=eq.shut", ("if-none-match", "*")).await.status, 200, "as if it were not there");
    let delete = ask("DELETE /rest/v1/work_orders?id=eq.shut", ("if-match", "*")).await;
    let nothing = ask("DELETE /rest/v1/work_orders?id=eq.nothing", ("if-match", "*")).await;
    assert_eq!((delete.status, nothing.status), (412, 412));
}

// faults: X-14
#[tokio::test]
async fn whoever_guesses_keys_keeps_nobody_out_who_has_one() {
    let settings = Settings { rates: Rates { guest: 100, key: 100, auth: 2 }, ..Settings::default() };
    let world = World::with(NodeKind::Hub, settings);
    let (service, anon) = (key(Role::Service), key(Role::Anon));
    let ask = |text: &str| {
        let headers = [("apikey".to_owned(), text.to_owned())];
        let world = &world;
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            world.ask_from("192.0.2.2:9", LINE, &headers, "").await.status
        }
    };
    // Whoever may not do something has shown who he is: that is no guess.
    for _ in 0..5 {
        assert_eq!(ask(anon.text()).await, 401);
    }
    assert_eq!(ask(service.text()).await, 200);
    let unknown = ApiKey::generate(KeyKind::Secret, [9; 20]);
    for (n, want) in [401, 401, 429, 429].into_iter().enumerate() {
        assert_eq!(ask(unknown.text()).await, want, "{n}");
    }
    let over = world.ask_from("192.0.2.2:9", LINE, &[("apikey", unknown.text())], "").await;
    over.is_problem("too often", 429, "MB429", "iana.org/assignments/http-problem-types#quota-exceeded");
    let (told, wait) = (over.json(), over.header("retry-after").parse::<u64>().unwrap());
    let facts = ["violated-policies", "limit", "window_s", "retry_after_s"].map(|member| told[member].clone());
    assert_eq!(facts, [serde_json::json!(["refused"]), 2.into(), 60.into(), wait.into()], "{}", over.text);
    assert_eq!((ask(service.text()).await, ask(anon.text()).await), (200, 401), "from the same address");
}

/// What a policy leaves out is no field: a slip is refused like any other, and no word of an answer leads to what is hidden.
#[tokio::test]
async fn no_hint_names_a_field_that_is_hidden() {
    let world = World::new(NodeKind::Hub);
    let (service, anon) = (key(Role::Service), key(Role::Anon));
    let json = ("content-type", "application/json");
    let row = r#"{"id":"a","title":"Pump","rank":7,"due":"2026-03-01T08:00:00Z"}"#;
    assert_eq!(world.ask("POST /rest/v1/work_orders", &[("apikey", service.text()), json], row).await.status, 201);
    let open = |(action, fields): (Action, &[&str])| Policy {
        collection: CollectionId::new(1).unwrap(),
        role: Role::Anon,
        action,
        condition: None,
        fields: Some(fields.iter().map(|field| (*field).to_owned()).collect()),
    };
    let policies: [(Action, &[&str]); 4] =
        [(Action::Read, &["title"]), (Action::Create, &["title"]), (Action::Update, &["title", "hours"]), (Action::Delete, &[])];
    *world.memory.policies.lock().unwrap() = Arc::new(Policies::new(policies.map(open)));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let csv = ("content-type", "text/csv");
    let (post, patch, put) = ("POST /rest/v1/work_orders", "PATCH /rest/v1/work_orders?id=eq.a", "PUT /rest/v1/work_orders?id=eq.a");
    // A slip near to what is hidden, what is hidden, and what would empty it.
    let asked: [(&str, (&str, &str), &str, &str); 14] = [
        (post, json, r#"{"rnk":1}"#, "PGRST204"),
        (post, json, r#"{"rank":1}"#, "PGRST204"),
        (post, form, "rank=1", "PGRST204"),
        (post, csv, "rank\n1\n", "PGRST204"),
        ("POST /rest/v1/work_orders?columns=rank", json, r#"{"rank":1}"#, "PGRST204"),
        (patch, json, r#"{"rnk":1}"#, "PGRST204"),
        (patch, json, r#"{"rank":1}"#, "PGRST204"),
        (put, json, r#"{"id":"a","title":"x"}"#, "42501"),
        ("GET /rest/v1/work_orders?rnk=eq.1", json, "", "42703"),
        ("GET /rest/v1/work_orders?rank=eq.1", json, "", "42703"),
        ("GET /rest/v1/work_orders?select=rnk", json, "", "42703"),
        ("GET /rest/v1/work_orders?order=rnk", json, "", "42703"),
        ("GET /rest/v1/work_orders?or=(rnk.eq.1)", json, "", "42703"),
        ("DELETE /rest/v1/work_orders?rnk=eq.1", json, "", "42703"),
    ];
    for (line, header, body, code) in asked {
        let answer = world.ask(line, &[("apikey", anon.text()), header], body).await;
        let told = answer.json();
        assert_eq!(told["code"], code, "{line} {body}: {}", answer.text);
        let asked_for = format!("{line} {body}");
        for hidden in ["rank", "meta"].into_iter().filter(|hidden| !asked_for.contains(hidden)) {
            assert!(!answer.text.contains(hidden), "{line} {body}: {}", answer.text);
        }
    }
    // What may be changed and not be made is named by the policy, and a slip near to it leads there.
    let near = world.ask(patch, &[("apikey", anon.text()), json], r#"{"hors":1}"#).await;
    near.is_problem("a slip", 400, "PGRST204", "Perhaps you meant the column 'hours'");
}
