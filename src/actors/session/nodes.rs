//! What sessions of one user at several nodes tell each other beside the log: signals, and who is
//! where. It goes by Redis, and may be lost: signals are not repeated, and presence is told again
//! with every heartbeat. The node keeper tells when a node is gone.

use std::sync::Arc;

use super::UserSession;
use crate::{
    actors::kernel::{Cx, Reply, Serve, asks},
    domain::{
        identity::ClientDeviceId,
        sync::{NodeNews, Signal, Told},
    },
};

/// Something that another node told.
#[derive(Debug)]
pub struct FromNode(pub Told);

asks! {
    Control FromNode -> ();
    Control NodeGone -> ();
    Control TellPresent -> ();
}

/// This node is gone, and its devices with it.
#[derive(Debug)]
pub struct NodeGone(pub Arc<str>);

/// Other nodes may have taken this one for gone: tell them again who is attached here.
#[derive(Debug)]
pub struct TellPresent;

impl UserSession {
    fn tell_nodes(&self, news: NodeNews) {
        if let (Some(hints), Some(log)) = (&self.parts.hints, self.core.log()) {
            let (node, epoch) = (self.parts.config.node.clone(), log.epoch);
            hints.tell(self.user, &Told { node, epoch, news });
        }
    }

    /// Hands a device's signal to whoever is attached elsewhere.
    pub(super) fn relay(&self, from: ClientDeviceId, signal: Signal) {
        self.tell_nodes(NodeNews::Signal { from, signal });
    }

    /// Tells who is attached here.
    pub(super) fn tell_present(&self, devices: Vec<ClientDeviceId>) {
        let answer = false;
        self.tell_nodes(NodeNews::Present { devices, answer });
    }

    /// Hints of other nodes arrive from now on: asks who is there.
    pub(super) fn ask_who_is_elsewhere(&self) {
        let devices = self.core.present_here();
        let answer = true;
        self.tell_nodes(NodeNews::Present { devices, answer });
    }
}

impl Serve<FromNode> for UserSession {
    fn serve(&mut self, it: FromNode, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let FromNode(Told { node, epoch, news }) = it;
        let is_ours = self.core.log().is_some_and(|log| log.epoch == epoch);
        // What a node publishes comes back to it.
        if !is_ours || node == self.parts.config.node || self.links.is_empty() {
            return Reply::Now(());
        }
        self.note_unread();
        let effects = match news {
            NodeNews::Signal { from, signal } => {
                self.player_heard(&from, &signal, cx);
                self.core.signal_arrived(&from, &signal)
            }
            NodeNews::Present { devices, answer } => {
                if answer {
                    self.tell_present(self.core.present_here());
                }
                let now = cx.world.instant();
                self.core.presence_arrived(now, &node, devices)
            }
        };
        self.apply(effects, cx);
        Reply::Now(())
    }
}

impl Serve<NodeGone> for UserSession {
    fn serve(&mut self, NodeGone(node): NodeGone, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.note_unread();
        let now = cx.world.instant();
        let effects = self.core.presence_arrived(now, &node, Vec::new());
        self.apply(effects, cx);
        Reply::Now(())
    }
}

impl Serve<TellPresent> for UserSession {
    fn serve(&mut self, _: TellPresent, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if !self.links.is_empty() {
            self.tell_present(self.core.present_here());
        }
        Reply::Now(())
    }
}
