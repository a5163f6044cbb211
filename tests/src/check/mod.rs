//! Whether a recorded history is one that a promise allows.

pub mod register;
