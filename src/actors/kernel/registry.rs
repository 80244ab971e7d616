//! Actors of one kind by key: started when first asked for, put to rest when idle.
//!
//! Owns which keys have a living actor on this node. HTTP handlers and other actors ask through it.
//! It never waits inside its map's locks.

use std::{hash::Hash, sync::Arc};

use dashmap::{DashMap, Entry};
use tokio::time::timeout_at;

use super::{
    Ask, Class, Deadline,
    admission::{Permit, Refusal},
    envelope::{Serve, Unit},
    handle::{CallError, Handle, Life, Missed},
    kinds::Totals,
    supervise::{Kernel, Place},
};

type Make<K, A> = dyn Fn(&K) -> A + Send + Sync;

/// The living actors of one kind. Cheap to clone: each actor's supervisor has one.
pub struct Registry<K, A: Unit>(Arc<Inner<K, A>>);

struct Inner<K, A: Unit> {
    kernel: Kernel,
    place: Arc<Place>,
    make: Box<Make<K, A>>,
    actors: DashMap<K, Handle<A>>,
}

impl<K, A: Unit> Clone for Registry<K, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, A: Unit> std::fmt::Debug for Registry<K, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry<{}>", A::KIND)
    }
}

impl<K, A> Registry<K, A>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    A: Unit,
{
    /// An empty registry; `make` makes each life of the actor of a key.
    pub fn new(
        kernel: Kernel,
        place: Place,
        make: impl Fn(&K) -> A + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            kernel,
            place: Arc::new(place),
            make: Box::new(make),
            actors: DashMap::new(),
        }))
    }

    /// Asks the actor of `key`, which is started on the current arbiter if there is none. An ask
    /// that meets an actor going to rest waits for the next one.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask<M: Ask>(
        &self,
        key: &K,
        msg: M,
        deadline: Deadline,
    ) -> Result<M::Reply, CallError>
    where
        A: Serve<M>,
    {
        let (_, reply) = self.ask_and_tell(key, msg, deadline).await?;
        Ok(reply)
    }

    /// Like [`Self::ask`]; tells also which actor answered.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask_and_tell<M: Ask>(
        &self,
        key: &K,
        mut msg: M,
        deadline: Deadline,
    ) -> Result<(Handle<A>, M::Reply), CallError>
    where
        A: Serve<M>,
    {
        loop {
            let (handle, permit) = self.enter(key, M::CLASS, deadline).await?;
            match handle.deliver(permit, msg, deadline).await {
                Ok(reply) => return Ok((handle, reply)),
                // It waited for a life that did not come: its gate is closed, and another is started.
                Err(Missed::Ended(back)) => msg = *back,
                Err(Missed::Failed(e)) => return Err(e),
            }
        }
    }

    async fn enter(
        &self,
        key: &K,
        class: Class,
        deadline: Deadline,
    ) -> Result<(Handle<A>, Permit), CallError> {
        loop {
            let handle = self.get_or_start(key);
            match handle.enter(class) {
                Ok(permit) => return Ok((handle, permit)),
                Err(Refusal::Full) => return Err(CallError::Overloaded),
                Err(Refusal::Closed) => self.wait_for_rest(key, &handle, deadline).await?,
            }
        }
    }

    async fn wait_for_rest(
        &self,
        key: &K,
        handle: &Handle<A>,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let resting = async {
            let mut life = handle.life();
            while life != Life::Stopped {
                life = handle.life_after(life).await;
            }
        };
        timeout_at(deadline.into(), resting)
            .await
            .map_err(|_| CallError::Timeout)?;
        // It announces its end before it leaves the map.
        self.forget(key, handle);
        Ok(())
    }

    /// The actor of `key`, started on the current arbiter if there is none. Of several callers at
    /// once one starts it.
    ///
    /// # Panics
    /// Outside an arbiter there is nowhere to start it.
    #[must_use]
    pub fn get_or_start(&self, key: &K) -> Handle<A> {
        match self.0.actors.entry(key.clone()) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(free) => {
                let (maker, by) = (self.clone(), key.clone());
                let (registry, gone) = (self.clone(), key.clone());
                let handle = self.0.kernel.start_then(
                    &self.0.place,
                    move || (maker.0.make)(&by),
                    move || {
                        registry.forget_stopped(&gone);
                    },
                );
                free.insert(handle.clone());
                handle
            }
        }
    }

    /// The actor of `key`, if it lives.
    #[must_use]
    pub fn find(&self, key: &K) -> Option<Handle<A>> {
        self.0.actors.get(key).map(|found| found.value().clone())
    }

    /// Every living actor.
    #[must_use]
    pub fn all(&self) -> Vec<(K, Handle<A>)> {
        self.0
            .actors
            .iter()
            .map(|e| (e.key().clone(), e.value().clone()))
            .collect()
    }

    /// Shows each living actor to `each`, which must not wait, nor start or end any.
    pub(super) fn each(&self, mut each: impl FnMut(&K, &Handle<A>)) {
        for entry in &self.0.actors {
            each(entry.key(), entry.value());
        }
    }

    /// What the actors of this kind did so far.
    pub(super) fn totals(&self) -> Totals {
        self.0.kernel.totals(A::KIND)
    }

    /// How many live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.actors.len()
    }

    /// Whether none lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.actors.is_empty()
    }

    fn forget(&self, key: &K, handle: &Handle<A>) {
        self.0
            .actors
            .remove_if(key, |_, found| Arc::ptr_eq(&found.0, &handle.0));
    }

    fn forget_stopped(&self, key: &K) {
        self.0
            .actors
            .remove_if(key, |_, found| found.life() == Life::Stopped);
    }
}
