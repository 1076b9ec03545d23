//! Limits of backups.

/// Longest name of an object in a vault.
pub const OBJECT_NAME_BYTES_MAX: usize = 128;
/// Largest object in a vault.
pub const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Objects in one page of a vault's list.
pub const VAULT_LIST_MAX: usize = 1_000;
/// Largest body of a segment or of a part of a snapshot, before it is packed: whoever opens one holds it in memory.
pub const BACKUP_BODY_BYTES_MAX: usize = 7 * 1024 * 1024;
/// Bytes of rows after which a body is sealed. What one row may add to them still fits [`BACKUP_BODY_BYTES_MAX`].
pub const BACKUP_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of packed rows after which a page of them ends: what the next row adds still fits [`BACKUP_BODY_BYTES_MAX`].
pub const PACKED_BYTES: usize = 512 * 1024;
/// Pages of packed rows whose memory waits for the next ones: those of one body.
pub const PACKED_ROOMS_MAX: usize = BACKUP_BODY_BYTES / PACKED_BYTES + 1;
/// Bytes after which a part of a snapshot may end, where its last row says so: parts then end at the same rows in the next snapshot.
pub const BACKUP_PART_BYTES_MIN: usize = 256 * 1024;
/// Parts of a snapshot of one size: the next ones are twice as large, so that one manifest can name them all.
pub const BACKUP_PARTS_OF_A_SIZE: usize = 10_000;
/// Columns of one table in a backup.
pub const BACKUP_COLUMNS_MAX: usize = 1_024;
/// Objects of one manifest.
pub const BACKUP_MEMBERS_MAX: usize = 60_000;
/// Names that are tried for a part whose own name is taken by what cannot be read.
pub const BACKUP_NAMES_MAX: u64 = 4;
/// Keyrings of writers that were cut short, which one that goes on adopts.
pub const BACKUP_KEYRINGS_LEFT_MAX: usize = 8;
/// Manifests that were about to be written which a store knows again.
pub const BACKUP_TRIED_MAX: usize = 64;
/// How long after another hub of its store has shipped a hub leaves that to it.
pub const BACKUP_BESIDE: std::time::Duration = std::time::Duration::from_secs(15);
/// How long one that was asked for something waits until another hub of its store has ended its turn: less than a command waits.
pub const BACKUP_TURN_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a hub may keep its turn at the backups without a word to the store; a shipment that takes longer goes on without it, and finds out
/// whether another hub has been faster.
pub const BACKUP_TURN_IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(600);
/// How long a hub waits for its turn before it says that nothing it holds becomes safe.
pub const BACKUP_TURN_LONG: std::time::Duration = std::time::Duration::from_secs(900);
/// How often one shipment begins again behind what other hubs of its store have written meanwhile.
pub const BACKUP_GOES_MAX: usize = 4;
/// How long after a snapshot that did not come about the schedule has to wait for the next one: what is new goes first.
pub const BACKUP_SNAPSHOT_RETRY: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// Snapshots below the floor that one repository keeps, and those under a hold.
pub const BACKUP_POINTS_MAX: usize = 10_000;
/// Data keys of one repository; and the keys of projects, and those that were destroyed, each.
pub const BACKUP_KEYS_MAX: usize = 10_000;
/// Damages that a verification names.
pub const BACKUP_DAMAGES_MAX: usize = 100;
/// How often what is new is shipped.
pub const BACKUP_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of merged payload after which what is new is shipped before its second is over.
pub const BACKUP_EVERY_BYTES: u64 = 256 * 1024;
/// After how many of them it is looked whether there are so many: a batch is far smaller.
pub const BACKUP_STEP_BYTES: u64 = BACKUP_EVERY_BYTES / 8;
/// A shipment that takes longer than this is not hurried: the next one waits for its second, and packs better.
pub const BACKUP_HURRY_MAX: std::time::Duration = std::time::Duration::from_millis(50);
/// Changes of documents whose shipping is remembered, all documents together.
pub const BACKUP_CHANGES_MAX: usize = 100_000;
/// Records of one device that a partial restore takes: their keys are held in memory.
pub const RESTORE_RECORDS_MAX: usize = 1_000_000;
/// How long `device revoke` waits until the revocation is safe.
pub const REVOCATION_SAFE: std::time::Duration = std::time::Duration::from_secs(10);
/// How often tables that change without a merge are looked at.
pub const BACKUP_LOOK: std::time::Duration = std::time::Duration::from_secs(5);
/// How often what only says when somebody was seen is shipped.
pub const BACKUP_IDLE: std::time::Duration = std::time::Duration::from_secs(60);
/// Pause after the vault has failed, at first and at most.
pub const BACKUP_RETRY_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// The longest such pause.
pub const BACKUP_RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest wait for one answer of a vault.
pub const VAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);
/// Segments after which a new snapshot is due: a restore applies them one by one.
pub const BACKUP_SEGMENTS_MAX: u64 = 20_000;
/// How long a hub that stops ships what is new, at most: less than it has for its stop.
pub const BACKUP_LAST: std::time::Duration = std::time::Duration::from_secs(6);
/// Answers of a folder that are waited for at the same time: a disk that hangs holds no more threads than these.
pub const VAULT_THREADS_MAX: usize = 4;
/// Names of a folder's objects that are kept for the next pages of a list.
pub const VAULT_NAMES_MAX: usize = 64_000;
/// How often somebody looks whether a drill is due.
pub const DRILL_LOOK: std::time::Duration = std::time::Duration::from_secs(5);
/// How much larger than its objects a database may be that is restored from them.
pub const DRILL_BYTES_FACTOR: u64 = 8;
/// Reports of drills that are kept.
pub const DRILL_REPORTS_MAX: usize = 50;
/// Longest report of a drill.
pub const DRILL_REPORT_BYTES_MAX: u64 = 64 * 1024;

const ROW_BYTES_MAX: usize = 2 * super::DOCUMENT_BYTES_MAX + super::ENTRY_PAYLOAD_BYTES_MAX;
const _: () = assert!(BACKUP_BODY_BYTES + PACKED_BYTES + ROW_BYTES_MAX < BACKUP_BODY_BYTES_MAX);
const _: () = assert!(BACKUP_BODY_BYTES_MAX < OBJECT_BYTES_MAX);
const _: () = assert!(BACKUP_LAST.as_millis() < super::STOP_TIMEOUT.as_millis());
