//! `mobo demo`, as a stranger runs it: real processes, and a judge who counts.
//!
//! faults: N-1

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_tests::cli::{Cli, Outcome};
use mobo_tests::postgres::Database;
use mobo_tests::process::binary;

/// A debug build takes some 25 s on two quiet cores, and four times that where others build and test beside it.
const TIMEOUT: Duration = Duration::from_secs(240);

fn demo(args: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let cli = Cli::program(binary("mobo")).args(["demo", "--json"]).args(args).env("TMPDIR", folder.path().to_str().unwrap());
    let outcome = cli.timeout(TIMEOUT).run();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "the demo leaves nothing behind: {left:?}");
    outcome
}

#[track_caller]
fn check(args: &[&str]) {
    let outcome = demo(args).expect_success();
    let summary = outcome.json();
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
    assert_eq!((&summary["converged"], &summary["lost"], &summary["duplicated"]), (&true.into(), &0.into(), &0.into()), "{summary}");
    assert!(summary["acknowledged"].as_u64().unwrap() >= 2_000, "{summary}");
    // Three people gave each of 200 orders to somebody: two of them lost, each time.
    assert!(summary["conflicts"].as_u64().unwrap() >= 380, "{summary}");
    assert!(summary["seconds"].as_f64().unwrap() > 0.0, "{summary}");
    for told in ["BOTH LINKS ARE CUT", "IS KILLED", "THE LINKS ARE HEALED", "WRITTEN BY"] {
        assert!(outcome.stderr.contains(told), "{told} is not told:\n{}", outcome.stderr);
    }
}

#[test]
fn nothing_is_lost_on_sqlite() {
    check(&[]);
}

#[test]
fn nothing_is_lost_on_postgres() {
    let database = Database::fresh();
    check(&["--store", &database.url()]);
}

/// Goal: the scene of a lost hub ends with everything back, as a newcomer sees it.
// faults: B-1
#[test]
fn a_lost_hub_comes_back() {
    let outcome = demo(&["restore"]).expect_success();
    assert_eq!((&outcome.json()["records"], &outcome.json()["restored"]["left_out"]), (&21.into(), &0.into()), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("THE HUB IS LOST"), "{}", outcome.stderr);
}

#[test]
fn a_store_that_cannot_be_used_is_told_plainly() {
    let outcome = demo(&["--store", "postgres://nobody@127.0.0.1:1/nothing"]).expect_code(1);
    assert_eq!(outcome.json()["converged"], false);
    assert!(outcome.stderr.contains("hub ended while it booted") && outcome.stderr.contains("Postgres"), "{}", outcome.stderr);
    let outcome = demo(&["--store", "mysql://x"]).expect_code(2);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("postgres://"), "{}", outcome.stderr);
}
