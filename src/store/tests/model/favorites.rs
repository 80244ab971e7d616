//! Favorites: put, removed, restored.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// What happens to a favorite.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Put,
    Remove,
    Restore,
}

#[derive(Debug, Clone)]
pub(super) struct FavoriteCommand {
    verb: Verb,
    key: FavoriteKey,
}

/// By type and target: when it was marked, and whether it is in force.
#[derive(Default)]
pub(super) struct Favorites(BTreeMap<(String, String), (DateTime<Utc>, bool)>);

impl Part for Favorites {
    type Command = FavoriteCommand;
    /// By id, as the list shows them.
    type Client = BTreeMap<String, Value>;
    const EVENTS: &'static str = "favorite";

    fn commands() -> BoxedStrategy<FavoriteCommand> {
        let verb = prop_oneof![Just(Verb::Put), Just(Verb::Remove), Just(Verb::Restore)];
        let kind = prop_oneof![Just(FavoriteType::Song), Just(FavoriteType::Album)];
        let all = (verb, kind, 0..4);
        all.prop_map(|(verb, kind, n)| {
            let target_id = TargetId::parse(format!("t{n}")).unwrap();
            let key = FavoriteKey { kind, target_id };
            FavoriteCommand { verb, key }
        })
        .boxed()
    }

    async fn run(&mut self, at: &At<'_>, command: &FavoriteCommand) -> Vec<Event> {
        let kind = command.key.kind.as_str().to_owned();
        let name = (kind, command.key.target_id.as_str().to_owned());
        let known = self.0.get(&name).copied();
        let asked = crate::store::FavoriteCommand {
            user: at.user,
            key: command.key.clone(),
            origin: Some(at.device.clone()),
            now: at.now,
            favorite_id: FavoriteId(at.bed.uuid()),
            event_id: EventId(at.bed.uuid()),
        };
        let (store, soon) = (&at.bed.store, at.bed.soon());
        match command.verb {
            Verb::Put => {
                let out = store.favorite_put(soon, asked).await.unwrap();
                let was = known.is_some_and(|(_, is)| is);
                assert_eq!(out.value.added, !was);
                if !was {
                    self.0.insert(name, (at.now, true));
                }
                at.told(&out)
            }
            Verb::Remove => {
                let out = store.favorite_remove(soon, asked).await.unwrap();
                assert_eq!(out.value, known.is_some());
                self.0.entry(name).and_modify(|(_, is)| *is = false);
                at.told(&out)
            }
            Verb::Restore => {
                let out = store.favorite_restore(soon, asked).await.unwrap();
                assert_eq!(out.value.is_some(), known.is_some());
                self.0.entry(name).and_modify(|(_, is)| *is = true);
                at.told(&out)
            }
        }
    }

    fn apply(client: &mut Self::Client, event_type: &str, data: &Value) {
        let id = data["id"].as_str().unwrap().to_owned();
        match event_type {
            "favorite.added" | "favorite.restored" => {
                let mut favorite = data.clone();
                favorite.as_object_mut().unwrap().remove("version");
                client.insert(id, favorite);
            }
            "favorite.removed" => assert!(client.remove(&id).is_some()),
            other => panic!("{other}"),
        }
    }

    async fn check(&self, at: &At<'_>, client: &Self::Client) {
        let query = FavoriteQuery {
            user: at.user,
            kind: None,
            limit: 100,
            before: None,
        };
        let listed = at.bed.store.favorite_list(at.bed.soon(), query).await;
        let listed: Vec<_> = listed.unwrap().iter().map(|it| json!(it)).collect();
        let name = |it: &Value| {
            let text = |field: &str| it[field].as_str().unwrap().to_owned();
            ((text("type"), text("target_id")), text("created_at"))
        };
        let stored: BTreeMap<_, _> = listed.iter().map(name).collect();
        let modelled = self.0.iter().filter(|(_, (_, is))| *is);
        let modelled =
            modelled.map(|(name, (at, _))| (name.clone(), crate::domain::time::rfc3339(*at)));
        assert_eq!(stored, modelled.collect());
        let mut applied: Vec<_> = client.values().cloned().collect();
        let order = |it: &Value| (it["created_at"].to_string(), it["id"].to_string());
        applied.sort_by_key(|it| std::cmp::Reverse(order(it)));
        assert_eq!(applied, listed, "what the client has");
    }
}
