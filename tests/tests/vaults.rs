//! Vaults: a folder and a bucket keep the same promises, with the right credentials, and also where the way to the bucket lies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::vault::s3::{Lock, S3Pruner, S3Settings, S3Vault};
use mobo_adapters::vault::{FolderPruner, FolderVault};
use mobo_core::backup::vault::{ObjectName, Pruner, Vault, VaultError};
use mobo_tests::lying::{LIES, Liar};
use mobo_tests::s3::S3;
use mobo_tests::seed::Seed;
use mobo_tests::vault_conformance::{bytes, conforms, long_lists_come_in_pages, name, one_of_many_writers_wins};

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

#[test]
fn a_folder_is_a_vault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    run(async {
        conforms(Arc::new(FolderVault::open(&path).unwrap()), Arc::new(FolderPruner::open(&path).unwrap())).await;
        one_of_many_writers_wins(Arc::new(FolderVault::open(&folder.path().join("race")).unwrap())).await;
        long_lists_come_in_pages(&FolderVault::open(&folder.path().join("long")).unwrap()).await;
    });
}

/// Goal: a bucket is a vault, below any prefix, and neither credential can do what is the other's: who writes cannot remove.
/// Method: a store that checks signatures and rights. It looks and writes in two steps, so that many writers at once are tried below.
// faults: B-9
#[test]
fn a_bucket_is_a_vault_with_two_credentials() {
    let store = S3::start();
    store.bucket("backups", false);
    let reads = ["s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"];
    let writer = store.user("writer", &reads);
    let pruner = store.user("pruner", &[&reads[..], &["s3:DeleteObject", "s3:DeleteObjectVersion"]].concat());
    store.enforce();
    let settings = |credentials| S3::settings("s3://backups/plant 4/main", store.address(), credentials);
    run(async {
        let vault = Arc::new(S3Vault::new(settings(writer.clone())).unwrap());
        assert_eq!(vault.place(), "s3://backups/plant 4/main");
        conforms(Arc::clone(&vault) as Arc<dyn Vault>, Arc::new(S3Pruner::new(settings(pruner)).unwrap())).await;

        let thief = S3Pruner::new(settings(writer.clone())).unwrap();
        let kept = name("manifests/small");
        assert!(matches!(thief.delete(&kept).await, Err(VaultError::Refused(_))));
        assert!(vault.head(&kept).await.unwrap().is_some());
        let wrong = mobo_adapters::vault::s3::Credentials { secret: "guessed".to_owned(), ..writer.clone() };
        let stranger = S3Vault::new(settings(wrong)).unwrap();
        for answer in [
            stranger.get(&kept, None).await.map(|_| ()),
            stranger.put(&name("keys/x"), vec![1].into()).await,
            stranger.head(&kept).await.map(|_| ()),
        ] {
            assert!(matches!(answer, Err(VaultError::Refused(_))), "{answer:?}");
        }
        let elsewhere = S3Vault::new(S3::settings("s3://no-such-bucket", store.address(), writer)).unwrap();
        for answer in [
            elsewhere.head(&kept).await.map(|_| ()),
            elsewhere.list("", None).await.map(|_| ()),
            elsewhere.put(&kept, vec![1].into()).await,
        ] {
            assert!(matches!(answer, Err(VaultError::Refused(_))), "nothing is gone where the bucket is: {answer:?}");
        }
    });
}

/// Goal: of many writers who create the same name in a bucket at once, one wins and the others hear that it is taken, for small objects and for
/// those that come in parts. Method: a way to the store that lets it decide one condition after the other, which the store alone does not.
// faults: B-7, B-8
#[test]
fn of_many_who_create_a_name_in_a_bucket_one_wins() {
    let seed = Seed::from_env();
    let store = S3::start();
    store.bucket("backups", false);
    let way = Liar::before(store.address(), (0, &LIES), seed.rng(), Duration::from_secs(60));
    let vault = Arc::new(S3Vault::new(S3::settings("s3://backups", &way.address, S3::anybody())).unwrap());
    run(async {
        one_of_many_writers_wins(Arc::clone(&vault) as Arc<dyn Vault>).await;
        let name = name("segments/large");
        let content = |n: u64| bytes(n, 5 * 1024 * 1024 + 100);
        let (one, two) = tokio::join!(vault.put(&name, content(1).into()), vault.put(&name, content(2).into()));
        let there = vault.get(&name, None).await.unwrap();
        match (&one, &two) {
            (Ok(()), Err(VaultError::Exists(_))) => assert!(there == content(1), "{seed:?}"),
            (Err(VaultError::Exists(_)), Ok(())) => assert!(there == content(2), "{seed:?}"),
            both => panic!("{seed:?}: {both:?}"),
        }
    });
}

