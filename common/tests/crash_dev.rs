#![allow(missing_docs)]
#[path = "../../tests/src/crash/mod.rs"]
mod crash;
#[test]
fn seeds() {
    let n: usize = std::env::var("STATES").ok().and_then(|s| s.parse().ok()).unwrap_or(3000);
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let r = crash::run(seed, n).unwrap();
    println!("{r}");
    assert!(r.passed());
}
