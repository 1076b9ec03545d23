//! What the demo keeps, one collection of each kind.

/// A collection, as `collection create` takes it.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its name.
    pub(super) name: &'static str,
    /// `table`, `document` or `stream`.
    pub(super) kind: &'static str,
    /// Names and types of its fields.
    pub(super) fields: &'static [(&'static str, &'static str)],
}

/// Rows that three people plan.
pub(super) const WORK_ORDERS: Shape = Shape {
    name: "work_orders",
    kind: "table",
    fields: &[("title", "text"), ("status", "text"), ("assignee", "text"), ("site", "text"), ("hours", "counter")],
};

/// Notes that they write together: a text, a list, and nested JSON.
pub(super) const NOTES: Shape = Shape { name: "notes", kind: "document", fields: &[("body", "text"), ("tags", "list"), ("meta", "json")] };

/// What the machine measures of itself.
pub(super) const VITALS: Shape = Shape {
    name: "vitals",
    kind: "stream",
    fields: &[("cpu", "float"), ("memory", "float"), ("disk", "float"), ("net_rx", "int"), ("net_tx", "int")],
};
