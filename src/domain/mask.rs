//! Masks for what identifies a person or opens a door, for logs and views.

/// Keeps the first `head` and last `tail` characters; all stars when that would show everything.
fn keep(s: &str, head: usize, stars: &str, tail: usize) -> String {
    let chars: Vec<char> = s.chars().collect();
    if chars.len() <= head + tail {
        return "*".repeat(chars.len().max(4));
    }
    let first: String = chars[..head].iter().collect();
    let last: String = chars[chars.len() - tail..].iter().collect();
    format!("{first}{stars}{last}")
}

/// `+8613800138000` becomes `+86138****8000`; a number without `+` is shown as `138****8000`.
#[must_use]
pub fn phone(s: &str) -> String {
    let head = if s.starts_with("+86") {
        6
    } else if s.starts_with('+') {
        4
    } else {
        3
    };
    keep(s, head, "****", 4)
}

/// First 8 and last 8 characters.
#[must_use]
pub fn token(s: &str) -> String {
    keep(s, 8, "****", 8)
}

/// `user@example.com` becomes `u***@example.com`.
#[must_use]
pub fn email(s: &str) -> String {
    match s.split_once('@') {
        Some((name, host)) => {
            let first: String = name.chars().take(1).collect();
            format!("{first}***@{host}")
        }
        None => keep(s, 1, "***", 0),
    }
}

/// First 6 and last 4 characters of an identity card's number.
#[must_use]
pub fn id_card(s: &str) -> String {
    keep(s, 6, "********", 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_just_enough() {
        assert_eq!(phone("+8613800138000"), "+86138****8000");
        assert_eq!(phone("13812345678"), "138****5678");
        assert_eq!(email("user@example.com"), "u***@example.com");
        assert_eq!(token("abcdefghijklmnopqrstuvwxyz"), "abcdefgh****stuvwxyz");
        assert_eq!(id_card("110101199003071234"), "110101********1234");
    }

    #[test]
    fn what_is_too_short_to_mask_is_hidden_whole() {
        assert_eq!(token("abcdefgh12345678"), "****************");
        assert_eq!(phone("123"), "****");
    }
}
