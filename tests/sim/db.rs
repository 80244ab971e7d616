//! The database that all nodes share, as `src/store` uses it: logs with their earlier lives, cursors,
//! attach epochs. Each method is one transaction.

use chrono::{DateTime, TimeDelta, Utc};
use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::{DeviceId, Epoch, EventId, UserId},
    sync::{Ages, Cursor, Event, LogHead, Position, Retention, WireEvent},
};
use uuid::Uuid;

use crate::{invariants, queue::Ms};

/// One life of a log. Earlier ones are kept: clients may still be in them.
#[derive(Debug, Clone)]
struct Life {
    epoch: Epoch,
    /// Events up to this one are gone.
    floor: i64,
    events: Vec<Stored>,
    /// The state after each event; the first is the empty one.
    states: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Stored {
    value: u64,
    size: u16,
    at: Ms,
    wire: WireEvent,
}

#[derive(Debug, Clone, Copy)]
pub struct DeviceRow {
    pub user: usize,
    pub acked: i64,
    pub attach_epoch: i64,
}

/// What a device that attaches starts from.
#[derive(Debug, Clone, Copy)]
pub struct AttachState {
    pub acked: i64,
    pub attach_epoch: i64,
    /// Which of the device's attachments it is, also where the database forgot some.
    pub count: u64,
    /// How often the database had fallen back.
    pub restores: u64,
    pub log: LogHead,
}

/// How an ack by REST ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorAck {
    Acked(i64),
    BeyondHead,
    EpochChanged,
}

/// A copy: of each log its life, its ends; all devices.
#[derive(Debug, Clone)]
struct Backup {
    logs: Vec<(usize, i64, i64)>,
    devices: Vec<DeviceRow>,
}

#[derive(Debug)]
pub struct Db {
    /// Each user's lives; the last is the present one.
    logs: Vec<Vec<Life>>,
    pub devices: Vec<DeviceRow>,
    backups: Vec<Backup>,
    epochs: u128,
    made: u64,
    real_wire: bool,
    pub restores: u64,
    /// How often each device was given an attach epoch.
    pub attached: Vec<u64>,
}

pub fn user_id(user: usize) -> UserId {
    UserId(Uuid::from_u128(1 + user as u128))
}

pub fn device_id(device: usize) -> DeviceId {
    DeviceId(Uuid::from_u128(1 + device as u128))
}

pub fn device_index(id: DeviceId) -> usize {
    usize::try_from(id.0.as_u128()).unwrap_or(usize::MAX) - 1
}

pub fn index(seq: i64) -> usize {
    usize::try_from(seq).unwrap_or(0)
}

