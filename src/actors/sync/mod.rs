//! Actors of a node that serve the sync logs of all its users.

mod attached;
mod cursor_keeper;
mod head_watcher;

pub use attached::{Attached, AttachedDevice, Owed, Standing};
pub use cursor_keeper::{Advance, CursorKeeper, Flush, KeeperParts, Left};
pub use head_watcher::{HeadWatcher, WatcherParts};

#[cfg(test)]
mod tests;
