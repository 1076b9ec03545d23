//! Users: their tokens, and the doors of `/auth/v1` where they get them.

pub mod token;
