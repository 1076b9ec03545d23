//! core/adapters
