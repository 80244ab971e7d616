//! WebSocket frames as RFC 6455 wants them, and messages put together of them.
//!
//! Stands on the frame parser of `actix-http`, which is lax where a client could do harm, and adds:
//! reserved bits and opcodes, masks, lengths and the place of a frame among others are judged from
//! its first bytes, before anything is kept of it; lengths must be the shortest; a message is
//! bounded, however it is cut; text is checked as it arrives. What it keeps of a client is at most
//! one message and the frame that is arriving, and nothing between two messages.

use actix_http::ws::{CloseReason, OpCode, Parser};
use actix_web::web::{Bytes, BytesMut};
use bytestring::ByteString;

use super::utf8::{NotUtf8, Utf8};
use crate::domain::sync::{ClientFrame, CloseCode};

/// What a client sent.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// A whole message.
    Text(ByteString),
    /// A part of a message, not the last.
    Part,
    /// Asks for a pong of the same content.
    Ping(Bytes),
    /// Answers a ping.
    Pong,
    /// The client closes.
    Close(Option<CloseReason>),
}

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// The rules of the protocol are broken.
    Protocol,
    /// Text is not UTF-8.
    Utf8,
    /// A message is too long.
    TooBig,
    /// A binary message: the subprotocol has none.
    Binary,
}

impl Violation {
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::Protocol => CloseCode::ProtocolError,
            Self::Utf8 => CloseCode::InvalidUtf8,
            Self::TooBig => CloseCode::TooBig,
            Self::Binary => CloseCode::BadFrame,
        }
    }
}

impl From<NotUtf8> for Violation {
    fn from(_: NotUtf8) -> Self {
        Self::Utf8
    }
}

/// What is left of more than so many bytes is copied, if it is less.
const SMALL: usize = 4 * 1024;
/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// The beginning of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: OpCode,
    /// Bytes before the payload.
    size: usize,
    payload: usize,
    mask: [u8; 4],
}

impl Head {
    /// Reads a head, and refuses it as soon as its bytes say enough. None: it is not whole yet.
    fn read(bytes: &[u8], in_message: bool) -> Result<Option<Self>, Violation> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        if first & 0b0111_0000 != 0 {
            return Err(Violation::Protocol);
        }
        let (last, opcode) = (first & 0x80 != 0, OpCode::from(first & 0x0f));
        let control = match opcode {
            OpCode::Bad => return Err(Violation::Protocol),
            OpCode::Continue if !in_message => return Err(Violation::Protocol),
            OpCode::Text | OpCode::Binary if in_message => return Err(Violation::Protocol),
            OpCode::Binary => return Err(Violation::Binary),
            OpCode::Continue | OpCode::Text => false,
            OpCode::Ping | OpCode::Pong | OpCode::Close if !last => {
                return Err(Violation::Protocol);
            }
            OpCode::Ping | OpCode::Pong | OpCode::Close => true,
        };
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let short = usize::from(second & 0x7f);
        // What comes from a client is masked.
        if second & 0x80 == 0 || (control && short > MAX_CONTROL) {
            return Err(Violation::Protocol);
        }
        let (payload, wide) = match short {
            126 => match rest.first_chunk() {
                Some(long) => (usize::from(u16::from_be_bytes(*long)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(long) => {
                    let long = u64::from_be_bytes(*long);
                    if long > i64::MAX as u64 {
                        return Err(Violation::Protocol);
                    }
                    (usize::try_from(long).map_err(|_| Violation::TooBig)?, 8)
                }
                None => return Ok(None),
            },
            short => (short, 0),
        };
        if (wide == 2 && payload < 126) || (wide == 8 && u16::try_from(payload).is_ok()) {
            return Err(Violation::Protocol);
        }
        let Some(mask) = rest.get(wide..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        Ok(Some(Self {
            opcode,
            size: 2 + wide + mask.len(),
            payload,
            mask: *mask,
        }))
    }
}

/// Makes messages of bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// What arrived and is no whole frame yet.
    buf: BytesMut,
    /// Bytes that went into the memory of `buf`, which holds them all while any is left.
    held: usize,
    /// The beginning of a message that comes in parts.
    message: Option<Vec<u8>>,
    text: Utf8,
    /// Payload bytes of the frame that is arriving which were looked at already.
    looked_at: usize,
}

impl Decoder {
    /// Takes over bytes that were read before.
    pub(super) fn new(read: &[u8]) -> Self {
        let mut decoder = Self::default();
        decoder.feed(read);
        decoder
    }

