//! Kernel tier.
fn main() {}
