//! The one binary of Stela.
fn main() {}
