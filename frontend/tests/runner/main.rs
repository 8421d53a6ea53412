//! Tests of the whole translation: golden files, tables and properties.
//!
//! `cargo test -p rbuild-frontend -- --ignored regenerate` writes the golden files anew; read the difference.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod images;
mod lint;
mod properties;
mod subrequests;
mod tables;

use std::path::PathBuf;

/// The folder of fixtures.
fn testdata(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(folder)
}
