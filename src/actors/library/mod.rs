//! Actors of a node that show what users made public.

mod public_playlists;

pub(super) use public_playlists::forget_after;
pub use public_playlists::{
    Forget, LIFE, PublicMetrics, PublicPlaylists, ReadPublicPlaylist, ReadPublicSongs,
};

#[cfg(test)]
mod tests;
