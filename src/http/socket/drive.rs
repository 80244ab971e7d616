//! Moves a connection's bytes: the future of the actor that is polled after its mailbox.
//!
//! Reads into a buffer that all connections of the thread share, hands messages to the actor, and
//! writes what they and the mailbox brought.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context as Task, Poll},
};

use actix::{ActorContext, fut::ActorFuture};
use actix_codec::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{Ctx, DeviceConnection, Phase, frames::Incoming};
use crate::{
    actors::session::Heard,
    domain::sync::{ClientFrame, CloseCode, Position},
};

/// Read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes that a client may send after its connection was given up, until it is cut off.
const IGNORED_BYTES: usize = 1024 * 1024;
/// Reads after which the other connections of the thread have their turn.
const READS: usize = 4;

thread_local! {
    /// Where every connection of the thread reads into.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a read brought.
enum Got {
    Bytes,
    End,
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Drive;

impl ActorFuture<DeviceConnection> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        it: &mut DeviceConnection,
        ctx: &mut Ctx,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        if it.read(ctx, task).is_err() || it.write(ctx, task).is_err() {
            // Reset, or ended without a close frame.
            ctx.stop();
        }
        Poll::Pending
    }
}

/// The connection is over.
struct Over;

impl DeviceConnection {
    fn read(&mut self, ctx: &mut Ctx, task: &mut Task<'_>) -> Result<(), Over> {
        for _ in 0..READS {
            self.hear(ctx);
            if self.phase == Phase::Attaching {
                return Ok(());
            }
            if self.ignored > IGNORED_BYTES {
                self.io.abort();
                return Err(Over);
            }
            match self.fill(task)? {
                Got::Bytes => {}
                Got::Nothing => return Ok(()),
                // What waits goes out to a client that only stopped to send.
                Got::End if self.phase == Phase::Ending => return Ok(()),
                Got::End => return Err(Over),
            }
        }
        task.waker().wake_by_ref();
        Ok(())
    }

    fn fill(&mut self, task: &mut Task<'_>) -> Result<Got, Over> {
        READ.with_borrow_mut(|buf| {
            let mut buf = ReadBuf::new(buf);
            match Pin::new(&mut self.io).poll_read(task, &mut buf) {
                Poll::Pending => Ok(Got::Nothing),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => Ok(Got::End),
                Poll::Ready(Ok(())) => {
                    self.decoder.feed(buf.filled());
                    let read = buf.filled().len() as u64;
                    self.parts.metrics.received_bytes.inc_by(read);
                    Ok(Got::Bytes)
                }
                Poll::Ready(Err(_)) => Err(Over),
            }
        })
    }

    /// Takes the messages that are whole.
    fn hear(&mut self, ctx: &mut Ctx) {
        loop {
            match self.phase {
                Phase::Attaching => break,
                Phase::Open | Phase::Closing => {}
                Phase::Ending | Phase::Lingering => {
                    self.ignored += self.decoder.clear();
                    break;
                }
            }
            match self.decoder.next() {
                Ok(Some(Incoming::Close(reason))) => self.closed_by_client(reason, ctx),
                Ok(Some(incoming)) => {
                    if self.phase == Phase::Open && self.admits(ctx) {
                        self.take(incoming, ctx);
                    }
                }
                Ok(None) => break,
                Err(violation) => self.fail(violation.code(), ctx),
            }
        }
        self.tell_untold();
    }

    fn take(&mut self, incoming: Incoming, ctx: &mut Ctx) {
        match incoming {
            Incoming::Text(text) => match ClientFrame::parse(&text) {
                Ok(frame) => self.take_frame(frame),
                Err(_) => self.close(CloseCode::BadFrame, ctx),
            },
            Incoming::Ping(payload) => {
                self.outbox.pong(&payload);
                self.untold.heard = true;
            }
            Incoming::Pong | Incoming::Part => self.untold.heard = true,
            Incoming::Close(_) => {}
        }
    }

    fn take_frame(&mut self, frame: ClientFrame) {
        if let ClientFrame::Ack(position, reference) = &frame {
            self.parts.metrics.acks.inc();
            self.moved(*position);
            if reference.is_none() {
                let goes_on = |it: Position| it.epoch == position.epoch && it.seq <= position.seq;
                if !self.untold.ack.is_some_and(goes_on) {
                    self.tell_ack();
                }
                self.untold.ack = Some(*position);
                return;
            }
        }
        self.tell_ack();
        self.told(frame);
    }

    fn tell_ack(&mut self) {
        if let Some(position) = self.untold.ack.take() {
            self.told(ClientFrame::Ack(position, None));
        }
    }

    /// Tells the session what the client said in this wake-up and was not told yet.
    pub(super) fn tell_untold(&mut self) {
        self.tell_ack();
        if std::mem::take(&mut self.untold.heard) {
            self.tell(Heard(self.conn));
        }
    }

    fn write(&mut self, ctx: &mut Ctx, task: &mut Task<'_>) -> Result<(), Over> {
        let mut sent = 0;
        let flushed = self.outbox.poll_flush(&mut self.io, task, &mut sent);
        if sent > 0 {
            self.parts.metrics.sent_bytes.inc_by(sent);
        }
        let flushed = match flushed {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Err(Over),
            Poll::Pending => false,
        };
        if self.outbox.waiting() > self.parts.send_queue {
            self.drop_client(ctx);
        } else if flushed && self.phase == Phase::Ending {
            match Pin::new(&mut self.io).poll_shutdown(task) {
                Poll::Ready(Ok(())) => {
                    self.phase = Phase::Lingering;
                    // The client's end may have come already.
                    task.waker().wake_by_ref();
                }
                Poll::Ready(Err(_)) => return Err(Over),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}
