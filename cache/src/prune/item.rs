//! What takes room in the store, as people see it: one item for each thing that can be forgotten, and for each image.

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// The result of a step.
    Step,
    /// What came from elsewhere: an unpacked base image, a checkout, a file of the web.
    Source,
    /// A cache mount.
    CacheMount,
    /// A mirror of a git repository.
    GitMirror,
    /// A layer or a blob that nothing names.
    Leftover,
    /// An image. Never pruned: it is removed by name.
    Image,
}

/// A thing in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its short name.
    pub id: String,
    /// What it is to people: a step as it was written, the id of a cache mount, an address, a name.
    pub description: String,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// When it was last used, Unix seconds.
    pub last_used: i64,
    /// What it alone takes on disk: what forgetting it frees.
    pub private_bytes: u64,
    /// What it takes together with others.
    pub shared_bytes: u64,
    /// Images and containers that need all that it takes, so that forgetting it frees nothing; for an image, its names.
    pub users: Vec<String>,
    /// Whether a running process has used it.
    pub in_use: bool,
}

impl Item {
    /// Whether it can be forgotten, to some avail.
    pub const fn is_reclaimable(&self) -> bool {
        !self.in_use && self.users.is_empty()
    }

    /// What it takes on disk.
    pub const fn size_bytes(&self) -> u64 {
        self.private_bytes + self.shared_bytes
    }
}

/// All that takes room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The items, the last used first.
    pub items: Vec<Item>,
    /// What one item alone takes.
    pub private_bytes: u64,
    /// What several items take together.
    pub shared_bytes: u64,
    /// What forgetting all that is not in use would free.
    pub reclaimable_bytes: u64,
    /// What the cache takes: what no image and no container needs.
    pub cache_bytes: u64,
}

impl Usage {
    /// All of it.
    pub const fn total_bytes(&self) -> u64 {
        self.private_bytes + self.shared_bytes
    }
}
