//! mobo
fn main() {}
