//! Looks at a whole repository, without restoring it.

use mobo_core::backup::verify::{Scope, Verdict, Verify, Want};

use super::repository::{answer, get, newest_number};
use super::{BackupFailure, Repository};

/// Verifies a repository. `progress` hears what was found so far, after each manifest and object.
///
/// # Errors
///
/// The vault's. What is wrong with the repository is in the verdict.
pub async fn verify(repository: &Repository, scope: Scope, mut progress: impl FnMut(&Verdict)) -> Result<Verdict, BackupFailure> {
    let vault = repository.vault().as_ref();
    let known = scope.known.iter().map(|known| known.number).max().unwrap_or(0);
    let newest = newest_number(vault, known).await?;
    let mut verify = Verify::new(repository.keyring(), newest, scope);
    while let Some(want) = verify.want() {
        match want {
            Want::Bytes(name) => verify.bytes(get(vault, &name).await?.as_deref()),
            Want::Size(name) => verify.size(answer(vault.head(&name)).await?),
        }
        progress(verify.verdict());
    }
    Ok(verify.verdict().clone())
}
