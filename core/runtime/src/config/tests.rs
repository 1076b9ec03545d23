//! Layers as text: what each source says, and what comes out.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;

static LISTEN: Setting<SocketAddr> = Setting::new("http.listen", "127.0.0.1:8000", "0.1.0", "Where the API listens.");
static WORKERS: Setting<i64> = Setting::new("http.workers", "2", "0.1.0", "How many.").within("1", "64");
static OPEN: Setting<bool> = Setting::new("http.open", "false", "0.1.0", "Whether.");
static KEEP: Setting<Duration> = Setting::new("outbox.keep", "14d", "0.1.0", "How long.").within("1h", "90d");
static KEEP_BYTES: Setting<ByteSize> = Setting::new("outbox.keep_bytes", "64MiB", "0.1.0", "How much.");
static STORE: Setting<String> = Setting::new("store.url", "sqlite", "0.1.0", "The store.").url();
static METRICS: Setting<Option<SocketAddr>> = Setting::new("metrics.listen", "", "0.1.0", "Where metrics are.");
static TRANSPORT: Setting<String> = Setting::new("link.transport", "auto", "0.1.0", "How.").one_of(&["auto", "quic"]);
static TOPICS: Setting<String> = Setting::new("mqtt.topics", "a, b", "0.1.0", "Which.")
    .checked(|text| listed(text).any(|topic| topic == "#").then(|| "too much".to_owned()));
static TOKEN: Setting<Option<String>> = Setting::new("backup.token", "", "0.1.0", "A secret.").secret();
static ALL: &[&dyn Define] = &[&LISTEN, &WORKERS, &OPEN, &KEEP, &KEEP_BYTES, &STORE, &METRICS, &TRANSPORT, &TOPICS, &TOKEN];

struct World {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl World {
    fn new(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            env: env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            file: None,
            data_dir: Some(folder.path().join("data")),
            etc_dir: Some(folder.path().join("etc")),
            ..Sources::default()
        };
        Self { folder, sources }
    }

    fn write(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        Config::load(ALL, &self.sources)
    }

    /// The problems, a line each, with paths from the world's folder.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.folder.path().display());
        let Err(Problems(problems)) = self.load() else { return Vec::new() };
        problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect()
    }
}

#[test]
fn definitions_are_sound() {
    assert_eq!(ALL.iter().filter_map(|setting| setting.sound()).collect::<Vec<_>>(), Vec::<String>::new());
    assert!(Setting::<i64>::new("a.b", "x", "0", "doc").sound().unwrap().contains("not a whole number"));
    assert!(Setting::<i64>::new("a.b", "9", "0", "doc").within("1", "5").sound().unwrap().contains("not from 1 to 5"));
    assert!(Setting::<i64>::new("top", "9", "0", "doc").sound().unwrap().contains("section.name"));
}

#[test]
fn stronger_layers_win_and_say_so() {
    let world = World::new(&["http.workers=3", "http.workers=4"], &[("MOBO_HTTP__WORKERS", "5"), ("MOBO_HTTP__OPEN", "true")])
        .write("etc/10.toml", "http.workers = 7\nhttp.open = false\n[outbox]\nkeep = \"2h\"\nkeep_bytes = 4096\n")
        .write("etc/20.toml", "[outbox]\nkeep = \"3h\"\n")
        .write("etc/notes.txt", "not TOML")
        .write("data/mobo.toml", "[http]\nworkers = 6\nlisten = \"[::1]:0\"\n");
    let config = world.load().unwrap();
    assert_eq!((config.get(&WORKERS), config.origin("http.workers")), (4, Origin::Flag));
    assert_eq!((config.get(&OPEN), config.origin("http.open")), (true, Origin::Env("MOBO_HTTP__OPEN".into())));
    assert_eq!(config.get(&LISTEN), "[::1]:0".parse().unwrap());
    assert_eq!(config.origin("http.listen"), Origin::File(world.folder.path().join("data/mobo.toml")));
    assert_eq!(config.get(&KEEP), Duration::from_secs(3 * 3_600));
    assert_eq!(config.origin("outbox.keep"), Origin::File(world.folder.path().join("etc/20.toml")));
    assert_eq!(config.get(&KEEP_BYTES), ByteSize(4_096));
    assert_eq!((config.get(&STORE), config.origin("store.url")), ("sqlite".to_owned(), Origin::Default));
    assert_eq!((config.get(&METRICS), config.get(&TOKEN)), (None, None));
}

