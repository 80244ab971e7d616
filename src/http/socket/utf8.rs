//! UTF-8 that arrives in pieces, refused at the first byte that cannot be part of it.

/// What is known of a text so far.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character that is cut off.
    cut: [u8; 4],
    len: usize,
}

/// The text is not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8 {
    /// The next piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0 {
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.cut[self.len] = *byte;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.cut[..self.len]) {
                Ok(_) => self.len = 0,
                // No character is longer than four bytes, so the fourth decides.
                Err(e) if e.error_len().is_some() || self.len == 4 => return Err(NotUtf8),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(e) if e.error_len().is_some() => Err(NotUtf8),
            Err(e) => {
                let cut = &bytes[e.valid_up_to()..];
                self.cut[..cut.len()].copy_from_slice(cut);
                self.len = cut.len();
                Ok(())
            }
        }
    }

    /// The text is over.
    pub(super) fn finish(&self) -> Result<(), NotUtf8> {
        if self.len == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The index of the byte at which it is refused, fed one by one.
    fn refused_at(bytes: &[u8]) -> Option<usize> {
        let mut text = Utf8::default();
        let at = bytes.iter().position(|b| text.feed(&[*b]).is_err());
        at.or_else(|| text.finish().is_err().then_some(bytes.len()))
    }

    #[test]
    fn it_fails_at_the_first_byte_that_cannot_be() {
        let cases: [(&[u8], Option<usize>); 14] = [
            (b"", None),
            ("κόσμε 你好 \u{10ffff}\u{0}".as_bytes(), None),
            (b"a\x80", Some(1)),
            (b"\xc0\x80", Some(0)),
            (b"\xc1", Some(0)),
            (b"\xe0\x9f", Some(1)),
            (b"\xed\xa0", Some(1)),
            (b"\xf0\x8f", Some(1)),
            (b"\xf4\x90", Some(1)),
            (b"\xf5", Some(0)),
            (b"\xff", Some(0)),
            (b"\xe4\xbd", Some(2)),
            (
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80",
                Some(12),
            ),
            (b"\xc3\x28", Some(1)),
        ];
        for (bytes, at) in cases {
            assert_eq!(refused_at(bytes), at, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(bytes: Vec<u8>, text: String, cuts: Vec<usize>) {
            for whole in [&bytes[..], text.as_bytes()] {
                let mut state = Utf8::default();
                let mut rest = whole;
                let mut good = true;
                for cut in &cuts {
                    let (piece, after) = rest.split_at(cut % (rest.len() + 1));
                    good = good && state.feed(piece).is_ok();
                    rest = after;
                }
                good = good && state.feed(rest).is_ok() && state.finish().is_ok();
                prop_assert_eq!(good, std::str::from_utf8(whole).is_ok());
            }
        }
    }
}
