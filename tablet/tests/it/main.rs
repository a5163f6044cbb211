//! Tablets over their wire, against a nameserver that does what a test says.

#![allow(clippy::unwrap_used)]

mod cluster;
mod conformance;
#[path = "../../../tests/src/crash/image.rs"]
#[allow(dead_code, unreachable_pub, clippy::disallowed_methods)]
mod image;
mod inspect;
mod interleavings;
mod lost;
mod nameserver;
mod one;
mod rebuild;
mod two;
