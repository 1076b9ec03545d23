//! What is safe by what another hub of the store ships: whoever stands by tells it to the devices that are connected here.

use std::collections::BTreeMap;

use mobo_core::ids::{Chain, LaneKey, Seq};
use mobo_core::store::{Cut, StoreError};

use super::gather::lane_end;
use super::marks::LaneId;
use super::standing::read;
use super::state::Cells;

/// A lane as the store has it: whose it is, its last entry, the last one that is safe, its chain.
type LaneRow = (LaneId, i64, i64, Vec<u8>);

/// How far each lane was when it was looked at, until that is safe.
#[derive(Debug, Default)]
pub(super) struct Overheard {
    waiting: BTreeMap<LaneId, (i64, Vec<u8>)>,
    told: BTreeMap<LaneId, i64>,
}

impl Overheard {
    /// Looks at all lanes; gives those that are safe further than it gave before, up to where they were when it looked then or now.
    pub(super) async fn hear(&mut self, cut: &mut dyn Cut) -> Result<Vec<(LaneKey, Seq, Chain)>, StoreError> {
        let names = ["project", "device", "incarnation", "lane", "last", "safe", "chain"];
        let (columns, rows) = read(cut, "lane", &names).await?;
        let mut safe = Vec::new();
        for row in &rows {
            let cells = Cells { columns: &columns, row };
            let lane = (cells.int("project")?, cells.bytes("device")?, cells.int("incarnation")?, cells.int("lane")?);
            safe.extend(self.look((lane, cells.int("last")?, cells.int("safe")?, cells.bytes("chain")?)));
        }
        Ok(safe)
    }

    fn look(&mut self, (lane, last, safe, chain): LaneRow) -> Option<(LaneKey, Seq, Chain)> {
        let told = self.told.get(&lane).copied().unwrap_or(0);
        let waited = self.waiting.get(&lane).filter(|(end, _)| *end <= safe).cloned();
        let end = if last <= safe { Some((last, chain.clone())) } else { waited.clone() };
        if last > safe && (waited.is_some() || !self.waiting.contains_key(&lane)) {
            self.waiting.insert(lane.clone(), (last, chain));
        }
        let (end, chain) = end.filter(|(end, _)| *end > told)?;
        self.told.insert(lane.clone(), end);
        lane_end(&lane, end, &chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_lane_is_told_once_it_is_safe() {
        let mut heard = Overheard::default();
        let lane = (1, vec![7; 16], 1, 0);
        let cases = [
            // Nothing is safe; what was seen then is; more came meanwhile; all of it is; and nothing else.
            (5, 0, None),
            (9, 4, None),
            (9, 5, Some((5, 5))),
            (12, 9, Some((9, 9))),
            (12, 12, Some((12, 12))),
            (12, 12, None),
        ];
        for (last, safe, want) in cases {
            let chain = vec![u8::try_from(last).unwrap(); 32];
            let told = heard.look((lane.clone(), last, safe, chain)).map(|(_, seq, chain)| (seq.get(), chain.0[0]));
            assert_eq!(told, want, "{last} {safe}");
        }
    }
}
