//! Who may (R2): on a hub a key, on a device a program of its own.

use mobo_gate::key::{ApiKey, KeyKind};
use mobo_gate::{NodeKind, Role};

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
