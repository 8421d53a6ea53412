//! Sources: images, the build context, files of web servers, git repositories.

mod context;
mod git;
mod http;
mod image;
mod layout;
mod pins;

pub use git::{GitError, GitOptions};
pub use http::HttpError;
pub(super) use image::emit_transfer;
pub(super) use layout::identify_layout;
pub use pins::Pins;

use rbuild_llb::SourceOp;

use super::{LocalWorker, WorkerError};
use crate::worker::Context;

impl LocalWorker<'_> {
    /// When a source was last changed, Unix seconds: the time of the commit, or what the web server says. For a file of which the
    /// server does not say, and that is an archive, the time of the newest file in it.
    ///
    /// # Errors
    /// When the source cannot be had.
    pub fn time_of(&self, source: &SourceOp, cx: &Context<'_>) -> Result<Option<i64>, WorkerError> {
        match source {
            SourceOp::Git(source) => self.commit_time(source, cx).map(Some),
            SourceOp::Http(source) => self.http_time(source, cx),
            SourceOp::Local(source) => {
                Ok(self.options.contexts.get(&source.name).and_then(|known| known.time))
            }
            SourceOp::Image(_) | SourceOp::OciLayout(_) => Ok(None),
        }
    }
}
