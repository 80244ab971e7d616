//! What a session knows of the player: a copy of what is stored, and of which moment it is.
//!
//! Owned and asked by the session alone. Reads nothing itself: who tells it something says where it is
//! from, because a store may fall back to an older state, and answers may come late.

use std::time::Instant;

use crate::{
    actors::kernel::Timer,
    domain::{
        clock::World,
        library::Player,
        sync::{LogHead, Pace, PlayerAsk},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PlayerDesk {
    pub known: Option<Known>,
    /// What devices asked while it is being read.
    pub waiting: Vec<PlayerAsk>,
    pub reading: bool,
    /// Each is an event of the log, which signals are not.
    pub transfers: Option<Pace>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub player: Player,
    /// The log's ends when it was so: an event after them may have changed it. None: a command found
    /// another log than this is of.
    at: Option<LogHead>,
    /// What was asked for after this is at least as new.
    since: Instant,
    /// When what plays was stored last.
    pub saved: Option<Instant>,
    /// What plays is newer than what is stored.
    pub save: Option<Timer>,
}

impl PlayerDesk {
    /// Whether it is known what the player is while the log's ends are these.
    pub(super) fn is_fresh(&self, log: Option<LogHead>) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|it| it.at.is_some() && it.at == log)
    }

    /// Learns what was read, unless the copy is newer.
    pub(super) fn read(&mut self, player: Player, at: LogHead, asked_at: Instant, world: &World) {
        // An answer with an older log that was asked for since is of a store that fell back.
        let is_late = |known: &Known| {
            let is_older = |it: LogHead| it.epoch == at.epoch && at.head_seq < it.head_seq;
            known.at.is_some_and(is_older) && asked_at < known.since
        };
        if !self.known.as_ref().is_some_and(is_late) {
            self.learn(player, at, world);
        }
    }

    /// Learns what a command of this session made, or found to be so: they come one after another, so
    /// nothing that is known is newer but what the next signal reads again.
    pub(super) fn learn(&mut self, mut player: Player, at: LogHead, world: &World) {
        let (now, since, at) = (world.now(), world.instant(), Some(at));
        if let Some(known) = &mut self.known {
            if known.player.version == player.version {
                // What was said here may not be stored yet.
                let heard = known.player.state.take();
                if heard
                    .as_ref()
                    .is_some_and(|it| it.is_after(player.state.as_ref(), now))
                {
                    player.state = heard;
                }
            }
            (known.player, known.at, known.since) = (player, at, since);
        } else {
            self.known = Some(Known {
                player,
                at,
                since,
                saved: None,
                save: None,
            });
        }
    }

    /// The log moved from `before` to `after` by a command of this session, which changed the player
    /// only if `changed`: what is known stays true if it was.
    pub(super) fn moved(&mut self, before: i64, after: LogHead, changed: bool, now: Instant) {
        let Some(known) = &mut self.known else {
            return;
        };
        let Some(at) = known.at.filter(|at| at.epoch == after.epoch) else {
            return;
        };
        if at.head_seq > before {
            // It is of a later log, or of one of which the end was lost.
            known.at = None;
        } else if at.head_seq == before && !changed {
            (known.at, known.since) = (Some(after), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::Epoch;

    const fn log(head_seq: i64) -> LogHead {
        LogHead {
            epoch: Epoch(Uuid::nil()),
            head_seq,
            floor_seq: 0,
        }
    }

    fn player(version: i64) -> Player {
        Player {
            version,
            ..Player::default()
        }
    }

    fn version(desk: &PlayerDesk) -> i64 {
        desk.known.as_ref().unwrap().player.version
    }

    /// A desk that learned the event `seq`, and a moment before that.
    fn desk(seq: i64, world: &World) -> (PlayerDesk, Instant) {
        let (mut desk, before) = (PlayerDesk::default(), world.instant());
        while world.instant() == before {}
        desk.learn(player(seq), log(seq), world);
        (desk, before)
    }

    #[test]
    fn a_read_of_before_is_late_and_one_since_is_of_a_store_that_fell_back() {
        let world = World::system();
        let (mut desk, before) = desk(10, &world);
        desk.read(player(9), log(9), before, &world);
        assert_eq!(version(&desk), 10);
        assert!(desk.is_fresh(Some(log(10))));
        desk.read(player(9), log(9), world.instant(), &world);
        assert_eq!(version(&desk), 9);
        assert!(!desk.is_fresh(Some(log(10))) && desk.is_fresh(Some(log(9))));
    }

    #[test]
    fn what_a_command_made_is_learned_whatever_was_known() {
        let world = World::system();
        let (mut desk, _) = desk(10, &world);
        desk.learn(player(8), log(8), &world);
        assert_eq!(version(&desk), 8);
        assert!(desk.is_fresh(Some(log(8))));
    }

    #[test]
    fn a_copy_moves_with_commands_until_one_finds_another_log() {
        let world = World::system();
        let (mut desk, before) = desk(10, &world);
        desk.moved(10, log(11), false, world.instant());
        assert!(desk.is_fresh(Some(log(11))));
        // Read before that command.
        desk.read(player(9), log(10), before, &world);
        assert!(desk.is_fresh(Some(log(11))));
        // The last events were lost, and as many came after them.
        desk.moved(9, log(11), false, world.instant());
        assert!(!desk.is_fresh(Some(log(11))) && !desk.is_fresh(None));
        desk.read(player(9), log(11), world.instant(), &world);
        assert_eq!(version(&desk), 9);
        assert!(desk.is_fresh(Some(log(11))));
        desk.moved(11, log(12), true, world.instant());
        assert!(!desk.is_fresh(Some(log(12))));
    }
}
