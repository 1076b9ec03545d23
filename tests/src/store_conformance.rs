//! What every hub store must do, whatever is underneath: one suite for SQLite and Postgres.
//!
//! A store comes as a [`Place`]: somewhere to open it, again and again, and to look at its tables with plain SQL. `store_conformance!`
//! makes one test of each case.
//!
//! ```ignore
//! mod sqlite {
//!     mobo_tests::store_conformance!(crate::sqlite_place);
//! }
//! ```

#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a case that cannot go on has failed")]
pub mod cases;
#[expect(clippy::indexing_slicing, reason = "tests: a case that cannot go on has failed")]
mod device;
#[expect(clippy::indexing_slicing, reason = "tests: a case that cannot go on has failed")]
mod world;

use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::store::{HubStore, StoreError};

pub use device::{Device, samples};
pub use world::World;

/// Where a store is kept during a test. Dropping it removes everything.
pub trait Place: std::fmt::Debug + Send + Sync {
    /// Opens the store there; what was written before is in it.
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn HubStore>, StoreError>>;

    /// Runs one SQL statement as anybody with an SQL tool would, and gives the first column of its first row as text, if it has any.
    ///
    /// `{own}` stands in front of the names of mobo's own tables.
    fn sql<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Option<String>, String>>;

    /// The same, by somebody who repairs by hand: the tables of collections take writes.
    fn repair<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// One test for each case of the suite. Takes a function that gives a fresh [`Place`].
#[macro_export]
macro_rules! store_conformance {
    ($place:expr) => {
        $crate::store_conformance!(@ $place;
            collections: have_plain_tables, have_names_of_their_own, know_their_buckets;
            merging: gives_rows_documents_and_samples, is_idempotent, refuses_what_does_not_continue, hides_and_revives,
                quarantines_and_goes_on, applies_a_provenance_once, notes_conflicts, keeps_unknown_fields, writes_for_the_hub_itself,
                starts_a_new_log_above_its_parent, runs_from_many_sides_at_once;
            ledger: names_each_loser_of_a_document_once, names_both_sides_of_a_delete, is_read_in_pages, knows_who_wrote_a_document;
            pulling: gives_the_same_from_any_cursor, moves_records_between_buckets, keeps_to_its_limits, tells_of_the_youngest_logs;
            offers: keep_a_deletion_where_it_is_offered, are_judged_by_the_timelines_that_are_named, begin_what_comes_behind_them,
                count_once_what_a_copy_has_authored_again;
            changing: grants_come_and_go, rights_are_judged_before_and_after, rules_change_in_batches, fields_change_and_rows_stay,
                refused_entries_are_retried_or_dropped, what_a_refused_change_blocks_follows_it;
            fleet: hub_and_time_are_kept, invitations_are_used_once, hellos_are_numbered, boots_and_logs_are_bounded,
                api_keys_are_found_by_their_hash;
            reading: filters_orders_and_counts, compares_as_bytes_and_numbers, reads_samples_in_order;
            bounds: hold_where_the_row_is_locked;
            written: is_taken_in, is_placed_by_new_rules, ends_a_page_while_it_waits, counts_twice_when_it_says_so_twice,
                is_counted_when_it_is_refused, is_shown_without_a_state_while_it_waits, is_in_no_backup_while_it_waits;
            backing: notes_what_was_tried, knows_how_far_it_is, gives_packed_rows_like_any_others;
            past: is_told_from_the_log, is_traced_in_steps;
            live: tells_each_change_once, knows_what_it_does_not_hold, is_in_order_from_many_sides;
            auditing: recomputes_what_random_schedules_leave, finds_one_changed_value, finds_a_broken_chain, keeps_everything_when_reopened;
        );
    };
    (@ $place:expr; $($group:ident: $($case:ident),*;)*) => {
        $(mod $group {
            #[allow(unused_imports)]
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store_conformance::cases::$group::$case(Box::new($place())).await;
            })*
        })*
    };
}
