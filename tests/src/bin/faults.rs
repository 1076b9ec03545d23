//! Lists every row of the catalogue of faults with the tests that cover it, or `open`; the last line counts. With words behind it, only the
//! rows whose id begins with one of them: `faults S- K- X-1`.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::Path;

use mobo_tests::faults::{catalogue, covered};

fn main() -> anyhow::Result<()> {
    let families: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let tests = covered(root)?;
    let wanted = |id: &str| families.is_empty() || families.iter().any(|family| id.starts_with(family));
    let (mut rows, mut open) = (0, 0);
    for row in catalogue().into_iter().filter(|row| wanted(row.id)) {
        let covering = tests.get(row.id).map(Vec::as_slice).unwrap_or_default();
        let state = if covering.is_empty() { "open".to_owned() } else { covering.join(", ") };
        println!("{:<6}{}\n      {state}", row.id, row.fault);
        rows += 1;
        open += u32::from(covering.is_empty());
    }
    println!("{rows} rows, {open} open");
    Ok(())
}
