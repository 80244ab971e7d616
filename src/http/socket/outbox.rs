//! What waits to be written to a client.
//!
//! Texts stay as they came, shared with the other devices of the user, until the socket takes them;
//! all that one wake-up brought goes out in one write. Says how much waits, so that a client that
//! takes nothing is let go; a pong waits only as the newest, so that pings cannot fill it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use actix_codec::AsyncWrite as _;
use actix_http::ws::{CloseReason, OpCode, Parser};
use actix_web::web::{Buf as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::{domain::sync::ServerFrame, http::transport::Transport};

/// Put into one write, about.
const BATCH: usize = 64 * 1024;
/// Bytes before the payload of most frames.
const HEAD: usize = 4;

thread_local! {
    /// Where every connection of the thread puts its batch together.
    static WRITE: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(2 * BATCH));
}

/// How far the close frame is.
#[derive(Debug)]
enum Close {
    /// Not asked for.
    No,
    /// It goes out after all texts that wait.
    Waits(Option<CloseReason>),
    /// It is in a batch, or gone.
    Written,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    texts: VecDeque<ByteString>,
    /// Bytes of `texts` on the wire.
    text_bytes: usize,
    ping: bool,
    /// Only the newest: whoever asks twice before the first is on its way is answered once.
    pong: Option<Bytes>,
    close: Close,
    /// The part of a batch that the socket did not take.
    rest: BytesMut,
    /// Texts that are no events and of which the last byte is in `rest`.
    rest_aside: usize,
    /// Something was written, and encryption may hold it back.
    flush_due: bool,
    /// Texts that are no events, were pushed and are not with the system yet; shared with who pushes.
    unread: Arc<AtomicUsize>,
    /// Raised with each attachment to the session.
    attachment: u32,
}

impl Outbox {
    /// `first` goes out before everything else.
    pub(super) fn new(first: BytesMut) -> Self {
        Self {
            texts: VecDeque::new(),
            text_bytes: 0,
            ping: false,
            pong: None,
            close: Close::No,
            rest: first,
            rest_aside: 0,
            flush_due: false,
            unread: Arc::default(),
            attachment: 0,
        }
    }

    /// Counts the texts beside the log that are not with the system yet; who pushes one adds it.
    pub(super) fn unread(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.unread)
    }

    /// How many of these texts there are.
    pub(super) fn unread_now(&self) -> usize {
        self.unread.load(Relaxed)
    }

    /// Texts that no byte was written of.
    pub(super) fn frames(&self) -> usize {
        self.texts.len()
    }

    fn is_open(&self) -> bool {
        matches!(self.close, Close::No)
    }

    /// A text that was counted when it was pushed.
    pub(super) fn text(&mut self, text: ByteString) {
        if self.is_open() {
            self.text_bytes += text.len() + HEAD;
            self.texts.push_back(text);
        } else if is_aside(&text) {
            // Nothing follows a close.
            self.unread.fetch_sub(1, Relaxed);
        }
    }

    /// Begins an attachment; says its number. Forgets the events that no byte was written of, and
    /// those that still come by an earlier attachment: they come again, and out of their order they
    /// would leave a gap.
    pub(super) fn attach(&mut self) -> u32 {
        self.texts.retain(|text| is_aside(text));
        let left = self.texts.iter().map(|text| text.len() + HEAD);
        self.text_bytes = left.sum();
        self.attachment = self.attachment.wrapping_add(1);
        self.attachment
    }

    /// Whether a text that was pushed by an attachment still means something. What says where the
    /// log is does not once another began: that one says it anew.
    pub(super) fn takes(&self, by: u32, text: &str) -> bool {
        if by == self.attachment {
            return true;
        }
        let aside = is_aside(text);
        let of_log =
            !aside || ServerFrame::resync(text).is_some() || ServerFrame::refuses_position(text);
        if of_log && aside {
            self.unread.fetch_sub(1, Relaxed);
        }
        !of_log
    }

    /// A text of the connection itself, no event.
    pub(super) fn own_text(&mut self, text: ByteString) {
        self.unread.fetch_add(1, Relaxed);
        self.text(text);
    }

    pub(super) fn ping(&mut self) {
        self.ping = self.is_open();
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        if self.is_open() {
            // Not the whole of what it came with, for as long as it waits.
            self.pong = Some(Bytes::copy_from_slice(payload));
        }
    }

    /// Goes out after all that waits; nothing follows it.
    pub(super) fn close(&mut self, reason: Option<CloseReason>) {
        if self.is_open() {
            self.close = Close::Waits(reason);
        }
    }

    /// Bytes that the socket did not take yet.
    pub(super) fn waiting(&self) -> usize {
        self.text_bytes + self.rest.len()
    }

    /// Writes what the socket takes, and adds it to `sent`. Ready when nothing waits.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut Transport,
        task: &mut Context<'_>,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        let mut shared = false;
        loop {
            if self.rest.is_empty() {
                let mut batch = WRITE.take();
                batch.clear();
                self.rest_aside = self.put_together(&mut batch);
                if batch.is_empty() {
                    WRITE.set(batch);
                    break;
                }
                (self.rest, shared) = (batch, true);
            }
            match Pin::new(&mut *io).poll_write(task, &self.rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.flush_due = true;
                    *sent += n as u64;
                    self.rest.advance(n);
                    if self.rest.is_empty() {
                        let aside = std::mem::take(&mut self.rest_aside);
                        self.unread.fetch_sub(aside, Relaxed);
                        let batch = std::mem::take(&mut self.rest);
                        if std::mem::take(&mut shared) {
                            WRITE.set(batch);
                        }
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    if shared {
                        let rest = BytesMut::from(&self.rest[..]);
                        WRITE.set(std::mem::replace(&mut self.rest, rest));
                    }
                    return Poll::Pending;
                }
            }
        }
        self.let_go();
        if self.flush_due {
            ready!(Pin::new(io).poll_flush(task))?;
            self.flush_due = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Puts frames into `batch` until it is large enough; says how many texts beside the log.
    fn put_together(&mut self, batch: &mut BytesMut) -> usize {
        if let Some(payload) = self.pong.take() {
            Parser::write_message(batch, payload, OpCode::Pong, true, false);
        }
        if std::mem::take(&mut self.ping) {
            Parser::write_message(batch, b"", OpCode::Ping, true, false);
        }
        let mut aside = 0;
        while batch.len() < BATCH
            && let Some(text) = self.texts.pop_front()
        {
            self.text_bytes -= text.len() + HEAD;
            Parser::write_message(batch, text.as_bytes(), OpCode::Text, true, false);
            aside += usize::from(is_aside(&text));
        }
        if self.texts.is_empty() && matches!(self.close, Close::Waits(_)) {
            let close = std::mem::replace(&mut self.close, Close::Written);
            if let Close::Waits(reason) = close {
                Parser::write_close(batch, reason, false);
            }
        }
        aside
    }

    /// An idle connection holds no memory here.
    fn let_go(&mut self) {
        if self.texts.capacity() > 0 {
            self.texts = VecDeque::new();
        }
    }
}

/// What passes beside the log: anything but an event.
fn is_aside(text: &str) -> bool {
    !ServerFrame::is_event(text)
}

#[cfg(test)]
mod tests;