#[test]
fn a_named_file_replaces_the_one_in_the_data_folder_and_must_exist() {
    let mut world = World::new(&[], &[]).write("data/mobo.toml", "nonsense").write("my.toml", "[http]\nworkers = 9\n");
    world.sources.file = Some(world.folder.path().join("my.toml"));
    assert_eq!(world.load().unwrap().get(&WORKERS), 9);
    world.sources.file = Some(world.folder.path().join("gone.toml"));
    assert_eq!(world.problems(), ["gone.toml: cannot be read (No such file or directory (os error 2))"]);
}

#[test]
fn every_problem_is_reported_at_once() {
    let env = [("MOBO_HTTP__LISTE", "x"), ("MOBO_DEBUG", "ignored"), ("MOBO_BACKUP__TOKEN_FILE", "/nowhere/token"), ("HOME", "/")];
    let flags = ["http.workers=0", "http.workers=many", "justakey", "backup.token=hush", "http.open=yes"];
    let world = World::new(&flags, &env).write("etc/1.toml", "a = [\n").write(
        "data/mobo.toml",
        "[http]\nlisten = 8000\nworkers = \"3\"\nopen = 1\n[outbox]\nkeep = \"10 fortnights\"\nkeep_bytes = true\n\
         [link]\ntransport = \"pigeon\"\n[zoo]\nbear = 1\n[metrics]\nlisten = \"localhost\"\n[store]\nurl = { host = \"x\" }\n",
    );
    let want = [
        "etc/1.toml: line 1 is not TOML:",
        "data/mobo.toml: http.listen takes a text: write it in quotes",
        "data/mobo.toml: http.open takes true or false: write it without quotes",
        "data/mobo.toml: http.workers takes a whole number: write it without quotes",
        "data/mobo.toml: link.transport: \"pigeon\" is none of auto, quic",
        "data/mobo.toml: metrics.listen: \"localhost\" is not an address with its port",
        "data/mobo.toml: outbox.keep: \"10 fortnights\" is not a time with its unit",
        "data/mobo.toml: outbox.keep_bytes takes a size",
        "data/mobo.toml: store.url takes a text",
        "data/mobo.toml: there is no setting zoo.bear: `config example` lists all there are",
        "env MOBO_BACKUP__TOKEN_FILE: the file /nowhere/token cannot be read",
        "env MOBO_HTTP__LISTE: there is no setting http.liste: did you mean http.listen?",
        "--set: http.workers: \"0\" is not from 1 to 64",
        "--set: http.workers: \"many\" is not a whole number",
        "--set: \"justakey\" is not key=value",
        "--set: backup.token is a secret, and every user of this machine can read a command line: put it into a file and name that in MOBO_BACKUP__TOKEN_FILE",
        "--set: http.open: \"yes\" is not true or false",
    ];
    let problems = world.problems();
    assert_eq!(problems.len(), want.len(), "{problems:#?}");
    for (problem, want) in problems.iter().zip(want) {
        assert!(problem.starts_with(want), "{problem}\nwant: {want}");
    }
    let sentence = world.load().unwrap_err().to_string();
    assert!(sentence.starts_with("17 problems in the settings\n  "), "{sentence}");
}

/// What a part of a node will refuse is told to whoever asks before, and keeps no node from starting.
#[test]
fn what_a_part_will_refuse_is_told_when_asked() {
    let check = |flags: &[&str]| World::new(flags, &[]).load().unwrap().check().map_err(|problems| problems.to_string());
    assert_eq!(check(&["mqtt.topics=a,b"]), Ok(()));
    assert_eq!(
        check(&["mqtt.topics=a,\u{202e}#, #"]),
        Err("1 problem in the settings\n  --set: mqtt.topics: \"a,\\u{202e}#, #\" is too much".to_owned())
    );
}

#[test]
fn secrets_are_read_from_files_and_shown_to_nobody() {
    let env = [("MOBO_STORE__URL", "postgres://mobo:hunter2@db/mobo")];
    let world = World::new(&[], &env).write("token", "hunter2\n");
    let mut sources = world.sources.clone();
    sources.env.push(("MOBO_BACKUP__TOKEN_FILE".to_owned(), world.folder.path().join("token").display().to_string()));
    let config = Config::load(ALL, &sources).unwrap();
    assert_eq!(config.get(&TOKEN).as_deref(), Some("hunter2"));
    assert_eq!(config.get(&STORE), "postgres://mobo:hunter2@db/mobo");
    let shown = config.show();
    let value = |key: &str| shown.iter().find(|line| line.key == key).unwrap().value.clone();
    assert_eq!(value("backup.token"), "***");
    assert_eq!(value("store.url"), "postgres://mobo:***@db/mobo");
    assert_eq!(value("http.listen"), "127.0.0.1:8000");
    assert!(!format!("{config:?} {shown:?}").contains("hunter2"));
}

