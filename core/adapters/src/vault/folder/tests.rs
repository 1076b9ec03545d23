use std::fs as files;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap()
}

fn vault() -> (tempfile::TempDir, FolderVault) {
    let folder = tempfile::tempdir().unwrap();
    let vault = FolderVault::open(&folder.path().join("vault")).unwrap();
    (folder, vault)
}

#[tokio::test]
async fn what_is_written_is_for_its_owner_only() {
    let (folder, vault) = vault();
    vault.put(&name("segments/one"), b"x".to_vec().into()).await.unwrap();
    let mode = |path: &str| files::symlink_metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("vault"), mode("vault/segments"), mode("vault/segments/one")), (0o700, 0o700, 0o600));
}

/// Whoever may write into the folder cannot make the hub read or write somewhere else, nor wait for ever.
// faults: B-14
#[tokio::test]
async fn nothing_leads_out_of_the_folder() {
    let (folder, vault) = vault();
    let inside = folder.path().join("vault");
    files::write(folder.path().join("secret"), "not yours").unwrap();
    files::create_dir(inside.join("segments")).unwrap();
    symlink("../../secret", inside.join("segments/link")).unwrap();
    symlink("../..", inside.join("keys")).unwrap();
    files::create_dir(inside.join("segments/folder")).unwrap();
    assert!(Command::new("mkfifo").arg(inside.join("segments/pipe")).status().unwrap().success());
    let large = files::File::create(inside.join("segments/large")).unwrap();
    large.set_len(limits::OBJECT_BYTES_MAX as u64 + 1).unwrap();
    for bad in ["segments/link", "segments/folder", "segments/pipe", "segments/large", "keys/secret"] {
        let got = vault.get(&name(bad), None).await;
        assert!(matches!(got, Err(VaultError::Damaged(_))), "{bad}: {got:?}");
        assert!(matches!(vault.head(&name(bad)).await, Err(VaultError::Damaged(_))), "{bad}");
    }
    for taken in ["segments/link", "segments/folder", "segments/pipe"] {
        assert_eq!(vault.put(&name(taken), b"x".to_vec().into()).await, Err(VaultError::Exists(name(taken))));
    }
    assert!(matches!(vault.put(&name("keys/new"), b"x".to_vec().into()).await, Err(VaultError::Damaged(_))));
    assert!(!folder.path().join("new").exists());
    assert_eq!(files::read_to_string(folder.path().join("secret")).unwrap(), "not yours");
    let listed = vault.list("", None).await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.name.as_str()).collect::<Vec<_>>(), ["segments/large"]);
}

/// What a killed writer leaves is not listed, and goes when the folder is opened next; what somebody writes now stays.
// faults: B-3
#[tokio::test]
async fn half_written_files_are_nobodys_objects() {
    let (folder, vault) = vault();
    vault.put(&name("segments/one"), b"x".to_vec().into()).await.unwrap();
    let path = folder.path().join("vault");
    let (left, written) = (path.join("segments/.partial-1-0"), path.join("segments/.partial-2-0"));
    files::write(&left, "half").unwrap();
    files::write(&written, "half").unwrap();
    let lock = files::File::open(&written).unwrap();
    lock.lock().unwrap();
    assert_eq!(vault.list("", None).await.unwrap().len(), 1);
    FolderVault::open(&path).unwrap();
    assert!(!left.exists() && written.exists());
    drop(lock);
    FolderVault::open(&path).unwrap();
    assert!(!written.exists());
}

/// A disk that is not mounted, or that was pulled out, is away; its objects are not gone.
// faults: B-11
#[tokio::test]
async fn a_folder_that_is_away_is_not_an_empty_one() {
    let (folder, vault) = vault();
    let missing = FolderVault::open(&folder.path().join("no/such"));
    assert!(matches!(missing, Err(VaultError::Unavailable(_))), "{missing:?}");
    let file = folder.path().join("file");
    files::write(&file, "").unwrap();
    assert!(matches!(FolderVault::open(&file), Err(VaultError::Damaged(_))));
    vault.put(&name("segments/one"), b"x".to_vec().into()).await.unwrap();
    files::remove_dir_all(folder.path().join("vault")).unwrap();
    for answer in [vault.get(&name("segments/one"), None).await.map(|_| ()), vault.head(&name("segments/one")).await.map(|_| ())] {
        assert!(matches!(answer, Err(VaultError::Unavailable(_))), "{answer:?}");
    }
    let listed = vault.list("", None).await;
    assert!(matches!(listed, Err(VaultError::Unavailable(_))), "{listed:?}");
    let put = vault.put(&name("segments/two"), b"x".to_vec().into()).await;
    assert!(matches!(put, Err(VaultError::Unavailable(_))), "{put:?}");
}

#[test]
fn each_failure_says_what_to_do_next() {
    for (errno, kind) in [
        (Errno::NOSPC, "full"),
        (Errno::DQUOT, "full"),
        (Errno::FBIG, "full"),
        (Errno::ROFS, "refuses"),
        (Errno::ACCESS, "refuses"),
        (Errno::PERM, "refuses"),
        (Errno::IO, "not available"),
        (Errno::NODEV, "not available"),
        (Errno::STALE, "not available"),
        (Errno::LOOP, "damaged"),
    ] {
        assert!(failed("cannot", errno).to_string().contains(kind), "{errno:?}");
    }
}