/// Goal: what is locked stays, whoever asks; what is not is removed with its versions.
// faults: B-9
#[test]
fn what_is_locked_nobody_removes() {
    let store = S3::start();
    store.bucket("locked", true);
    let settings = |lock| S3Settings { lock, ..S3::settings("s3://locked", store.address(), S3::anybody()) };
    run(async {
        let locking = S3Vault::new(settings(Some(Lock { compliance: true, days: 3 }))).unwrap();
        let (small, other, free) = (name("manifests/small"), name("segments/other"), name("segments/free"));
        locking.put(&small, bytes(1, 10).into()).await.unwrap();
        locking.put(&other, bytes(2, 100_000).into()).await.unwrap();
        // In parts as well; this store forgets the lock of an object that came in parts.
        locking.put(&name("segments/large"), bytes(2, 6 * 1024 * 1024).into()).await.unwrap();
        let pruner = S3Pruner::new(settings(None)).unwrap();
        pruner.vault().put(&free, bytes(3, 10).into()).await.unwrap();
        for locked in [&small, &other] {
            let refused = pruner.delete(locked).await;
            assert!(matches!(refused, Err(VaultError::Refused(_))), "{locked}: {refused:?}");
            assert!(locking.head(locked).await.unwrap().is_some(), "{locked}");
        }
        pruner.delete(&free).await.unwrap();
        assert_eq!(locking.head(&free).await, Ok(None));
        // Its name is free again, and has one version: nothing of the first is left.
        locking.put(&free, bytes(4, 10).into()).await.unwrap();
    });
}

/// Goal: whatever the way to the store does, an object is there whole or not at all, nothing is said to be kept that is not, nothing is said
/// to be gone that is there, and nothing that was read is wrong.
/// Method: a seeded list of operations through a way that lies in a third of all requests; the truth is asked behind its back.
// faults: B-7, B-11
#[test]
fn a_way_that_lies_fools_nobody() {
    let seed = Seed::from_env();
    let mut rng = seed.rng();
    let store = S3::start();
    store.bucket("backups", false);
    let timeout = Duration::from_secs(3);
    let liar = Liar::before(store.address(), (33, &LIES), rng.fork(), 2 * timeout);
    let honest = S3Vault::new(S3::settings("s3://backups", store.address(), S3::anybody())).unwrap();
    let lied_to = S3Vault::new(S3Settings { timeout, ..S3::settings("s3://backups", &liar.address, S3::anybody()) }).unwrap();
    run(async {
        let mut kept: BTreeMap<ObjectName, Vec<u8>> = BTreeMap::new();
        for step in 0..60 {
            let name = name(&format!("segments/{:016x}", rng.below(30)));
            match rng.below(10) {
                0..5 => {
                    let large = rng.chance(10);
                    let content = bytes(step, if large { 5 * 1024 * 1024 + 100 } else { rng.below(3_000) as usize });
                    let said = lied_to.put(&name, content.clone().into()).await;
                    let there = honest.get(&name, None).await;
                    match (said, kept.get(&name), there) {
                        (Ok(()) | Err(VaultError::Unavailable(_) | VaultError::Exists(_)), None, Ok(there)) => {
                            assert!(there == content, "{seed:?}: {name} is there, and not whole");
                            kept.insert(name, content);
                        }
                        (Err(VaultError::Unavailable(_)), None, Err(VaultError::Gone(_))) => {}
                        (Err(VaultError::Unavailable(_) | VaultError::Exists(_)), Some(first), Ok(there)) => {
                            assert!(there == *first, "{seed:?}: {name} was replaced");
                        }
                        (said, first, there) => panic!("{seed:?}: {name}: {said:?}, kept before: {}, there: {there:?}", first.is_some()),
                    }
                }
                5..7 => match (lied_to.get(&name, None).await, kept.get(&name)) {
                    (Ok(read), Some(first)) => assert!(read == *first, "{seed:?}: {name} was read wrong"),
                    (Err(VaultError::Gone(_)), None) | (Err(VaultError::Unavailable(_)), _) => {}
                    (read, first) => panic!("{seed:?}: {name}: {read:?}, kept: {}", first.is_some()),
                },
                7..9 => match (lied_to.head(&name).await, kept.get(&name)) {
                    (Ok(size), first) => assert_eq!(size, first.map(|first| first.len() as u64), "{seed:?}: {name}"),
                    (Err(VaultError::Unavailable(_)), _) => {}
                    (Err(error), _) => panic!("{seed:?}: {name}: {error}"),
                },
                _ => match lied_to.list("segments/", None).await {
                    Ok(page) => {
                        assert!(page.iter().all(|listed| kept.get(&listed.name).map(|first| first.len() as u64) == Some(listed.bytes)))
                    }
                    Err(VaultError::Unavailable(_)) => {}
                    Err(error) => panic!("{seed:?}: {error}"),
                },
            }
        }
        assert!(liar.told() > 20, "{}", liar.told());
        // Once the way is good again, so is everything.
        liar.set(0);
        let late = name("segments/late");
        let put = at_last(async || match lied_to.put(&late, bytes(9, 10).into()).await {
            // By the try before, whose answer was late.
            Err(VaultError::Exists(_)) => Ok(()),
            other => other,
        });
        put.await;
        for (name, content) in &kept {
            assert!(at_last(async || lied_to.get(name, None).await).await == *content, "{seed:?}: {name}");
        }
    });
}

