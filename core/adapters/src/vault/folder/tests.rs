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
    vault.put(&name("segments/one"), b"x".to_vec()).await.unwrap();
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
        assert_eq!(vault.put(&name(taken), b"x".to_vec()).await, Err(VaultError::Exists(name(taken))));
    }
    assert!(matches!(vault.put(&name("keys/new"), b"x".to_vec()).await, Err(VaultError::Damaged(_))));
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
    vault.put(&name("segments/one"), b"x".to_vec()).await.unwrap();
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
    vault.put(&name("segments/one"), b"x".to_vec()).await.unwrap();
    files::remove_dir_all(folder.path().join("vault")).unwrap();
    for answer in [vault.get(&name("segments/one"), None).await.map(|_| ()), vault.head(&name("segments/one")).await.map(|_| ())] {
        assert!(matches!(answer, Err(VaultError::Unavailable(_))), "{answer:?}");
    }
    let put = vault.put(&name("segments/two"), b"x".to_vec()).await;
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
        vault.put(&name("segments/small"), vec![1; 1_000]).await.unwrap();
        let full = vault.put(&name("segments/large"), vec![2; 200_000]).await;
        assert!(matches!(full, Err(VaultError::Full(_))), "{full:?}");
        assert_eq!(vault.head(&name("segments/large")).await, Ok(None));
        vault.put(&name("segments/other"), vec![3; 1_000]).await.unwrap();
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
