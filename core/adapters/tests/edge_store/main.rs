//! The device's store against a real hub's store: what is written here and there comes together, whatever is lost on the way.

mod applying;
mod documents;
mod keeping;
mod random;
mod refencing;
mod world;
mod writing;
