use std::fs;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::*;
use crate::config::{Define, Kind, Setting, Sources};

static KEEP: Setting<Duration> = Setting::new("outbox.keep", "14d", "0.1.0", "How long.").hot();
static LISTEN: Setting<String> = Setting::new("http.listen", "127.0.0.1:1", "0.1.0", "Where.");
static TOKEN: Setting<Option<String>> = Setting::new("backup.token", "", "0.1.0", "A secret.").secret().hot();
static ALL: &[&dyn Define] = &[&KEEP, &LISTEN, &TOKEN];

struct World {
    folder: tempfile::TempDir,
    config: Config,
    heard: Receiver<String>,
    tasks: Tasks,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { data_dir: Some(folder.path().to_owned()), ..Sources::default() };
        let config = Config::load(ALL, &sources).unwrap();
        let (tell, heard) = sync_channel(16);
        let tasks = Tasks::detached(Reloader::NAME);
        let part = Reloader::new(&config).telling(move |outcome| {
            let said = match outcome {
                Ok(Reloaded { taken, refused }) => {
                    let names = |changes: &[crate::config::Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    format!("taken: {}; refused: {}", names(taken), names(refused))
                }
                Err(problems) => problems.to_string(),
            };
            let _ = tell.send(said);
        });
        part.start(tasks.clone()).await.unwrap();
        Self { folder, config, heard, tasks }
    }

    async fn heard(self) -> (Self, String) {
        tokio::task::spawn_blocking(move || {
            let said = self.heard.recv_timeout(Duration::from_secs(20)).expect("a reload is told");
            (self, said)
        })
        .await
        .unwrap()
    }

    /// At once: between an empty file and its text, a machine that is busy may do much else.
    fn write(&self, text: &str) {
        let fresh = self.folder.path().join("mobo.new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.folder.path().join("mobo.toml")).unwrap();
    }

    async fn end(self) {
        self.tasks.stopping().cancel();
        self.tasks.finished().await;
    }
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_hot_settings_change_and_cold_ones_are_named() {
    let world = World::start().await;
    world.write("[outbox]\nkeep = \"2h\"\n[http]\nlisten = \"127.0.0.1:2\"\n[backup]\ntoken = \"hush\"\n");
    let (world, said) = world.heard().await;
    assert_eq!(
        said,
        "taken: outbox.keep from \"14d\" to \"2h\", backup.token from \"\" to \"***\"; \
         refused: http.listen from \"127.0.0.1:1\" to \"127.0.0.1:2\""
    );
    assert_eq!(world.config.get(&KEEP), Duration::from_secs(7_200));
    assert_eq!(world.config.get(&LISTEN), "127.0.0.1:1");
    let pending = world.config.pending().unwrap();
    assert_eq!((pending.taken.len(), pending.refused.len()), (0, 1), "it stays refused until the next boot");
    fs::remove_file(world.folder.path().join("mobo.toml")).unwrap();
    let (world, said) = world.heard().await;
    assert_eq!(said, "taken: outbox.keep from \"2h\" to \"14d\", backup.token from \"***\" to \"\"; refused: ");
    world.end().await;
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_other_files_are_not_looked_at() {
    let world = World::start().await;
    world.write("[outbox]\nkeep = \"1h\"\n[http]\nlisen = \"x\"\n");
    let (world, said) = world.heard().await;
    assert!(said.contains("did you mean http.listen?"), "{said}");
    assert_eq!(world.config.get(&KEEP), Duration::parse("14d").unwrap());
    fs::write(world.folder.path().join("edge.db-wal"), "x").unwrap();
    fs::write(world.folder.path().join("new.toml.tmp"), "[outbox]\nkeep = \"3h\"\n").unwrap();
    fs::rename(world.folder.path().join("new.toml.tmp"), world.folder.path().join("mobo.toml")).unwrap();
    let (world, said) = world.heard().await;
    assert!(said.starts_with("taken: outbox.keep from \"14d\" to \"3h\""), "the database was no reason to reload: {said}");
    world.end().await;
}
