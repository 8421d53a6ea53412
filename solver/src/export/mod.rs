//! Outputs: what a build's result becomes besides records in the cache.
//!
//! An image is made by [`Images::assemble`](crate::images::Images::assemble) and written to archives by
//! [`Images::save`](crate::images::Images::save); here are the outputs that are file systems and no images.

mod tree;

pub use tree::{ExportError, Trees, export_directory, export_tar};
