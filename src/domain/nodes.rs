//! Which nodes are alive.
//!
//! Every node raises a number in the database, its beats, once a second. Whoever reads the numbers
//! notices by its own monotonic clock for how long each has stood still; one that stood still for
//! [`Roster::LEASE`] is gone. So no clock is compared with that of another machine, and none that is set
//! wrong, or set right, ends a node. Time in which the reader itself could not read counts for nobody.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::ids::NodeId;

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The process.
    pub id: NodeId,
    /// The name that clients see in `welcome`.
    pub name: String,
    /// When it started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// When it last raised its beats, by its own clock.
    pub seen_at: DateTime<Utc>,
    /// How often it has.
    pub beats: i64,
    /// Its open sockets.
    pub sockets: i64,
    /// Users with a device attached to it.
    pub users: i64,
    /// Devices attached to it.
    pub devices: i64,
}

/// A node, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it told last.
    pub node: Node,
    /// For how long its beats have stood still while they were looked at.
    pub silent: Duration,
    /// Whether its lease has not run out.
    pub alive: bool,
}

/// What a look at the nodes brought to light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there, for the first time or again.
    Came(Node),
    /// Its lease ran out.
    Lost(Node),
    /// It stopped in order: its row is no more.
    Left(Node),
}

/// All nodes, as one of them sees them.
#[derive(Debug, Clone)]
pub struct Roster {
    own: NodeId,
    known: BTreeMap<NodeId, Standing>,
    looked_at: Option<Instant>,
}

impl Roster {
    /// A node whose beats stand still for so long is gone.
    pub const LEASE: Duration = Duration::from_secs(5);
    /// So much of the time between two looks counts at most: more has passed only because the reader
    /// could not read, and then perhaps nobody could write.
    const LOOK: Duration = Duration::from_millis(1500);
    /// The row of a node that has been silent for so long is thrown away.
    const KEEP: Duration = Duration::from_mins(1);

    /// Knows of nobody yet.
    #[must_use]
    pub const fn new(own: NodeId) -> Self {
        Self {
            own,
            known: BTreeMap::new(),
            looked_at: None,
        }
    }

    /// Whose view it is.
    #[must_use]
    pub const fn own(&self) -> NodeId {
        self.own
    }

    /// All rows were read at `now`.
    pub fn seen(&mut self, now: Instant, rows: Vec<Node>) -> Vec<Change> {
        let last = self.looked_at.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(last).min(Self::LOOK);
        let mut before = std::mem::take(&mut self.known);
        let mut changes = Vec::new();
        for node in rows {
            let was = before.remove(&node.id);
            let still = was
                .as_ref()
                .filter(|was| was.node.beats == node.beats && node.id != self.own);
            let silent = still.map_or(Duration::ZERO, |was| was.silent + passed);
            let alive = silent < Self::LEASE;
            match was.map(|was| was.alive) {
                Some(true) if !alive => changes.push(Change::Lost(node.clone())),
                None | Some(false) if alive => changes.push(Change::Came(node.clone())),
                _ => {}
            }
            let standing = Standing {
                node,
                silent,
                alive,
            };
            self.known.insert(standing.node.id, standing);
        }
        let left = before.into_values().filter(|it| it.alive);
        changes.extend(left.map(|it| Change::Left(it.node)));
        changes
    }

    /// Every node that has a row.
    pub fn all(&self) -> impl Iterator<Item = &Standing> {
        self.known.values()
    }

    /// Those whose lease has not run out.
    pub fn alive(&self) -> impl Iterator<Item = &Node> {
        self.known.values().filter(|it| it.alive).map(|it| &it.node)
    }

