//! Which collections a caller may reach from one: along references that the caller may read, to records that the caller may read. A way that
//! a policy closes is not there.

use mobo_core::query::{self, Related, Relations};
use mobo_core::rights::Action;
use mobo_core::schema::Collection;

use super::Guard;

impl Relations for Guard {
    fn from(&self, near: &Collection, name: &str) -> Vec<Related> {
        let Ok(here) = self.granted(near, Action::Read) else { return Vec::new() };
        let open = |mut way: Related| {
            let there = self.granted(&way.collection, Action::Read).ok()?;
            let side = if way.to_one { &here } else { &there };
            way.columns.retain(|column| there.has(column));
            side.has(&way.field).then_some(way)
        };
        query::related(&self.schema(), near, name).into_iter().filter_map(open).collect()
    }
}
