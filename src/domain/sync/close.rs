//! Why a connection of the subprotocol `listen-stream.v1` is closed.

/// Why a connection ends, as its close frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client asked, or is gone.
    Normal,
    /// The node is going away.
    GoingAway,
    /// What came breaks the rules of the WebSocket protocol itself.
    ProtocolError,
    /// Text was not UTF-8.
    InvalidUtf8,
    /// A frame was larger than [`ClientFrame::MAX_BYTES`].
    TooBig,
    /// The session is quarantined or did not come back in time.
    TryAgainLater,
    /// A newer connection of the same device took over.
    Replaced,
    /// Nothing was heard for too long.
    NoHeartbeat,
    /// Events were sent, and none was acknowledged for too long.
    NotAcking,
    /// The token expired or was revoked.
    TokenOver,
    /// The device was removed.
    DeviceRemoved,
    /// A frame could not be read.
    BadFrame,
}

impl CloseCode {
    /// Every code there is.
    pub const ALL: [Self; 12] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::InvalidUtf8,
        Self::TooBig,
        Self::TryAgainLater,
        Self::Replaced,
        Self::NoHeartbeat,
        Self::NotAcking,
        Self::TokenOver,
        Self::DeviceRemoved,
        Self::BadFrame,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig => 1009,
            Self::TryAgainLater => 1013,
            Self::Replaced => 4001,
            Self::NoHeartbeat => 4002,
            Self::TokenOver => 4003,
            Self::NotAcking => 4004,
            Self::DeviceRemoved => 4005,
            Self::BadFrame => 4006,
        }
    }

    /// The reason beside the number, also the metric's label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going_away",
            Self::ProtocolError => "protocol_error",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooBig => "frame_too_big",
            Self::TryAgainLater => "session_unavailable",
            Self::Replaced => "replaced",
            Self::NoHeartbeat => "no_heartbeat",
            Self::TokenOver => "token_over",
            Self::NotAcking => "not_acking",
            Self::DeviceRemoved => "device_removed",
            Self::BadFrame => "bad_frame",
        }
    }
}