    /// Whether no other node is alive.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alive().all(|node| node.id == self.own)
    }

    /// Whether a node that is known to have a row is gone all the same. One that is not known yet has
    /// just come.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|it| !it.alive)
    }

    /// Nodes whose rows may go, each with the beats at which it stood still: one that beats again keeps
    /// its row.
    #[must_use]
    pub fn forgotten(&self) -> HashMap<NodeId, i64> {
        let silent = self.known.values().filter(|it| it.silent >= Self::KEEP);
        silent.map(|it| (it.node.id, it.node.beats)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    fn node(n: u128, beats: i64) -> Node {
        Node {
            id: id(n),
            name: format!("node-{n}"),
            started_at: DateTime::UNIX_EPOCH,
            seen_at: DateTime::UNIX_EPOCH,
            beats,
            sockets: 0,
            users: 0,
            devices: 0,
        }
    }

    /// Looks once a second; each look is given the beats of nodes 1 (its own) and 2.
    struct Watch {
        roster: Roster,
        now: Instant,
    }

    impl Watch {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        fn new() -> Self {
            let now = Instant::now();
            let roster = Roster::new(id(1));
            Self { roster, now }
        }

        fn look(&mut self, after: Duration, rows: Vec<Node>) -> Vec<Change> {
            self.now += after;
            self.roster.seen(self.now, rows)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_that_stands_still_is_lost_after_its_lease_and_may_come_again() {
        let mut watch = Watch::new();
        let came = watch.look(SECOND, vec![node(1, 1), node(2, 7)]);
        assert_eq!(came, [Change::Came(node(1, 1)), Change::Came(node(2, 7))]);
        assert!(!watch.roster.is_alone());
        for n in 2..=5 {
            assert_eq!(watch.look(SECOND, vec![node(1, n), node(2, 7)]), []);
        }
        assert!(!watch.roster.is_gone(id(2)));
        let lost = watch.look(SECOND, vec![node(1, 6), node(2, 7)]);
        assert_eq!(lost, [Change::Lost(node(2, 7))]);
        assert!(watch.roster.is_alone() && watch.roster.is_gone(id(2)));
        assert_eq!(watch.look(SECOND, vec![node(1, 7), node(2, 7)]), []);
        let again = watch.look(SECOND, vec![node(1, 8), node(2, 8)]);
        assert_eq!(again, [Change::Came(node(2, 8))]);
        assert!(!watch.roster.is_alone());
    }

    #[test]
    fn one_that_stops_in_order_leaves_at_once_and_one_that_was_lost_leaves_no_more() {
        let mut watch = Watch::new();
        watch.look(SECOND, vec![node(1, 1), node(2, 7)]);
        let left = watch.look(SECOND, vec![node(1, 2)]);
        assert_eq!(left, [Change::Left(node(2, 7))]);
        assert!(!watch.roster.is_gone(id(2)), "its row tells no more of it");
        watch.look(SECOND, vec![node(1, 2), node(3, 1)]);
        for _ in 0..70 {
            watch.look(SECOND, vec![node(1, 2), node(3, 1)]);
        }
        assert_eq!(watch.roster.forgotten(), HashMap::from([(id(3), 1)]));
        assert_eq!(watch.look(SECOND, vec![node(1, 2)]), []);
    }

    #[test]
    fn time_in_which_nobody_could_look_counts_for_nobody() {
        let mut watch = Watch::new();
        watch.look(SECOND, vec![node(1, 1), node(2, 7)]);
        // The database was away for a minute, for all.
        assert_eq!(watch.look(60 * SECOND, vec![node(1, 2), node(2, 7)]), []);
        assert_eq!(watch.look(SECOND, vec![node(1, 3), node(2, 8)]), []);
    }

    #[test]
    fn the_reader_itself_is_never_gone() {
        let mut watch = Watch::new();
        for _ in 0..100 {
            watch.look(SECOND, vec![node(1, 1)]);
        }
        assert!(watch.roster.is_alone() && !watch.roster.is_gone(id(1)));
    }

    proptest! {
        /// Who beats at least every three seconds is never lost, and who does not beat any more is, in
        /// the time of the lease and one look.
        #[test]
        fn who_beats_stays_and_who_does_not_goes(
            gaps in prop::collection::vec((200_u64..1400, 1_u32..3), 1..60),
        ) {
            let mut watch = Watch::new();
            let mut beats = 1;
            watch.look(SECOND, vec![node(2, beats)]);
            for (millis, looks) in gaps {
                for _ in 0..looks {
                    prop_assert_eq!(watch.look(Duration::from_millis(millis), vec![node(2, beats)]), vec![]);
                }
                beats += 1;
                prop_assert_eq!(watch.look(Duration::from_millis(millis), vec![node(2, beats)]), vec![]);
            }
            let mut silent = Duration::ZERO;
            while !watch.roster.is_gone(id(2)) {
                watch.look(SECOND, vec![node(2, beats)]);
                silent += SECOND;
                prop_assert!(silent <= Roster::LEASE);
            }
            prop_assert_eq!(silent, Roster::LEASE);
        }
    }
}
