use super::*;
use crate::domain::identity::SmsCode;

on_both!(
    keys_are_made_once,
    racing_starts,
    racing_masters,
    wrong_master_key
);

/// What tells two sets of keys apart.
fn print(secrets: &Secrets) -> String {
    secrets.hash_code(&phone(), &SmsCode::from_number(1))
}

fn master() -> MasterKey {
    MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

async fn keys_are_made_once(bed: &Bed) {
    let first = bed.store.secrets_load(bed.soon(), &master()).await.unwrap();
    let second = bed.store.secrets_load(bed.soon(), &master()).await.unwrap();
    assert_eq!(print(&first), print(&second));
    assert_eq!(bed.count("SELECT count(*) FROM secret_keys").await, 2);
}

async fn racing_starts(bed: &Bed) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { print(&store.secrets_load(soon, &master()).await.unwrap()) })
        })
        .collect();
    let mut prints = Vec::new();
    for task in tasks {
        prints.push(task.await.unwrap());
    }
    prints.dedup();
    assert_eq!(prints.len(), 1);
}

async fn racing_masters(bed: &Bed) {
    let mine = master();
    // Whoever wins, one master key opens all that is there.
    for _ in 0..20 {
        let other = MasterKey::from_base64("AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let (ours, others) = tokio::join!(
            bed.store.secrets_load(bed.soon(), &mine),
            bed.store.secrets_load(bed.soon(), &other),
        );
        assert!(ours.is_ok() != others.is_ok(), "{ours:?} {others:?}");
        bed.sql("DELETE FROM secret_keys").await.unwrap();
    }
}

async fn wrong_master_key(bed: &Bed) {
    bed.store.secrets_load(bed.soon(), &master()).await.unwrap();
    let other = MasterKey::from_base64("AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let refused = bed
        .store
        .secrets_load(bed.soon(), &other)
        .await
        .unwrap_err();
    assert!(matches!(refused, KeysError::WrongMasterKey), "{refused}");
    // One stored under another name does not open either.
    bed.sql("UPDATE secret_keys SET kid = 'x' WHERE kid = 'access-1'")
        .await
        .unwrap();
    let refused = bed
        .store
        .secrets_load(bed.soon(), &master())
        .await
        .unwrap_err();
    assert!(matches!(refused, KeysError::WrongMasterKey), "{refused}");
}

#[test]
fn key_files_are_private_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let key = MasterKey::create_file(&path, &World::system()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(MasterKey::from_file(&path).is_ok());
    assert!(matches!(
        MasterKey::create_file(&path, &World::system()),
        Err(KeysError::File { .. })
    ));
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
    assert_eq!(format!("{key:?}"), "MasterKey(***)");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for bad in ["", "AAAA", "not base64!"] {
        assert!(matches!(
            MasterKey::from_base64(bad),
            Err(KeysError::BadMasterKey)
        ));
    }
}
