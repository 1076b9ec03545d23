//! Why a query cannot be read.

/// A query that cannot be read, and what would do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// By what the caller does next.
    pub reason: Reason,
    /// What is wrong.
    pub message: String,
    /// What would do.
    pub hint: Option<String>,
}

/// The kinds of [`QueryError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is not of the grammar.
    Malformed,
    /// There is no such column.
    NoColumn,
    /// The value is none of its column's type.
    BadValue,
    /// The column's type does not have that operator.
    NoOperator,
    /// It is of the grammar, and this version does not have it.
    NotImplemented,
    /// Sums and averages over rows, which are not given.
    Aggregate,
    /// A range of rows that cannot be.
    Range,
    /// No reference leads to that collection, or none that the caller may follow.
    NoRelation,
    /// Several references lead there.
    Ambiguous,
    /// The query speaks of a related collection that its select list does not embed.
    NotEmbedded,
    /// Rows cannot be sorted by a list of others.
    RelatedOrder,
}

impl QueryError {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hint: None }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, message)
    }

    pub(super) fn not_implemented(feature: &str) -> Self {
        Self::new(Reason::NotImplemented, format!("this version of mobo does not have {feature}"))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
