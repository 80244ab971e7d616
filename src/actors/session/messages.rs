//! What a session is asked and told.

use chrono::{DateTime, Utc};

use crate::{
    actors::{
        Failure,
        identity::Opened,
        kernel::{Frames, Outlet, asks},
    },
    domain::{
        identity::{Caller, ClientDeviceId, Device, Presented, RefreshToken, User},
        ids::{ConnId, DeviceId, Epoch, FavoriteId},
        library::{Favorite, FavoriteKey, FavoriteType, Player},
        sync::{
            ClientFrame, CloseCode, EventView, LogHead, Position, PresentDevice, Seen, ServerFrame,
        },
    },
    store::{PlayerActivation, SnapshotOutcome, Superseded},
};

asks! {
    Read Profile -> Result<Option<User>, Failure>;
    Read ListDevices -> Result<Vec<Device>, Failure>;
    Read Presence -> Vec<PresentDevice>;
    Read ListFavorites -> Result<Vec<Favorite>, Failure>;
    Read GetPlayer -> Result<Option<Player>, Failure>;
    Read GetSnapshot -> Result<SnapshotOutcome, Failure>;
    Command TransferPlayer -> Result<Done<PlayerActivation>, Failure>;
    Read ReadChanges -> Result<ChangesReply, Failure>;
    Command RemoveDevice -> Result<bool, Failure>;
    Command Rotate -> Result<RotateReply, Failure>;
    Command IssueTicket -> Result<Option<String>, Failure>;
    Command RedeemTicket -> Result<Option<Caller>, Failure>;
    Command PutFavorite -> Result<Done<(Favorite, bool)>, Failure>;
    Command RemoveFavorite -> Result<Done<bool>, Failure>;
    Command RestoreFavorite -> Result<Done<Option<Favorite>>, Failure>;
    Command AckChanges -> Result<AckReply, Failure>;
    Control Attach -> Result<AttachedTo, AttachRefused>;
    Control Frame -> ();
    Control Heard -> ();
    Control Detached -> ();
    Control HeadSeen -> ();
    Control HeadHinted -> ();
    Control Superseded -> ();
    Control AttachHinted -> ();
    Control Listening -> ();
    Control FellBack -> ();
    Control Recheck -> ();
    Control Drain -> ();
}

/// Who the user is.
#[derive(Debug)]
pub struct Profile;

/// The user's devices, oldest first.
#[derive(Debug)]
pub struct ListDevices;

/// The user's devices that are connected, to whichever node. Answered from memory where there is no
/// other node.
#[derive(Debug)]
pub struct Presence;

/// The player. None: the user is gone.
#[derive(Debug)]
pub struct GetPlayer;

/// Another device is to be the one that plays.
#[derive(Debug)]
pub struct TransferPlayer {
    /// Which; none: no device.
    pub device: Option<ClientDeviceId>,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// Everything that the user keeps, from one consistent read. The one before, if it is still on its way
/// or waits for that, is ended: a user has one at a time.
#[derive(Debug)]
pub struct GetSnapshot;

/// Remove a device: its tokens are refused at once, its socket closes. Answers whether there was one.
#[derive(Debug)]
pub struct RemoveDevice(pub DeviceId);

/// Exchange a refresh token.
#[derive(Debug)]
pub struct Rotate {
    /// What the token says; its signature was found good.
    pub token: RefreshToken,
    /// What the store compares.
    pub presented: Presented,
}

/// What became of [`Rotate`].
#[derive(Debug)]
pub enum RotateReply {
    /// The next pair, or the same again for a retry.
    Opened(Box<Opened>),
    /// The token was used before: the device is signed out.
    Reused,
    /// The token opens nothing.
    Invalid,
}

/// Make a ticket with which the caller may open a socket. None: the device is gone.
#[derive(Debug)]
pub struct IssueTicket(pub Caller);

/// Use a ticket up. None: it is not in force.
#[derive(Debug)]
pub struct RedeemTicket {
    /// SHA-256 of the ticket.
    pub ticket_hash: String,
}

/// A change that was stored, with the head of the log after it.
#[derive(Debug)]
pub struct Done<T> {
    /// What it did.
    pub value: T,
    /// A device that applied everything up to here has seen the change.
    pub seq: i64,
    /// Of the log.
    pub epoch: Epoch,
}

impl<T> Done<T> {
    /// The same of something else.
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Done<U> {
        Done {
            value: f(self.value),
            seq: self.seq,
            epoch: self.epoch,
        }
    }
}

/// Make something a favorite. Answers it, and whether it is new.
#[derive(Debug)]
pub struct PutFavorite {
    /// Which.
    pub key: FavoriteKey,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// Remove a favorite. Answers whether it ever was one.
#[derive(Debug)]
pub struct RemoveFavorite {
    /// Which.
    pub key: FavoriteKey,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// Bring a removed favorite back. None: it never was one.
#[derive(Debug)]
pub struct RestoreFavorite {
    /// Which.
    pub key: FavoriteKey,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// A page of the user's favorites, newest first.
#[derive(Debug)]
pub struct ListFavorites {
    /// Only these.
    pub kind: Option<FavoriteType>,
    /// At most so many.
    pub limit: u32,
    /// Only those before this one.
    pub before: Option<(DateTime<Utc>, FavoriteId)>,
}

/// A piece of the log.
#[derive(Debug)]
pub struct ReadChanges {
    /// The asking device: where no position is given, its cursor is meant.
    pub device: DeviceId,
    /// Events after this one.
    pub since: Option<i64>,
    /// The life of the log that `since` belongs to.
    pub epoch: Option<Epoch>,
    /// At most so many.
    pub limit: u32,
}

/// What became of [`ReadChanges`].
#[derive(Debug)]
pub enum ChangesReply {
    /// The events.
    Page {
        /// In order, without a gap.
        events: Vec<EventView>,
        /// The ends of the log.
        log: LogHead,
    },
    /// The log no longer reaches back that far.
    Compacted(LogHead),
    /// The position belongs to another life of the log.
    EpochChanged(LogHead),
    /// The asking device is no longer one of the user's.
    NoDevice,
}

/// Move a device's cursor.
#[derive(Debug)]
pub struct AckChanges {
    /// The device.
    pub device: DeviceId,
    /// Everything up to here is applied.
    pub position: Position,
}

/// What became of [`AckChanges`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckReply {
    /// The cursor now in force.
    Acked(i64),
    /// The head is before the position.
    BeyondHead(i64),
    /// The position belongs to another life of the log; this is the current one.
    EpochChanged(Epoch),
    /// The device is no longer one of the user's.
    NoDevice,
}

/// A connection wants to be sent what its device lacks.
#[derive(Debug)]
pub struct Attach {
    /// The connection.
    pub conn: ConnId,
    /// Whose it is.
    pub caller: Caller,
    /// Where the client says it is.
    pub since: Option<Position>,
    /// What it was attached to, if that was an earlier life of the session: it attaches as the same
    /// connection, and is refused if its device has a newer one.
    pub resumed: Option<Resumed>,
    /// The way to it.
    pub outlet: Outlet<ToDevice>,
}

/// What a connection that attaches again was attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The epoch that its client knows.
    pub epoch: Epoch,
    /// Its place among the connections of its device.
    pub attach_epoch: i64,
    /// The epoch and the floor of a resync that its client has not acknowledged.
    pub resyncing: Option<Position>,
}

/// What a connection was attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedTo {
    /// The session's life: when it ends, the connection attaches again.
    pub life: u32,
    /// The epoch of the log that its client was told of.
    pub epoch: Epoch,
    /// Its place among the connections of its device, on all nodes: the highest is the one that
    /// counts.
    pub attach_epoch: i64,
}

impl AttachedTo {
    /// With what the connection attaches again.
    #[must_use]
    pub const fn resumed(self) -> Resumed {
        Resumed {
            epoch: self.epoch,
            attach_epoch: self.attach_epoch,
            resyncing: None,
        }
    }
}

impl Resumed {
    /// The same, its client having been told of another epoch since.
    #[must_use]
    pub const fn at(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }

