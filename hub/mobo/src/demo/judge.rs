//! The judge: a process of its own that keeps its own list of what was acknowledged, and at the end holds it against what every node
//! shows through its API and what stands in its database.

mod database;
mod evidence;
mod rules;

use std::fs::File;
use std::io::{BufReader, BufWriter, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cluster::{self, HUB};
use super::journal::{self, Entry, Outcome, Written};

/// Where to look; the last line of the journal.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Case {
    /// All nodes, the hub first.
    pub(super) nodes: Vec<Witness>,
}

/// One node, as the judge finds it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Witness {
    /// Its name in the journal.
    pub(super) name: String,
    /// Its data folder.
    pub(super) folder: PathBuf,
    /// Its id.
    pub(super) device: String,
    /// Its API.
    pub(super) http: std::net::SocketAddr,
    /// The key for it, where one is needed.
    pub(super) key: Option<String>,
    /// Its database.
    pub(super) database: Database,
}

/// Where a node keeps its rows.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres database, by its URL.
    Postgres(String),
}

/// What the judge found.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// Acknowledged writes to records.
    pub(super) records: u64,
    /// Acknowledged samples.
    pub(super) samples: u64,
    /// Writes whose outcome nobody knows.
    pub(super) unknown: u64,
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There more often than written.
    pub(super) duplicated: u64,
    /// Records that two nodes show differently, or that nobody wrote.
    pub(super) differing: u64,
    /// Decisions on the hub's ledger.
    pub(super) conflicts: u64,
    /// Digests and chains that were recomputed from rows and entries, all nodes together.
    pub(super) recomputed: u64,
    /// Rows that were compared, in all APIs and databases.
    pub(super) compared: u64,
    /// What is wrong, as sentences; the first of it.
    pub(super) findings: Vec<String>,
    /// What is wrong with the health of the nodes: stored digests that do not fit the rows, digests that are not equal.
    pub(super) unhealthy: Vec<String>,
}

impl Verdict {
    /// True when all nodes hold the same, and say so rightly.
    pub(super) fn converged(&self) -> bool {
        self.differing == 0 && self.unhealthy.is_empty()
    }
}

/// Keeps the journal that comes in, and judges at its end. The verdict is printed as one line.
pub(super) fn sit(copy: &Path) -> anyhow::Result<()> {
    let file = File::create(copy).with_context(|| format!("cannot write {}", copy.display()))?;
    let (entries, last) = journal::follow(BufReader::new(stdin().lock()), BufWriter::new(file))?;
    let case: Case = serde_json::from_str(&last).context("the last line of the journal is no case")?;
    let verdict = judge(&entries, &case)?;
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(())
}

fn judge(entries: &[Entry], case: &Case) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for entry in entries {
        let count = match (entry.outcome, &entry.write) {
            (Outcome::Unknown, _) => &mut verdict.unknown,
            (Outcome::Acknowledged, Written::Record { .. }) => &mut verdict.records,
            (Outcome::Acknowledged, Written::Sample(_)) => &mut verdict.samples,
        };
        *count += 1;
    }
    let mut views = Vec::new();
    for node in &case.nodes {
        views.push(evidence::api(node, &case.nodes).with_context(|| format!("cannot read the API of {}", node.name))?);
        views.push(database::view(node, &case.nodes).with_context(|| format!("cannot read the database of {}", node.name))?);
    }
    let rows = |view: &rules::View| {
        let records: usize = view.records.values().map(std::collections::BTreeMap::len).sum();
        records as u64 + view.samples.values().flat_map(|samples| samples.values()).sum::<u64>()
    };
    verdict.compared = views.iter().map(rows).sum();
    let hub = case.nodes.iter().find(|node| node.name == HUB).context("no hub in the case")?;
    let ledger = evidence::ledger(hub).context("cannot read the conflict ledger")?;
    verdict.conflicts = ledger.len() as u64;
    let count = rules::count(entries, &views, &ledger);
    (verdict.lost, verdict.duplicated, verdict.differing) = (count.lost, count.duplicated, count.differing);
    verdict.findings = count.findings;
    health(case, &mut verdict)?;
    Ok(verdict)
}

/// Has every node recompute its digests from its rows, and compares what comes out.
fn health(case: &Case, verdict: &mut Verdict) -> anyhow::Result<()> {
    let mut digests: Vec<(String, String, String)> = Vec::new();
    for node in &case.nodes {
        let report = cluster::ask(&node.folder, "health check").with_context(|| format!("{} cannot check its health", node.name))?;
        let checks = report.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for check in checks {
            let text = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if check.get("ok") != Some(&Value::Bool(true)) {
                verdict.unhealthy.push(format!("{}: {}: {}", node.name, text("name"), text("detail")));
            }
            if check.get("computed").is_some() {
                digests.push((node.name.clone(), text("bucket"), text("computed")));
            }
        }
        verdict.recomputed += checks.len().saturating_sub(1) as u64;
        if report.get("ok") != Some(&Value::Bool(true)) && verdict.unhealthy.is_empty() {
            verdict.unhealthy.push(format!("{} says that it is not healthy", node.name));
        }
    }
    verdict.unhealthy.extend(unequal(&digests));
    Ok(())
}

/// Sentences for the buckets of the hub that another node does not hold alike; (node, bucket, digest), the hub's first.
fn unequal(digests: &[(String, String, String)]) -> Vec<String> {
    let of_hub = digests.iter().filter(|(node, ..)| node == HUB);
    let mut sentences = Vec::new();
    for (_, bucket, digest) in of_hub {
        for (node, _, other) in digests.iter().filter(|(_, other, computed)| other == bucket && computed != digest) {
            sentences.push(format!("bucket {bucket}: the hub's rows give {digest}, those of {node} {other}"));
        }
    }
    if digests.is_empty() {
        sentences.push("no digest could be recomputed".to_owned());
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_must_be_equal() {
        let row = |node: &str, digest: &str| (node.to_owned(), "all".to_owned(), digest.to_owned());
        assert_eq!(unequal(&[row(HUB, "aa"), row("one", "aa"), row("two", "aa")]), Vec::<String>::new());
        let found = unequal(&[row(HUB, "aa"), row("one", "aa"), row("two", "bb")]);
        assert_eq!(found, ["bucket all: the hub's rows give aa, those of two bb"]);
        assert_eq!(unequal(&[]).len(), 1);
    }
}
