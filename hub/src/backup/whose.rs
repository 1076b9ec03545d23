//! Whether a repository is this hub's own, and all of it.

use mobo_core::backup::keys::parse_name;
use mobo_core::backup::manifest::{Anchor, Manifest};
use mobo_core::ids::ProjectId;
use mobo_core::trust::KeyPair;

use super::{BackupFailure, Repository};

/// The repository is of this hub and project.
pub(super) fn belongs(repository: &Repository, project: ProjectId, keys: &KeyPair) -> Result<(), BackupFailure> {
    let keyring = repository.keyring();
    let what = if keyring.project != project {
        format!("it holds the project {}, and this hub has {project}", keyring.project)
    } else if keyring.hub.public() != keys.public() {
        format!("it belongs to the hub {}, and this one is {}", keyring.hub.public(), keys.public())
    } else {
        return Ok(());
    };
    Err(BackupFailure::Refused(format!(
        "the vault {} is not for this hub: {what}; give each hub a vault of its own",
        repository.vault().place()
    )))
}

/// The newest manifest was written under this hub's backup key, or under one that came before it. What goes on under an older key gives out
/// data keys, and takes some away, in keyrings that nobody finds who has the newer one.
pub(super) fn of_this_key(repository: &Repository, head: &Manifest) -> Result<(), BackupFailure> {
    let (own, theirs) = (parse_name(repository.keys()), parse_name(&head.keys));
    let Some(((_, own), (_, theirs))) = own.zip(theirs).filter(|(own, theirs)| own.1 != theirs.1 && theirs.0 >= own.0) else {
        return Ok(());
    };
    Err(BackupFailure::Refused(format!(
        "the newest backup at {}, number {}, was made under the backup key {theirs}, and this hub has {own}: another hub of this store has \
         changed it, or this one was stopped while it did. Put the backup.key of that hub, or the backup.key.next that is here, in place of \
         the one here, and start this hub again; or go on under this one with `mobo-hub \
         backup create --anew`. Until then nothing new is safe",
        repository.vault().place(),
        head.number,
    )))
}

/// The newest manifest is where the hub has written it.
pub(super) async fn still_there(repository: &Repository, anchor: &Anchor) -> Result<(), BackupFailure> {
    let place = repository.vault().place();
    match repository.manifest(anchor.number).await? {
        Some((there, _)) if there == *anchor => Ok(()),
        Some(_) | None => Err(rolled_back(&place, *anchor, 0)),
    }
}

/// There is none where the hub has written one.
pub(super) fn vanished(place: &str, anchor: Anchor) -> BackupFailure {
    BackupFailure::Refused(format!(
        "the repository at {place} is gone: this hub wrote the manifest {anchor} there. Bring it back, or begin a new one with \
         `mobo-hub backup create --anew`; until then nothing new is safe"
    ))
}

/// It has not what the hub has written last.
pub(super) fn rolled_back(place: &str, anchor: Anchor, newest: u64) -> BackupFailure {
    let newest = if newest == 0 { "it is not there".to_owned() } else { format!("the newest one there is {newest}") };
    BackupFailure::Refused(format!(
        "the repository at {place} has gone back: this hub wrote the manifest {anchor}, and {newest}. Bring it back, or go on from what is \
         there with `mobo-hub backup create --anew`; until then nothing new is safe"
    ))
}

/// The newest manifest is of a history that this hub does not come from.
pub(super) fn foreign(place: &str, (anchor, head): (Anchor, &Manifest)) -> BackupFailure {
    let (number, timeline) = (anchor.number, head.timeline);
    BackupFailure::Refused(format!(
        "the newest backup at {place}, number {number}, is of the timeline {timeline}, and this hub does not go on from that: another hub that has \
         its keys ships there, a copy of its data folder or one that was restored. Stop that one, or give it a vault of its own; then go on \
         here with `mobo-hub backup create --anew`. Until then nothing new is safe"
    ))
}

/// Somebody has written a manifest that this hub has neither written nor heard of.
pub(super) fn written_twice(place: &str, anchor: Anchor) -> BackupFailure {
    BackupFailure::Refused(format!(
        "the backup {anchor} at {place} was written by somebody else while this hub ran: another hub that has its keys ships there. Stop that \
         one, or give it a vault of its own; then go on here with `mobo-hub backup create --anew`. Until then nothing new is safe"
    ))
}

/// This hub is a copy, and the vault has more than the copy.
pub(super) fn older_copy(place: &str, anchor: Anchor) -> BackupFailure {
    BackupFailure::Refused(format!(
        "this data folder is a copy of another one, and the vault {place} has a newer state of it, the backup {anchor}: the hub that it was \
         copied from may still ship there. Give this one a vault of its own; or, if that hub is gone for good, bring back the newer state with \
         `mobo-hub restore`, or go on from this one with `mobo-hub backup create --anew`. Until then nothing new is safe"
    ))
}