/// A full disk costs the object that does not fit, and nothing else: a process of its own, which may write files of 64 KiB only.
// faults: B-11
#[tokio::test]
async fn a_full_disk_leaves_no_part_of_an_object() {
    const CHILD: &str = "MOBO_TEST_FULL_VAULT";
    if let Some(path) = std::env::var_os(CHILD) {
        let vault = FolderVault::open(Path::new(&path)).unwrap();
        vault.put(&name("segments/small"), vec![1; 1_000].into()).await.unwrap();
        let full = vault.put(&name("segments/large"), vec![2; 200_000].into()).await;
        assert!(matches!(full, Err(VaultError::Full(_))), "{full:?}");
        assert_eq!(vault.head(&name("segments/large")).await, Ok(None));
        vault.put(&name("segments/other"), vec![3; 1_000].into()).await.unwrap();
        return;
    }
    let (folder, vault) = vault();
    // Ignored signals are inherited: instead of being killed, the child is told that the file would be too large.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -f 128; exec "$0" --exact vault::folder::tests::a_full_disk_leaves_no_part_of_an_object"#]);
    let output = shell.arg(std::env::current_exe().unwrap()).env(CHILD, folder.path().join("vault")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let names: Vec<_> = vault.list("", None).await.unwrap().into_iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(names, ["segments/other", "segments/small"]);
    assert_eq!(files::read_dir(folder.path().join("vault/segments")).unwrap().count(), 2);
}

/// A disk that does not answer keeps as many threads as there may be, and no more: everything else in the process goes on.
// faults: B-11
#[tokio::test]
async fn a_disk_that_hangs_keeps_a_few_threads_only() {
    let (_folder, vault) = vault();
    let (hang, hangs) = std::sync::mpsc::sync_channel::<()>(1);
    let hangs = Arc::new(std::sync::Mutex::new(hangs));
    let begun = Arc::new(AtomicU64::new(0));
    for _ in 0..10 * limits::VAULT_THREADS_MAX {
        let (hangs, begun) = (Arc::clone(&hangs), Arc::clone(&begun));
        let asked = vault.run(move |_| {
            begun.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.lock().unwrap().recv();
            Ok(())
        });
        // Whoever asks gives up; its work has begun then, or never will.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), asked).await.is_err());
    }
    drop(hang);
    // Once the disk answers, all seats are free again.
    let seats = vault.threads.acquire_many(limits::VAULT_THREADS_MAX as u32).await.unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), limits::VAULT_THREADS_MAX as u64);
    drop(seats);
    assert_eq!(vault.list("", None).await.unwrap(), []);
}

/// What is in the folder besides a repository is somebody else's: on the root of a disk there is a folder that nobody may look into.
#[tokio::test]
async fn the_folders_of_others_are_not_looked_into() {
    let (folder, vault) = vault();
    let path = folder.path().join("vault");
    vault.put(&name("segments/one"), b"x".to_vec().into()).await.unwrap();
    files::create_dir(path.join("lost+found")).unwrap();
    files::create_dir(path.join("photos")).unwrap();
    files::write(path.join("photos/one"), "not an object").unwrap();
    // To whoever may look into everything, a folder of another kind shows it as well.
    files::set_permissions(path.join("lost+found"), files::Permissions::from_mode(0o000)).unwrap();
    let vault = FolderVault::open(&path).unwrap();
    assert_eq!(vault.list("", None).await.unwrap().iter().map(|listed| listed.name.as_str()).collect::<Vec<_>>(), ["segments/one"]);
}

/// A list is whole and in order, however many names are kept for its next page; what comes meanwhile may be in it or not.
#[tokio::test]
async fn a_long_list_is_read_in_pages() {
    let (folder, vault) = vault();
    let place = folder.path().join("vault/manifests");
    files::create_dir(&place).unwrap();
    let count = 2 * limits::VAULT_LIST_MAX + 5;
    for number in 0..count {
        files::write(place.join(format!("{number:016x}")), "x").unwrap();
    }
    let (mut all, mut pages) = (Vec::<Listed>::new(), 0);
    loop {
        let page = vault.list("manifests/", all.last().map(|listed| &listed.name)).await.unwrap();
        if page.is_empty() {
            break;
        }
        // Another list in between has a folder looked through again, and changes nothing.
        assert_eq!(vault.list("segments/", None).await.unwrap(), []);
        pages += 1;
        all.extend(page);
    }
    assert_eq!((all.len(), pages), (count, 3));
    assert!(all.is_sorted_by(|one, next| one.name < next.name));
    let (first, second) = (&all[0].name, &all[limits::VAULT_LIST_MAX - 1].name);
    vault.list("manifests/", None).await.unwrap();
    files::remove_file(place.join(format!("{:016x}", limits::VAULT_LIST_MAX))).unwrap();
    let next = vault.list("manifests/", Some(second)).await.unwrap();
    assert_eq!((next.len(), next[0].name.as_str()), (limits::VAULT_LIST_MAX, "manifests/00000000000003e9"));
    assert_eq!(vault.list("manifests/", Some(first)).await.unwrap().len(), limits::VAULT_LIST_MAX);
}
