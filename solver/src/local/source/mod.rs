//! Sources: images, and the build context.

mod context;
mod image;
