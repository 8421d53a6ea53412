//! Threads for heavy work on many files. They are started when they are first needed: even idle ones take processor time, and
//! most commands need none.

use std::io;
use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// As many threads as there are cores, or none yet. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<OnceLock<Arc<ThreadPool>>>);

impl Threads {
    /// The threads, which run from then on.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn pool(&self) -> io::Result<&Arc<ThreadPool>> {
        if let Some(pool) = self.0.get() {
            return Ok(pool);
        }
        let name = |index| format!("files-{index}");
        let pool = ThreadPoolBuilder::new().thread_name(name).build().map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| Arc::new(pool)))
    }
}
