//! The event bus, sans-IO: topics with a schema, events that fit it, queues that never grow, and a memory of the last ones.

mod event;
mod queue;

pub use event::{BadEvent, Datum, Event, FieldKind, FieldSpec, Filter, Priority, Stamped, TopicSpec, Topics, TopicsError};
pub use queue::{DropRule, History, Waiting};