pub fn seq(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// The wall clock: a monotonic one that begins at a day of its own.
pub fn wall(now: Ms) -> DateTime<Utc> {
    let millis = i64::try_from(now).unwrap_or(0);
    DateTime::from_timestamp_millis(1_800_000_000_000 + millis).unwrap_or_default()
}

impl Db {
    /// Each user's log begins with a few events, some of them trimmed; every cursor is at its head.
    pub fn new(users: &[usize], older: &[(i64, i64)], real_wire: bool) -> Self {
        let mut db = Self {
            logs: Vec::new(),
            devices: Vec::new(),
            backups: Vec::new(),
            epochs: 0,
            made: 0,
            real_wire,
            restores: 0,
            attached: Vec::new(),
        };
        for (user, (&devices, &(head, floor))) in users.iter().zip(older).enumerate() {
            let epoch = db.next_epoch();
            db.logs.push(vec![Life {
                epoch,
                floor: 0,
                events: Vec::new(),
                states: vec![0],
            }]);
            for _ in 0..head {
                db.append(0, user, 1, 0);
            }
            db.life_mut(user).floor = floor;
            db.devices.extend((0..devices).map(|_| DeviceRow {
                user,
                acked: head,
                attach_epoch: 0,
            }));
        }
        db.attached = vec![0; db.devices.len()];
        db.backup();
        db
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch(Uuid::from_u128(self.epochs))
    }

    fn life(&self, user: usize) -> &Life {
        let lives = &self.logs[user];
        &lives[lives.len() - 1]
    }

    fn life_mut(&mut self, user: usize) -> &mut Life {
        let lives = &mut self.logs[user];
        let last = lives.len() - 1;
        &mut lives[last]
    }

    pub fn head(&self, user: usize) -> i64 {
        seq(self.life(user).events.len())
    }

    pub fn log(&self, user: usize) -> LogHead {
        LogHead {
            epoch: self.life(user).epoch,
            head_seq: self.head(user),
            floor_seq: self.life(user).floor,
        }
    }

    pub fn end(&self, user: usize) -> Position {
        Position {
            epoch: self.life(user).epoch,
            seq: self.head(user),
        }
    }

    /// What a client has that applied everything up to `seq` of `epoch`.
    pub fn state_at(&self, user: usize, at: Position) -> Option<u64> {
        let life = self.logs[user].iter().find(|l| l.epoch == at.epoch)?;
        life.states.get(index(at.seq)).copied()
    }

    /// The state after one more event.
    pub const fn chain(state: u64, value: u64) -> u64 {
        state.wrapping_mul(31).wrapping_add(value)
    }

    pub fn append(&mut self, now: Ms, user: usize, count: u8, size: u16) -> Vec<WireEvent> {
        let (real_wire, mut made) = (self.real_wire, self.made);
        let life = self.life_mut(user);
        let before = life.events.len();
        for _ in 0..count {
            made += 1;
            let at = seq(life.events.len()) + 1;
            let wire = write(real_wire, life.epoch, user, at, made, size, now);
            let state = life.states[life.states.len() - 1];
            life.states.push(Self::chain(state, made));
            life.events.push(Stored {
                value: made,
                size,
                at: now,
                wire,
            });
        }
        let new = life.events[before..].iter();
        let new = new.map(|e| e.wire.clone()).collect();
        self.made = made;
        new
    }

    /// At most `limit` events after `after`, of those that are there.
    pub fn events(&self, user: usize, after: i64, limit: u32) -> Vec<WireEvent> {
        let life = self.life(user);
        let from = index(after.max(life.floor)).min(life.events.len());
        let page = life.events[from..].iter().take(limit as usize);
        page.map(|e| e.wire.clone()).collect()
    }

    /// The values of the events after `after`, as a client reads them by REST; none when the position
    /// is not of this log.
    pub fn values(&self, user: usize, after: Position) -> Option<Vec<u64>> {
        let log = self.log(user);
        let whole = after.epoch == log.epoch && (log.floor_seq..=log.head_seq).contains(&after.seq);
        whole.then(|| {
            let events = &self.life(user).events[index(after.seq)..];
            events.iter().map(|e| e.value).collect()
        })
    }

    /// A new connection becomes the device's newest; one that `held` an epoch only looks.
    pub fn attach(&mut self, device: usize, held: Option<i64>) -> AttachState {
        let row = &mut self.devices[device];
        if held.is_none() {
            row.attach_epoch += 1;
            self.attached[device] += 1;
        }
        let row = *row;
        AttachState {
            acked: row.acked,
            attach_epoch: row.attach_epoch,
            count: self.attached[device],
            restores: self.restores,
            log: self.log(row.user),
        }
    }

    /// Moves cursors; names the devices that have a newer connection, with it, and those that moved.
    pub fn cursors_advance(&mut self, cursors: &[Cursor]) -> (Vec<(DeviceId, i64)>, Vec<Cursor>) {
        let (mut superseded, mut moved) = (Vec::new(), Vec::new());
        for cursor in cursors {
            let device = device_index(cursor.device);
            let log = self.log(self.devices[device].user);
            let row = &mut self.devices[device];
            let at = cursor.position;
            if row.attach_epoch == cursor.attach_epoch
                && at.epoch == log.epoch
                && row.acked < at.seq
                && at.seq <= log.head_seq
            {
                row.acked = at.seq;
                moved.push(*cursor);
            }
            if row.attach_epoch > cursor.attach_epoch {
                superseded.push((cursor.device, row.attach_epoch));
            }
        }
        (superseded, moved)
    }

    /// An ack by REST.
    pub fn cursor_ack(&mut self, device: usize, at: Position) -> CursorAck {
        let log = self.log(self.devices[device].user);
        let row = &mut self.devices[device];
        if at.epoch != log.epoch {
            CursorAck::EpochChanged
        } else if at.seq > log.head_seq {
            CursorAck::BeyondHead
        } else {
            row.acked = row.acked.max(at.seq);
            CursorAck::Acked(row.acked)
        }
    }

    /// Deletes what the rule does not keep, and raises the floor in the same step.
    ///
    /// # Errors
    /// What the rule got wrong.
    pub fn trim(&mut self, now: Ms, user: usize, rule: &Retention) -> Result<bool, String> {
        let log = self.log(user);
        let cursors = self.devices.iter().filter(|d| d.user == user);
        let lowest = cursors
            .map(|d| d.acked)
            .filter(|acked| *acked >= log.floor_seq)
            .min();
        let events = &self.life(user).events;
        let first_after = |moment: DateTime<Utc>| {
            let young = events.iter().position(|e| wall(e.at) > moment);
            seq(young.unwrap_or(events.len())) + 1
        };
        let ages = Ages {
            recent_from: first_after(rule.recent_after(wall(now))),
            held_from: first_after(rule.held_after(wall(now))),
        };
        let floor = rule.floor(&log, lowest, ages);
        invariants::trim(&log, floor, lowest, ages, rule)?;
        self.life_mut(user).floor = floor;
        Ok(floor > log.floor_seq)
    }

    /// A copy of everything. Of several one is kept at random by who restores.
    pub fn backup(&mut self) {
        let logs = self.logs.iter();
        let logs = logs.map(|lives| {
            let last = lives.len() - 1;
            (last, seq(lives[last].events.len()), lives[last].floor)
        });
        self.backups.push(Backup {
            logs: logs.collect(),
            devices: self.devices.clone(),
        });
    }

    /// A copy as it was when each log ended at `heads`.
    fn earlier(&self, heads: &[i64]) -> Backup {
        let logs = self.logs.iter().zip(heads).enumerate();
        let logs = logs.map(|(user, (lives, head))| {
            let log = self.log(user);
            let head = *head.clamp(&log.floor_seq, &log.head_seq);
            (lives.len() - 1, head, log.floor_seq)
        });
        let logs: Vec<_> = logs.collect();
        let mut devices = self.devices.clone();
        for row in &mut devices {
            row.acked = row.acked.min(logs[row.user].1);
        }
        Backup { logs, devices }
    }

    /// Falls back to an older state, which is another life: one of the last copies, or what was when the
    /// logs ended at `heads`. `keeps_attachments`: the attach epochs that were given out since stay.
    pub fn restore(&mut self, choice: usize, heads: &[i64], keeps_attachments: bool) {
        self.restores += 1;
        let copies = self.backups.len().min(3);
        let backup = match self.backups.len().checked_sub(choice + 1) {
            Some(at) if choice < copies => self.backups[at].clone(),
            _ => self.earlier(heads),
        };
        for (user, &(life, head, floor)) in backup.logs.iter().enumerate() {
            let epoch = self.next_epoch();
            let real_wire = self.real_wire;
            let older = &self.logs[user][life];
            let mut events = older.events[..index(head)].to_vec();
            let states = older.states[..=index(head)].to_vec();
            for (at, event) in events.iter_mut().enumerate() {
                let at = seq(at) + 1;
                if at > floor {
                    let (value, size) = (event.value, event.size);
                    event.wire = write(real_wire, epoch, user, at, value, size, event.at);
                }
            }
            self.logs[user].push(Life {
                epoch,
                floor,
                events,
                states,
            });
        }
        for (row, older) in self.devices.iter_mut().zip(backup.devices) {
            let given = row.attach_epoch;
            *row = older;
            if keeps_attachments {
                row.attach_epoch = row.attach_epoch.max(given);
            }
        }
    }

    /// Whether what comes after a position is gone, or was when its life ended.
    pub fn is_gone(&self, user: usize, at: Position) -> bool {
        let mut lives = self.logs[user].iter();
        lives.any(|l| l.epoch == at.epoch && at.seq < l.floor)
    }
}

/// The rule of the tests: small numbers of what production has large ones of.
pub fn retention(max_events: i64, min_events: i64, max_age: Ms, min_age: Ms) -> Retention {
    let age = |ms: Ms| TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(0));
    Retention {
        max_age: age(max_age),
        min_age: age(min_age),
        max_events,
        min_events,
    }
}

fn write(
    real: bool,
    epoch: Epoch,
    user: usize,
    seq: i64,
    value: u64,
    size: u16,
    at: Ms,
) -> WireEvent {
    let pad = usize::from(size);
    if real {
        let event = Event {
            id: EventId(Uuid::from_u128(value.into())),
            seq,
            event_type: "thing.changed".into(),
            user_id: user_id(user),
            data: serde_json::json!({"value": value, "pad": "x".repeat(pad)}),
            origin_device_id: ClientDeviceId::parse("d1").ok(),
            created_at: wall(at),
        };
        return WireEvent::new(event, epoch);
    }
    let epoch = epoch.0.as_u128();
    WireEvent {
        seq,
        text: format!("E {epoch} {seq} {value} {:pad$}", "").into(),
    }
}
