//! Lists in pages: how long one is, where it begins, and what names the next.
//!
//! A list is asked for one item more than its page has: that one tells whether there is a next page.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::domain::error::FieldError;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// 1 to 200; 50 when left out.
    pub(super) limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// The size of a page: 1 to 200, 50 when left out.
pub(super) fn page_limit(limit: Option<u32>) -> Result<u32, FieldError> {
    match limit.unwrap_or(50) {
        limit @ 1..=200 => Ok(limit),
        _ => Err(FieldError::new("limit", "1 to 200")),
    }
}

/// The place that a client names, if it does.
pub(super) fn read_cursor<C>(
    text: Option<&str>,
    decode: impl FnOnce(&str) -> Option<C>,
) -> Result<Option<C>, FieldError> {
    let read = |text| {
        decode(text).ok_or_else(|| FieldError::new("cursor", "the next_cursor of an earlier page"))
    };
    text.map(read).transpose()
}

/// Names the page after the first `limit` of `items`, if there are more, by the last of them.
pub(super) fn next_cursor<T>(
    items: &[T],
    limit: u32,
    encode: impl FnOnce(&T) -> String,
) -> Option<String> {
    let (page, more) = items.split_at_checked(limit as usize)?;
    page.last().filter(|_| !more.is_empty()).map(encode)
}

/// The first `limit` of `items`, and what names the page after them.
pub(super) fn cut<T>(
    mut items: Vec<T>,
    limit: u32,
    encode: impl FnOnce(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let next_cursor = next_cursor(&items, limit, encode);
    items.truncate(limit as usize);
    (items, next_cursor)
}
