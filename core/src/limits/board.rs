//! The limits of the board: its parts, its bus, its self-test.

use std::time::Duration;

use super::REVOCATION_MAX;

// kernel
/// Parts of one board.
pub const COMPONENTS_MAX: usize = 64;
/// Longest power-on self-test of one part.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest load of one part: it may have to migrate a database.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest start of one part.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest stop of one part.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest stop of the whole board; parts that are still to be stopped then are cut.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest check of a store after the node was not shut down cleanly; a store that is not through by then is no worse for it.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest attempt of a part to mend itself before it is restarted.
pub const RECOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest swap of what fills a socket while the board runs.
pub const SWAP_TIMEOUT: Duration = Duration::from_secs(30);
/// After this long the log names what holds a part's stop open.
pub const STOP_NOTICE: Duration = Duration::from_secs(2);
/// Longest wait for subscribers to hear the last events once every part has stopped.
pub const BUS_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Reports of parts that wait for the board.
pub const BOARD_QUEUE_MAX: usize = 64;
/// Commands of operators on parts that wait for their end.
pub const COMMANDS_MAX: usize = 16;

/// First pause before a failed part is started again; each further failure doubles it.
pub const RESTART_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest such pause.
pub const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);
/// So many failures of one part within [`RESTART_WINDOW`] open its circuit.
pub const RESTART_FAILURES_MAX: usize = 8;
/// See [`RESTART_FAILURES_MAX`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(600);
/// A part that has run for this long without a failure begins again with short pauses.
pub const RESTART_STEADY: Duration = Duration::from_secs(60);
/// An open circuit is tried once after this long: in the field nobody may be there to close it.
pub const CIRCUIT_RETRY: Duration = Duration::from_secs(900);
/// After a power cut a device waits up to this long before its first connection, so that a street does not come back in one moment.
pub const POWER_RETURN_STAGGER: Duration = Duration::from_secs(5);
/// Health changes of one part in one minute, whatever it does, with the default thresholds.
pub const HEALTH_CHANGES_PER_MINUTE_MAX: usize = 6;

/// Topics of one bus.
pub const TOPICS_MAX: usize = 128;
/// Subscribers of one bus.
pub const SUBSCRIBERS_MAX: usize = 64;
/// Events that one subscriber may have waiting, unless it asks for less.
pub const SUBSCRIBER_QUEUE_MAX: usize = 256;
/// Events that the bus keeps for those who come later.
pub const EVENT_HISTORY_MAX: usize = 512;
/// Longest run of one handler for one event.
pub const EVENT_HANDLER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest text in an event; the rest is cut off.
pub const EVENT_TEXT_BYTES_MAX: usize = 512;

// caches
/// Verified API keys that a hub keeps in memory.
pub const KEY_CACHE_MAX: usize = 1_024;
/// How long it believes one without asking the store: another hub on the same store may have revoked it.
pub const KEY_CACHE_TTL: Duration = REVOCATION_MAX;
/// How often a hub looks for what others of its store have changed for its sessions: less than [`REVOCATION_MAX`] by what ending one takes.
pub const ELSEWHERE_LOOK: Duration = Duration::from_secs(2);

// power-on self-test
/// Free space under which a node does not start.
pub const DISK_FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Free space under which it says so.
pub const DISK_FREE_BYTES_LOW: u64 = 256 * 1024 * 1024;