    /// More bytes arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        self.held += bytes.len();
    }

    /// Forgets what arrived and is of no use any more; says how many bytes.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).buf.len()
    }

    /// The next thing that the client sent, once it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        let in_message = self.message.is_some();
        let Some(head) = Head::read(&self.buf, in_message)? else {
            self.let_go();
            return Ok(None);
        };
        let is_text = matches!(head.opcode, OpCode::Text | OpCode::Continue);
        let before = self.message.as_ref().map_or(0, Vec::len);
        if is_text && head.payload > ClientFrame::MAX_BYTES - before {
            return Err(Violation::TooBig);
        }
        if self.buf.len() < head.size + head.payload {
            if is_text {
                self.look_ahead(&head)?;
            }
            self.let_go();
            return Ok(None);
        }
        // Whole and within bounds: of all that it could refuse, nothing is left.
        let frame = Parser::parse(&mut self.buf, true, ClientFrame::MAX_BYTES);
        let Ok(Some((last, opcode, payload))) = frame else {
            return Err(Violation::Protocol);
        };
        let payload = payload.unwrap_or_default();
        match opcode {
            OpCode::Text | OpCode::Continue => self.part(last, payload),
            OpCode::Ping => Ok(Some(Incoming::Ping(payload.freeze()))),
            OpCode::Pong => Ok(Some(Incoming::Pong)),
            OpCode::Close => close_reason(&payload).map(|it| Some(Incoming::Close(it))),
            OpCode::Binary | OpCode::Bad => Err(Violation::Protocol),
        }
    }

    fn part(&mut self, last: bool, payload: BytesMut) -> Result<Option<Incoming>, Violation> {
        let looked_at = std::mem::take(&mut self.looked_at);
        if last && self.message.is_none() && looked_at == 0 {
            // The usual case: one frame, at once.
            let text = ByteString::try_from(payload.freeze()).map_err(|_| Violation::Utf8)?;
            return Ok(Some(Incoming::Text(text)));
        }
        self.text.feed(&payload[looked_at..])?;
        let message = self.message.get_or_insert_default();
        message.extend_from_slice(&payload);
        if !last {
            return Ok(Some(Incoming::Part));
        }
        std::mem::take(&mut self.text).finish()?;
        let message = self.message.take().unwrap_or_default();
        let text = String::from_utf8(message).map_err(|_| Violation::Utf8)?;
        Ok(Some(Incoming::Text(text.into())))
    }

    /// Looks at the text of a frame that is not whole yet: what cannot be text ends the connection
    /// now, and not when the client pleases to send the rest.
    fn look_ahead(&mut self, head: &Head) -> Result<(), Violation> {
        let arrived = &self.buf[head.size..];
        let mut piece = [0; 512];
        while self.looked_at < arrived.len() {
            let masked = &arrived[self.looked_at..];
            let n = masked.len().min(piece.len());
            for (i, (to, from)) in piece.iter_mut().zip(masked).enumerate() {
                *to = from ^ head.mask[(self.looked_at + i) % 4];
            }
            self.text.feed(&piece[..n])?;
            self.looked_at += n;
        }
        Ok(())
    }

    /// An idle connection holds no memory here, and one with a piece of a frame little more than that.
    fn let_go(&mut self) {
        let left = self.buf.len();
        if left == 0 && self.buf.capacity() > 0 || left <= SMALL && self.held > SMALL {
            self.buf = BytesMut::from(&self.buf[..]);
            self.held = left;
        }
    }
}

fn close_reason(payload: &[u8]) -> Result<Option<CloseReason>, Violation> {
    if let Some(text) = payload.get(2..) {
        std::str::from_utf8(text).map_err(|_| Violation::Utf8)?;
    }
    Parser::try_parse_close_payload(payload).map_err(|_| Violation::Protocol)
}

#[cfg(test)]
mod tests;