/// What a store says that may be slow on a machine that is busy.
async fn at_last<T>(mut ask: impl AsyncFnMut() -> Result<T, VaultError>) -> T {
    for _ in 0..20 {
        match ask().await {
            Err(VaultError::Unavailable(_)) => {}
            said => return said.unwrap(),
        }
    }
    panic!("a store that is there does not answer")
}

/// A store that is not there is away: nothing is gone, and it is found again.
// faults: B-11
#[test]
fn a_store_that_is_away_is_not_an_empty_one() {
    let nobody = mobo_tests::cluster::quiet_address();
    let settings = S3Settings { timeout: Duration::from_secs(2), ..S3::settings("s3://backups", &nobody, S3::anybody()) };
    run(async {
        let vault = S3Vault::new(settings).unwrap();
        let name = name("segments/x");
        for answer in [
            vault.put(&name, vec![1].into()).await,
            vault.get(&name, None).await.map(|_| ()),
            vault.head(&name).await.map(|_| ()),
            vault.list("", None).await.map(|_| ()),
        ] {
            assert!(matches!(answer, Err(VaultError::Unavailable(_))), "{answer:?}");
        }
    });
}

#[test]
fn an_address_that_is_none_is_named() {
    let parse = |url, endpoint| S3Settings::parse(url, endpoint, "eu-central-1", S3::anybody());
    for (url, endpoint, why) in [
        ("https://x/y", "", "does not begin with s3://"),
        ("s3://", "", "name a bucket"),
        ("s3://UPPER", "", "name a bucket"),
        ("s3://bucket/../other", "", "must be a plain path"),
        ("s3://bucket", "ftp://host", "the endpoint must be"),
        ("s3://bucket", "https://user:password@host", "the endpoint must be"),
    ] {
        let error = parse(url, endpoint).unwrap_err().to_string();
        assert!(error.contains(why), "{url} {endpoint}: {error}");
    }
    let aws = parse("s3://bucket/a/b/", "").unwrap();
    assert_eq!((aws.endpoint.as_str(), aws.prefix.as_str()), ("https://s3.eu-central-1.amazonaws.com", "a/b/"));
    assert!(!format!("{aws:?}").contains("secret"));
}
