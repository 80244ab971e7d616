//! Actors of a node that show what users made public.

mod public_playlists;

pub use public_playlists::{
    Forget, LIFE, PublicMetrics, PublicPlaylists, ReadPublicPlaylist, ReadPublicSongs,
};

#[cfg(test)]
mod tests;
