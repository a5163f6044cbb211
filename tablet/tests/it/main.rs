//! Tablets over their wire, against a nameserver that does what a test says.

#![allow(clippy::unwrap_used)]

mod cluster;
mod conformance;
mod inspect;
mod interleavings;
mod lost;
mod nameserver;
mod one;
mod rebuild;
mod two;