    /// The same, its client still owing the ack of a resync, of which the epoch and the floor are
    /// given.
    #[must_use]
    pub const fn resyncing(self, told: Position) -> Self {
        Self {
            epoch: told.epoch,
            resyncing: Some(told),
            ..self
        }
    }
}

/// Why a connection was not attached, as its close frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachRefused(pub CloseCode);

/// A connection heard a frame.
#[derive(Debug)]
pub struct Frame {
    /// The connection.
    pub conn: ConnId,
    /// What it heard.
    pub frame: ClientFrame,
}

/// A connection heard its client, without content.
#[derive(Debug)]
pub struct Heard(pub ConnId);

/// A connection ended.
#[derive(Debug)]
pub struct Detached(pub ConnId);

/// The ends of the log, as the head watcher read them.
#[derive(Debug)]
pub struct HeadSeen(pub Seen);

/// The ends of the log, as another node told them, and when they arrived. They may be old, also where
/// they arrive only now: of another life of the log they mean no more than that the log should be
/// looked at. The floor they name is not believed: only a read tells what is gone.
#[derive(Debug)]
pub struct HeadHinted(pub Seen);

/// The store holds a lower attach epoch than one that a device attached with: it fell back to an older
/// state, and that connection cannot be told from later ones.
#[derive(Debug)]
pub struct FellBack {
    /// The device.
    pub device: DeviceId,
    /// What its connection here attached with.
    pub held: i64,
}

/// A device attached anew, as a node told whose log has this epoch. With another epoch it is of
/// another deployment, or from before a restore, and means nothing.
#[derive(Debug)]
pub struct AttachHinted(pub Epoch, pub Superseded);

/// Hints of other nodes arrive from now on: look up what came before, and ask who is there.
#[derive(Debug)]
pub struct Listening;

/// Something was revoked: look whether an attached device is concerned.
#[derive(Debug)]
pub struct Recheck;

/// The node is going away: every connection is told, and closes.
#[derive(Debug)]
pub struct Drain;

/// What a session pushes to a connection.
#[derive(Debug)]
pub enum ToDevice {
    /// Text frames, in this order.
    Text(Vec<bytestring::ByteString>),
    /// A ping.
    Ping,
    /// The client's token was renewed: with this one it attaches again.
    Renewed(Box<Caller>),
    /// Close; nothing follows.
    Close(CloseCode),
}

impl Frames for ToDevice {
    fn frames(&self) -> usize {
        match self {
            // The window bounds events; what passes beside it is bounded by what waits of its kind.
            Self::Text(texts) => texts
                .iter()
                .filter(|text| !ServerFrame::is_event(text))
                .count(),
            Self::Ping | Self::Renewed(_) | Self::Close(_) => 0,
        }
    }
}
