//! Writes through the hub's own API: authored inside the merge, with their records locked, so that nobody else's write comes between what
//! the caller's edit is measured against and what it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admit::AdmittedEntry;
use super::apply::Run;
use super::prepare::prepare_entry;
use super::time::{Decided, LaneTime};
use super::{LocalBody, LocalWrite, Merged, Outcome, Rights};
use crate::author::{self, Intent, RecordOp};
use crate::document;
use crate::engine::Author;
use crate::entry::{Entry, Header, chain_next};
use crate::ids::{RecordKey, Seq, Ver};
use crate::message::Code;
use crate::record::RecordState;
use crate::schema::Kind;
use crate::table;

impl Run<'_> {
    /// Authors a write of the hub itself, with its records locked, and applies it at once. All or nothing.
    pub(super) fn local(&mut self, write: LocalWrite, author: &Author) -> Outcome {
        let Some(lane) = self.lanes.get(&write.lane).cloned() else {
            return Outcome::Nack { expect: Seq::FIRST, code: Code::INTERNAL };
        };
        let mut merged = Merged {
            acked: lane.last.unwrap_or(Seq::FIRST),
            chain: lane.chain,
            eff_first: Seq::after(lane.last),
            effs: Vec::new(),
            rejects: Vec::new(),
            changed: Vec::new(),
        };
        let (engine, payload) = match self.local_payload(&write, author, &mut merged.changed) {
            Ok(Some((engine, payload))) => match author::check_size(payload) {
                Ok(payload) => (engine, payload),
                Err(error) => return Outcome::Refused(error),
            },
            Ok(None) => return Outcome::Merged(merged),
            Err(error) => return Outcome::Refused(error),
        };
        let header = Header {
            engine: engine.code(),
            moment: write.moment,
            nonce: write.nonce,
            timeline: Some(self.context.timeline.short()),
            provenance: None,
            life: None,
        };
        let entry = Entry::seal(&header, payload);
        let seq = Seq::after(lane.last);
        let chain = chain_next(lane.chain, &entry);
        let prepared = Arc::new(prepare_entry(seq, entry, chain));
        let eff = self.context.now.max(lane.time.eff.plus(1));
        if let Some(state) = self.lanes.get_mut(&write.lane) {
            state.time = LaneTime { eff, clock: Some((write.moment.boot, write.moment.mono)) };
            (state.last, state.chain) = (Some(seq), chain);
        }
        let decided = Decided { eff, uncertain: None };
        let admitted = AdmittedEntry { prepared, decided, lane_before: lane.time.eff, is_shared: true };
        (merged.acked, merged.chain) = (seq, chain);
        merged.effs.push(eff);
        merged.rejects.extend(self.entry(&write.lane, author, &Rights::All, admitted));
        Outcome::Merged(merged)
    }

    fn local_payload(
        &self,
        write: &LocalWrite,
        author: &Author,
        changed: &mut Vec<RecordKey>,
    ) -> Result<Option<(Kind, Vec<u8>)>, author::EditError> {
        let gone = || author::EditError::Refused("the collection does not exist any more".to_owned());
        if let LocalBody::Append(segment) = &write.body {
            let collection = self.context.schema.get(write.collection).ok_or_else(gone)?;
            let refused = |error: crate::stream::BadSegment| author::EditError::Refused(error.to_string());
            return segment.encode(collection).map(|payload| Some((Kind::Stream, payload))).map_err(refused);
        }
        let (mut rows, mut documents) = (Vec::new(), Vec::new());
        let mut seen: BTreeMap<RecordKey, RecordState> = BTreeMap::new();
        for (nth, (collection, edit, said)) in (0..).zip(write.edits()) {
            let collection = self.context.schema.get(collection).ok_or_else(gone)?;
            let key = RecordKey { collection: collection.id, id: edit.id.clone() };
            if let Some(why) = self.corrupt.get(&key) {
                return Err(author::EditError::Refused(format!("the stored record is damaged: {why}; run `mobo-hub health check`")));
            }
            let working = self.records.get(&key).ok_or_else(gone)?;
            let latest = if working.touched { working.ver } else { Ver(working.ver.0 - 1) };
            let base_ver = said.map_or(latest, |said| said.min(latest));
            let writer = author::Writer { collection, device: author.device, incarnation: author.incarnation, base_ver };
            let state = seen.get(&key).unwrap_or(&working.state);
            let Some(op) = author::author(&writer, state, edit)? else {
                // Whoever wrote SQL saw the record: it is not there because the write that made it was refused.
                if matches!((&write.body, edit.intent), (LocalBody::Seen(_), Intent::Patch | Intent::Delete)) {
                    let why = format!("it builds on a write of \"{}\" that was refused", edit.id);
                    return Err(author::EditError::Refused(why));
                }
                continue;
            };
            let after = crate::overlay::provisional(collection, state, &op, (author, nth))
                .map_err(|refusal| author::EditError::Refused(refusal.to_string()))?;
            if let Some(bounds) = &write.bounds {
                bounds.allows(collection, edit, (state, &after))?;
            }
            seen.insert(key.clone(), after);
            changed.push(key);
            match op {
                RecordOp::Table(op) => rows.push(op),
                RecordOp::Document(op) => documents.push(op),
            }
        }
        Ok(match (rows.is_empty(), documents.is_empty()) {
            (true, true) => None,
            (false, _) => Some((Kind::Table, table::op::encode_payload(&rows, write.author.as_deref()))),
            (true, false) => Some((Kind::Document, document::op::encode_payload(&documents, write.author.as_deref()))),
        })
    }
}
