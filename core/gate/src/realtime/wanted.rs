//! What a subscriber asks for, and what a change is for it.

use std::borrow::Cow;
use std::sync::Arc;

use mobo_core::ids::CollectionId;
use mobo_core::live::{LiveChange, LiveKind, LiveRow};
use mobo_core::query::{Column, Filter, Parser};
use mobo_core::schema::Collection;

use super::viewer::View;
use crate::access::Guard;
use crate::problem::Problem;

/// The changes of one collection that somebody asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) collection: Arc<Collection>,
    pub(super) filter: Filter,
    /// The fields; `None` for all.
    pub(super) select: Option<Vec<String>>,
    pub(super) view: View,
}

/// A change, as far as a subscriber sees it.
///
/// Many see the same rows: one is copied only for whom something of it is hidden.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen<'c> {
    pub(super) kind: LiveKind,
    pub(super) old: Option<Cow<'c, LiveRow>>,
    pub(super) new: Option<Cow<'c, LiveRow>>,
}

/// Reads filters that stand side by side, as in `status=eq.open&n=gt.3`, over the columns that there are for the caller.
///
/// # Errors
///
/// 400 with what is wrong.
pub(super) fn filter(collection: &Collection, columns: &[Column], text: &str) -> Result<Filter, Problem> {
    let mut parser = Parser::new(&collection.name, columns);
    parser.filters(text)?;
    Ok(parser.finish().filter)
}

impl Wanted {
    pub(super) fn id(&self) -> CollectionId {
        self.collection.id
    }

    /// The columns that may be seen.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.view.columns(&self.collection)
    }

    /// Asks again what may be seen.
    ///
    /// # Errors
    ///
    /// As the guard says.
    pub(super) fn ask_again(&mut self, guard: &Guard) -> Result<(), Problem> {
        self.view = View::of(guard, &self.collection, &self.filter)?;
        Ok(())
    }

    fn shown<'c>(&self, row: Option<&'c LiveRow>) -> Option<Cow<'c, LiveRow>> {
        let row = row.filter(|row| self.filter.lets_through(*row))?;
        let mut shown = self.view.shown(row)?;
        if let Some(select) = &self.select {
            shown.to_mut().retain(|name, _| select.contains(name));
        }
        Some(shown)
    }

    /// A change of a live query: a row that comes to fit is an insert, one that does not fit any more is a delete.
    pub(super) fn seen<'c>(&self, change: &'c LiveChange) -> Option<Seen<'c>> {
        if change.collection != self.id() {
            return None;
        }
        let (old, new) = (self.shown(change.before.as_ref()), self.shown(change.after.as_ref()));
        let kind = match (&old, &new) {
            (None, None) => return None,
            (None, Some(_)) => LiveKind::Insert,
            // What has changed is not for this viewer.
            (Some(old), Some(new)) if old == new => return None,
            (Some(_), Some(_)) => LiveKind::Update,
            (Some(_), None) => LiveKind::Delete,
        };
        Some(Seen { kind, old, new })
    }

    /// A change as a database tells it: of what it is by itself, if the row that counts fits: the old one of a delete, else the new one.
    pub(super) fn seen_as_is<'c>(&self, change: &'c LiveChange) -> Option<Seen<'c>> {
        if change.collection != self.id() {
            return None;
        }
        let (old, new) = (self.shown(change.before.as_ref()), self.shown(change.after.as_ref()));
        let kind = change.kind();
        match kind {
            LiveKind::Insert => new.map(|new| Seen { kind, old: None, new: Some(new) }),
            LiveKind::Update => new.filter(|new| old.as_ref() != Some(new)).map(|new| Seen { kind, old, new: Some(new) }),
            LiveKind::Delete => old.map(|old| Seen { kind, old: Some(old), new: None }),
        }
    }
}
