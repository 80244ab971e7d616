//! What may be asked of a playlist, and why it is refused.

use serde::{Deserialize, Serialize, de};

use super::{favorite::TargetId, playlist::Playlist, version::VersionTag};
use crate::domain::{error::FieldError, ids::EntryId, text::checked_text};

/// Playlists that a user may have at a time. Deleted ones do not count.
pub const MAX_PLAYLISTS: i64 = 500;
/// Deleted playlists of a user that can be restored: of more, the one that was deleted first is gone for
/// good. So nobody is kept from making a new one, and nobody keeps more than so many.
pub const MAX_DELETED: i64 = 500;
/// Songs that a playlist may have.
pub const MAX_SONGS: usize = 10_000;
/// Songs that one call may add, remove or move.
pub const MAX_AT_ONCE: usize = 1_000;
/// A change of more entries than this is told as `playlist.replaced`: their ids would not fit into an event.
pub const MOST_TOLD: usize = 400;

checked_text! {
    /// What a user calls a playlist.
    #[derive(Debug)]
    PlaylistName, "1 to 128 characters, none of them a control character",
    |s| (1..=128).contains(&s.chars().count()) && !s.chars().any(char::is_control)
}

checked_text! {
    /// Where a picture is.
    #[derive(Debug)]
    CoverUrl, "an https URL of at most 1024 characters", is_https
}

/// Whether `s` is an address that a client can fetch a picture from, as it stands. Clients show it to all
/// who have the playlist's link, so it holds no password. Browsers read `https:h` and `https:\\h` too, and
/// others find another host in `https://a\@b`: only what all read alike is taken.
fn is_https(s: &str) -> bool {
    let (scheme, rest) = s.split_at_checked("https://".len()).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    s.len() <= 1024
        && s.bytes().all(|b| b.is_ascii_graphic())
        && scheme.eq_ignore_ascii_case("https://")
        && !authority.is_empty()
        && !authority.contains(['@', '\\'])
        && url::Url::parse(s).is_ok_and(|url| {
            url.scheme() == "https"
                && url.host_str().is_some_and(|host| !host.is_empty())
                && url.username().is_empty()
                && url.password().is_none()
        })
}

/// A playlist that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlaylist {
    /// What the user calls it.
    pub name: PlaylistName,
    /// A picture.
    pub cover_url: Option<CoverUrl>,
    /// Whether everybody who has its link may read it.
    pub is_public: bool,
}

/// What is to be different about a playlist; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlaylistUpdate {
    /// What the user calls it.
    pub name: Option<PlaylistName>,
    /// A picture, or that there is none.
    pub cover_url: Nullable<CoverUrl>,
    /// Whether everybody who has its link may read it.
    pub is_public: Option<bool>,
}

impl PlaylistUpdate {
    /// The playlist after it; none when that is the same.
    #[must_use]
    pub fn applied(&self, to: &Playlist) -> Option<Playlist> {
        let mut next = to.clone();
        if let Some(name) = &self.name {
            name.as_str().clone_into(&mut next.name);
        }
        match &self.cover_url {
            Nullable::LeftOut => {}
            Nullable::Null => next.cover_url = None,
            Nullable::Is(url) => next.cover_url = Some(url.as_str().to_owned()),
        }
        next.is_public = self.is_public.unwrap_or(to.is_public);
        (next != *to).then_some(next)
    }
}

/// Where entries are to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    Beginning,
    /// Behind all others.
    End,
    /// Right behind this entry.
    After(EntryId),
    /// Right before this entry.
    Before(EntryId),
}

impl Place {
    /// From what a call says: each of both may be left out, null or an entry.
    ///
    /// # Errors
    /// [`FieldError`] when both are given.
    pub fn of(after: Nullable<EntryId>, before: Nullable<EntryId>) -> Result<Self, FieldError> {
        match (after, before) {
            (Nullable::LeftOut, Nullable::Is(id)) => Ok(Self::Before(id)),
            (Nullable::LeftOut, _) => Ok(Self::End),
            (Nullable::Null, Nullable::LeftOut) => Ok(Self::Beginning),
            (Nullable::Is(id), Nullable::LeftOut) => Ok(Self::After(id)),
            _ => Err(FieldError::new("before", "not beside after")),
        }
    }

    /// The entry that it names, and in which field.
    #[must_use]
    pub const fn named(self) -> Option<(EntryId, &'static str)> {
        match self {
            Self::Beginning | Self::End => None,
            Self::After(id) => Some((id, "after")),
            Self::Before(id) => Some((id, "before")),
        }
    }
}

/// Songs, at most `MAX` of them. A song may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<TargetId>")]
pub struct Songs<const MAX: usize>(Vec<TargetId>);

impl<const MAX: usize> Songs<MAX> {
    /// In the order given.
    #[must_use]
    pub fn into_inner(self) -> Vec<TargetId> {
        self.0
    }
}

impl<const MAX: usize> TryFrom<Vec<TargetId>> for Songs<MAX> {
    type Error = String;
    fn try_from(songs: Vec<TargetId>) -> Result<Self, String> {
        within(songs.len(), MAX).map(|()| Self(songs))
    }
}

