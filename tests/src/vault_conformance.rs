//! What every vault must do, whatever keeps its objects.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::backup::vault::{Listed, ObjectName, Pruner, Vault, VaultError};
use mobo_core::limits;
use tokio::task::JoinSet;

use crate::seed::Rng;

/// The name of an object.
///
/// # Panics
///
/// For what is no name.
#[must_use]
#[track_caller]
pub fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("a name")
}

/// Bytes that can be told from others: as long as that, from a seed.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// Everything, in a vault that is empty. The two are one vault: one may write, the other remove as well.
///
/// # Panics
///
/// With the sentence of what is not so.
pub async fn conforms(vault: Arc<dyn Vault>, pruner: Arc<dyn Pruner>) {
    what_is_put_comes_back(vault.as_ref()).await;
    ranges_end_where_the_object_does(vault.as_ref()).await;
    nothing_is_ever_replaced(vault.as_ref()).await;
    lists_are_whole_and_in_order(vault.as_ref()).await;
    only_the_pruner_removes(vault.as_ref(), pruner.as_ref()).await;
}

async fn what_is_put_comes_back(vault: &dyn Vault) {
    assert_eq!(vault.list("", None).await, Ok(Vec::new()), "a new vault is empty");
    // Around what S3 takes in one piece, and the largest there is.
    for (at, length) in [0, 1, 4_096, limits::S3_PART_BYTES, limits::S3_PART_BYTES + 1, limits::OBJECT_BYTES_MAX].into_iter().enumerate() {
        let (name, bytes) = (name(&format!("segments/size-{at}")), bytes(at as u64, length));
        assert_eq!(vault.head(&name).await, Ok(None));
        assert_eq!(vault.get(&name, None).await, Err(VaultError::Gone(name.clone())));
        assert_eq!(vault.holds(&name, bytes.clone().into()).await, Err(VaultError::Gone(name.clone())));
        vault.put(&name, bytes.clone().into()).await.expect("it is kept");
        assert_eq!(vault.head(&name).await, Ok(Some(length as u64)));
        assert!(vault.get(&name, None).await.expect("it is there") == bytes, "{length} bytes came back otherwise");
        for (what, other) in others(&bytes) {
            assert_eq!(vault.holds(&name, other.into()).await, Ok(what == "the same"), "{length} bytes, beside {what}");
        }
    }
    let large = vault.put(&name("segments/too-large"), vec![0; limits::OBJECT_BYTES_MAX + 1].into()).await;
    assert!(matches!(large, Err(VaultError::Refused(_))), "{large:?}");
    assert_eq!(vault.head(&name("segments/too-large")).await, Ok(None));
    assert_eq!(vault.list("manifests/", None).await, Ok(Vec::new()), "an empty folder is an empty list");
}

/// An object, and what is not the same.
fn others(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut others = vec![("the same", bytes.to_vec()), ("one byte more", [bytes, &[0]].concat())];
    if let Some((last, before)) = bytes.split_last() {
        others.extend([("one byte less", before.to_vec()), ("another last byte", [before, &[last ^ 1]].concat())]);
        others.push((
            "another byte in the middle",
            bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == bytes.len() / 2)).collect(),
        ));
    }
    others
}

async fn ranges_end_where_the_object_does(vault: &dyn Vault) {
    let whole = bytes(1, 100);
    let name = name("keys/range");
    vault.put(&name, whole.clone().into()).await.expect("it is kept");
    for (range, want) in
        [(0..100, &whole[..]), (0..1, &whole[..1]), (10..20, &whole[10..20]), (90..500, &whole[90..]), (100..200, &[]), (5..5, &[])]
    {
        assert_eq!(vault.get(&name, Some(range.clone())).await.as_deref(), Ok(want), "{range:?}");
    }
    let missing = self::name("keys/none");
    assert_eq!(vault.get(&missing, Some(0..10)).await, Err(VaultError::Gone(missing.clone())));
    assert_eq!(vault.get(&missing, Some(0..0)).await, Err(VaultError::Gone(missing)));
}

