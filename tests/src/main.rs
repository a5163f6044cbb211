//! Drills and checks of Stela, one command each.
fn main() {}