/// Entries, at most `MAX` of them, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<EntryId>")]
pub struct Entries<const MAX: usize>(Vec<EntryId>);

impl<const MAX: usize> Entries<MAX> {
    /// In the order given.
    #[must_use]
    pub fn into_inner(self) -> Vec<EntryId> {
        self.0
    }
}

impl<const MAX: usize> TryFrom<Vec<EntryId>> for Entries<MAX> {
    type Error = String;
    fn try_from(ids: Vec<EntryId>) -> Result<Self, String> {
        within(ids.len(), MAX)?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("names {} twice", pair[0])),
            None => Ok(Self(ids)),
        }
    }
}

fn within(count: usize, max: usize) -> Result<(), String> {
    // Only the whole of a playlist may be nothing.
    let min = usize::from(max < MAX_SONGS);
    if (min..=max).contains(&count) {
        Ok(())
    } else {
        Err(format!("{min} to {max}, not {count}"))
    }
}

/// For `#[serde(deserialize_with)]`: what is given is taken, null too if `T` takes it.
///
/// # Errors
/// Those of `T`.
pub fn given<'de, T: Deserialize<'de>, D: de::Deserializer<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// A field for which null says something else than nothing. To be read with `#[serde(default)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nullable<T> {
    /// It is not there.
    #[default]
    LeftOut,
    /// It is null.
    Null,
    /// It has a value.
    Is(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Option::deserialize(d).map(|it| it.map_or(Self::Null, Self::Is))
    }
}

/// What `If-Match` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any version, as long as there is a playlist.
    Any,
    /// One of these.
    Versions(Vec<VersionTag>),
}

impl Expected {
    /// Whether a playlist of that version is expected.
    #[must_use]
    pub fn includes(&self, version: VersionTag) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// Why a playlist was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlaylistRefusal {
    /// The user has no such playlist, or deleted it.
    NotFound,
    /// It has another version than expected.
    Stale {
        /// The version that it has.
        version: i64,
    },
    /// It has no such entry.
    NoEntry {
        /// Where the entry was named.
        field: String,
    },
    /// The order does not name every entry.
    LeftOut {
        /// How many it leaves out.
        missing: usize,
        /// The version that the playlist has.
        version: i64,
    },
    /// The user has as many playlists as allowed.
    TooMany,
    /// It would have more songs than allowed.
    Full {
        /// How many it has.
        song_count: i64,
    },
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::PlaylistId;

    #[test]
    fn names_and_covers_are_checked() {
        for good in ["x", " ", "Ärger 🎵", &"ü".repeat(128)] {
            assert!(PlaylistName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\0", "\u{85}", &"x".repeat(129)] {
            assert!(PlaylistName::parse(bad).is_err(), "{bad:?}");
        }
        let long = |n: usize| format!("https://h/{}", "x".repeat(n - 10));
        for good in ["https://h/a?b#c", "HTTPS://[::1]:8/%20", &long(1024)] {
            assert!(CoverUrl::parse(good).is_ok(), "{good}");
        }
        let bads = [
            "",
            "http://h/",
            "https://",
            "https:///x/ y",
            " https://h/",
            "https://h/\n",
            "//h/",
            "https:h/",
            "https:/h/",
            "https:///h/",
            r"https:\\h/",
            r"https://a\@b/",
            "https://@h/",
            "https://h/ä",
            "https://u@h/",
            "https://u:p@h/",
            "javascript:1",
            &long(1025),
        ];
        for bad in bads {
            assert!(CoverUrl::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_update_says_whether_it_changes_anything() {
        let playlist = Playlist {
            id: PlaylistId(Uuid::nil()),
            name: "a".into(),
            cover_url: Some("https://h/".into()),
            is_public: false,
            song_count: 0,
            version: 1,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        };
        let none = PlaylistUpdate::default();
        assert_eq!(none.applied(&playlist), None);
        let same = PlaylistUpdate {
            name: PlaylistName::parse("a").ok(),
            cover_url: Nullable::Is(CoverUrl::parse("https://h/").unwrap()),
            is_public: Some(false),
        };
        assert_eq!(same.applied(&playlist), None);
        let bare = PlaylistUpdate {
            cover_url: Nullable::Null,
            ..none
        };
        assert_eq!(bare.applied(&playlist).unwrap().cover_url, None);
    }

    #[test]
    fn lists_are_bounded_and_name_no_entry_twice() {
        let ids = |n: u128| {
            (0..n)
                .map(|n| EntryId(Uuid::from_u128(n)))
                .collect::<Vec<_>>()
        };
        assert!(Entries::<1000>::try_from(ids(0)).is_err());
        assert!(Entries::<1000>::try_from(ids(1000)).is_ok());
        assert!(Entries::<1000>::try_from(ids(1001)).is_err());
        assert!(Entries::<10_000>::try_from(ids(0)).is_ok());
        let twice = [ids(3), ids(1)].concat();
        let error = Entries::<1000>::try_from(twice).unwrap_err();
        assert!(error.ends_with("0 twice"), "{error}");
    }
}
