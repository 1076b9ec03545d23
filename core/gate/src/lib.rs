//! core/gate
