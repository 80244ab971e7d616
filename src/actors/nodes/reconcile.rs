//! What the store says is attached here and is not: the end of a connection may be lost, with the
//! session that was to note it.

use std::collections::{HashMap, HashSet};

use crate::{actors::sync::AttachedDevice, domain::ids::DeviceId};

/// Devices that were missing at the last look, each with the connection that is noted for it.
#[derive(Debug, Default)]
pub(super) struct Missing(HashMap<DeviceId, i64>);

impl Missing {
    /// Compares what is `stored` with what is attached, which was looked at later; answers what was
    /// missing at the look before too. One that is just attaching is missing once: it is stored first.
    pub(super) fn compare(
        &mut self,
        stored: Vec<(DeviceId, i64)>,
        attached: Vec<AttachedDevice>,
    ) -> Vec<(DeviceId, i64)> {
        let here: HashSet<(DeviceId, i64)> = attached
            .into_iter()
            .map(|it| (it.device, it.attach_epoch))
            .collect();
        let missing: HashMap<DeviceId, i64> =
            stored.into_iter().filter(|it| !here.contains(it)).collect();
        let before = std::mem::replace(&mut self.0, missing);
        let again = |(device, epoch): &(&DeviceId, &i64)| before.get(device) == Some(*epoch);
        let both = self.0.iter().filter(again);
        both.map(|(device, epoch)| (*device, *epoch)).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::UserId;

    #[test]
    fn only_what_is_missing_twice_by_the_same_connection_has_left() {
        let id = |n| DeviceId(Uuid::from_u128(n));
        let here = |n, attach_epoch| AttachedDevice {
            user: UserId(Uuid::from_u128(9)),
            device: id(n),
            attach_epoch,
        };
        let mut missing = Missing::default();
        let stored = vec![(id(1), 4), (id(2), 7), (id(3), 1)];
        assert_eq!(missing.compare(stored.clone(), vec![here(1, 4)]), []);
        // The second was only about to attach, and the third came with a newer connection and went.
        let stored = vec![(id(1), 4), (id(2), 7), (id(3), 2)];
        let attached = vec![here(1, 4), here(2, 7)];
        assert_eq!(missing.compare(stored.clone(), attached.clone()), []);
        assert_eq!(missing.compare(stored, attached), [(id(3), 2)]);
        assert_eq!(missing.compare(vec![], vec![]), []);
    }
}
