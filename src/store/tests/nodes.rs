use std::collections::HashMap;

use super::*;
use crate::domain::nodes::Node;

on_both!(beats, where_devices_are);

fn node(id: NodeId, sockets: i64) -> Node {
    Node {
        id,
        name: "node-1".into(),
        started_at: t(0),
        seen_at: t(sockets),
        beats: 1,
        sockets,
        users: 2,
        devices: 3,
    }
}

async fn beats(bed: &Bed) {
    let (one, other) = (NodeId(bed.uuid()), NodeId(bed.uuid()));
    let beat = async |node| bed.store.node_beat(bed.soon(), node).await.unwrap();
    assert_eq!(beat(node(one, 5)).await, [node(one, 5)]);
    let again = Node {
        beats: 2,
        ..node(one, 6)
    };
    assert_eq!(beat(node(one, 6)).await, [again]);
    assert_eq!(beat(node(other, 0)).await.len(), 2);
    // Who has beaten since is not forgotten.
    let forget = async |id, beats| {
        let nodes = HashMap::from([(id, beats)]);
        bed.store.nodes_forget(bed.soon(), nodes).await.unwrap();
        bed.count("SELECT count(*) FROM nodes").await
    };
    assert_eq!(forget(one, 1).await, 2);
    assert_eq!(forget(one, 2).await, 1);
    // It was only slow: it makes its row anew.
    assert_eq!(beat(node(one, 7)).await.len(), 2);
    bed.store.node_remove(bed.soon(), one).await.unwrap();
    assert_eq!(bed.count("SELECT count(*) FROM nodes").await, 1);
}

async fn where_devices_are(bed: &Bed) {
    let s = bed.user().await;
    let (user, device) = (s.user.id, s.device.id);
    let (here, there) = (NodeId(bed.uuid()), NodeId(bed.uuid()));
    bed.store
        .node_beat(bed.soon(), node(here, 0))
        .await
        .unwrap();
    let attach = async |node| {
        let attached = bed
            .store
            .device_attach(bed.soon(), user, device, None, node);
        attached.await.unwrap().unwrap().attach_epoch
    };
    let found = async || {
        let found = bed.store.devices_attached(bed.soon(), user).await.unwrap();
        found.into_iter().map(|(_, node)| node).collect::<Vec<_>>()
    };
    let leave = async |attach_epoch| {
        let left = bed
            .store
            .devices_left(bed.soon(), &[(device, attach_epoch)])
            .await;
        left.unwrap();
    };
    assert_eq!(found().await, []);
    let first = attach(here).await;
    assert_eq!(found().await, [here]);
    let of = bed.store.devices_of_node(bed.soon(), here).await.unwrap();
    assert_eq!(of, [(device, first)]);
    // A node without a row has no devices.
    let second = attach(there).await;
    assert_eq!(found().await, []);
    bed.store
        .node_beat(bed.soon(), node(there, 0))
        .await
        .unwrap();
    assert_eq!(found().await, [there]);
    // The older connection's end says nothing of the newer.
    leave(first).await;
    assert_eq!(found().await, [there]);
    leave(second).await;
    assert_eq!(found().await, []);
    // One that attaches again as the same connection is noted nowhere else.
    let third = attach(here).await;
    let held = bed
        .store
        .device_attach(bed.soon(), user, device, Some(third), there);
    held.await.unwrap().unwrap();
    assert_eq!(found().await, [here]);
}