async fn nothing_is_ever_replaced(vault: &dyn Vault) {
    for (text, length) in [("manifests/small", 10), ("manifests/large", limits::S3_PART_BYTES + 10)] {
        let (name, first) = (name(text), bytes(1, length));
        vault.put(&name, first.clone().into()).await.expect("it is kept");
        for other in [bytes(2, length), first.clone(), Vec::new()] {
            assert_eq!(vault.put(&name, other.into()).await, Err(VaultError::Exists(name.clone())));
        }
        assert!(vault.get(&name, None).await.expect("it is there") == first, "{name} is what it was");
    }
}

/// Of many who write the same name at the same time, one does.
///
/// # Panics
///
/// With the sentence of what is not so.
pub async fn one_of_many_writers_wins(vault: Arc<dyn Vault>) {
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let vault = Arc::clone(&vault);
        writers.spawn(async move { (writer, vault.put(&name("manifests/race"), bytes(writer, 1_000).into()).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = writers.join_next().await {
        match done.expect("no panic") {
            (writer, Ok(())) => winners.push(writer),
            (_, refused) => assert_eq!(refused, Err(VaultError::Exists(name("manifests/race")))),
        }
    }
    let [winner] = winners.as_slice() else { panic!("{winners:?} have all written the same object") };
    assert_eq!(vault.get(&name("manifests/race"), None).await, Ok(bytes(*winner, 1_000)));
}

async fn lists_are_whole_and_in_order(vault: &dyn Vault) {
    let mut want = BTreeMap::new();
    for number in [0_u64, 1, 2, 9, 10, 11, 255, 256, u64::MAX] {
        let name = name(&format!("snapshots/{number:016x}"));
        vault.put(&name, vec![7; 3].into()).await.expect("it is kept");
        want.insert(name, 3_u64);
    }
    let listed = |page: Vec<Listed>| page.into_iter().map(|listed| (listed.name, listed.bytes)).collect::<Vec<_>>();
    let all: Vec<_> = want.clone().into_iter().collect();
    assert_eq!(vault.list("snapshots/", None).await.map(listed), Ok(all.clone()));
    for (at, (after, _)) in all.iter().enumerate() {
        assert_eq!(vault.list("snapshots/", Some(after)).await.map(listed).as_deref(), Ok(&all[at + 1..]), "behind {after}");
    }
    let between = name("snapshots/00000000000000ab");
    assert_eq!(vault.list("snapshots/", Some(&between)).await.map(listed).as_deref(), Ok(&all[6..]));
    let everything = vault.list("", None).await.expect("a list");
    assert!(everything.is_sorted_by(|one, other| one.name < other.name), "{everything:?}");
    assert!(all.iter().all(|(name, _)| everything.iter().any(|listed| listed.name == *name)));
}

async fn only_the_pruner_removes(vault: &dyn Vault, pruner: &dyn Pruner) {
    let name = name("segments/old");
    vault.put(&name, bytes(1, 10).into()).await.expect("it is kept");
    for _ in 0..2 {
        pruner.delete(&name).await.expect("what is gone is gone");
        assert_eq!((vault.head(&name).await, pruner.vault().head(&name).await), (Ok(None), Ok(None)));
    }
    assert_eq!(vault.get(&name, None).await, Err(VaultError::Gone(name.clone())));
    assert!(vault.list("segments/", None).await.expect("a list").iter().all(|listed| listed.name != name));
    assert!(vault.head(&self::name("manifests/small")).await.expect("an answer").is_some(), "nothing else is gone");
}

/// More objects than a page holds are listed page by page.
///
/// # Panics
///
/// With the sentence of what is not so.
pub async fn long_lists_come_in_pages(vault: &dyn Vault) {
    let count = limits::VAULT_LIST_MAX + 3;
    for number in 0..count {
        vault.put(&name(&format!("segments/{number:016x}")), Vec::new().into()).await.expect("it is kept");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = vault.list("segments/", after.as_ref()).await.expect("a page");
        assert!(page.len() <= limits::VAULT_LIST_MAX);
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page.into_iter().map(|listed| listed.name.to_string()));
    }
    let want: Vec<String> = (0..count).map(|number| format!("segments/{number:016x}")).collect();
    assert_eq!(seen, want);
}