#[test]
fn a_password_is_refused_on_a_command_line_and_a_url_without_one_is_not() {
    let world = World::new(&["store.url=postgres://mobo:hunter2@db/mobo", "store.url=postgres://db/mobo"], &[]);
    let problems = world.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("--set: store.url has a password in it, and every user"), "{problems:?}");
    assert!(problems[0].ends_with("name that in MOBO_STORE__URL_FILE") && !problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn secrets_come_from_a_sealed_file_and_from_credentials_and_a_stronger_layer_wins() {
    let mut world = World::new(&[], &[]).write("data/mobo.toml", "[backup]\ntoken = \"plain\"\n[http]\nlisten = \"127.0.0.1:1\"\n");
    let folder = world.folder.path().to_owned();
    let place = secrets::Place { file: folder.join("data/secrets.sealed"), key: folder.join("sealed.key") };
    secrets::keep(&place, "backup.token", Some("sealed")).unwrap();
    secrets::keep(&place, "store.url", Some("postgres://u:sealed@db/x")).unwrap();
    world.sources.sealed = Some(place.clone());
    let config = world.load().unwrap();
    assert_eq!(config.get(&TOKEN).as_deref(), Some("sealed"));
    assert_eq!(config.origin("store.url"), Origin::Sealed(place.file.clone()));

    let mut world = world.write("creds/backup.token", "credential\n").write("creds/http.listen", "not a secret: not looked at");
    world.sources.credentials = Some(folder.join("creds"));
    let config = world.load().unwrap();
    assert_eq!(config.get(&TOKEN).as_deref(), Some("credential"));
    assert_eq!(config.origin("backup.token"), Origin::Credential(folder.join("creds/backup.token")));
    assert_eq!(config.get(&LISTEN), "127.0.0.1:1".parse().unwrap());
    world.sources.env.push(("MOBO_BACKUP__TOKEN".to_owned(), "environment".to_owned()));
    let config = world.load().unwrap();
    assert_eq!(config.get(&TOKEN).as_deref(), Some("environment"));
    assert!(!format!("{config:?}").contains("credential\n"));

    secrets::keep(&place, "backup.tokn", Some("x")).unwrap();
    assert!(world.problems()[0].contains("there is no setting backup.tokn: did you mean backup.token?"), "{:?}", world.problems());
    fs::remove_file(&place.key).unwrap();
    assert!(world.problems()[0].starts_with("data/secrets.sealed: there is no key for it at sealed.key"), "{:?}", world.problems());
}

#[test]
fn passwords_in_urls_are_hidden() {
    for (url, want) in [
        ("sqlite", "sqlite"),
        ("postgres://db/mobo", "postgres://db/mobo"),
        ("postgres://user@db/mobo", "postgres://user@db/mobo"),
        ("postgres://u:p@db:5432/mobo?x=1", "postgres://u:***@db:5432/mobo?x=1"),
        ("postgres://u:p@ss@db", "postgres://u:***@db"),
        ("postgres://u:a/b@db/x", "postgres://u:***@db/x"),
        ("postgres://db/x?password=p&sslmode=require", "postgres://db/x?password=***&sslmode=require"),
        ("host=db password=p user=u", "host=db password=*** user=u"),
    ] {
        assert_eq!(Secrecy::Url.masked(url), want);
    }
}

#[test]
fn times_and_sizes_have_units() {
    for (text, want) in [("250ms", Some(250)), ("10s", Some(10_000)), ("2 h", Some(7_200_000)), ("10", None), ("-1s", None), ("s", None)] {
        assert_eq!(Duration::parse(text).map(|span| span.as_millis()), want, "{text}");
    }
    for (text, want) in [("0", Some("0B")), ("64MiB", Some("64MiB")), ("2048", Some("2KiB")), ("1kB", Some("1000B")), ("1mb", None)] {
        assert_eq!(ByteSize::parse(text).map(|size| size.to_string()).as_deref(), want, "{text}");
    }
    assert_eq!(ByteSize::parse("99999999999GiB"), None);
    assert_eq!(Duration::parse("99999999999999999d"), None);
}

#[test]
fn the_example_is_toml_and_changes_nothing() {
    let text = example(ALL);
    assert!(text.contains("\n[http]\n# Where the API listens.\n# Since 0.1.0.\n# listen = \"127.0.0.1:8000\"\n"), "{text}");
    assert!(text.contains("# How many.\n# From 1 to 64. Since 0.1.0.\n# workers = 2\n"), "{text}");
    let taken: Vec<_> = text.lines().map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line)).collect();
    let world = World::new(&[], &[]).write("data/mobo.toml", &taken.join("\n"));
    let config = world.load().unwrap();
    assert!(config.show().iter().all(|line| matches!(line.origin, Origin::File(_))));
    assert_eq!(config.get(&KEEP_BYTES), ByteSize(64 << 20));
}
