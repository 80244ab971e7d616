use super::*;

on_both!(opens_again, newer_schema, older_binary, pings, closed);

async fn opens_again(bed: &Bed) {
    let s = bed.user().await;
    let second = open(&bed.config).await.unwrap();
    let user = second.user_fetch(bed.soon(), s.user.id).await.unwrap();
    assert_eq!(user, Some(s.user));
    second.close().await;
}

async fn newer_schema(bed: &Bed) {
    bed.sql("UPDATE schema_support SET oldest_known = 99")
        .await
        .unwrap();
    let refused = open(&bed.config).await.unwrap_err().to_string();
    let known = format!("up to {}", migrate::newest());
    assert!(
        refused.contains("99") && refused.contains(&known),
        "{refused}"
    );
}

async fn older_binary(bed: &Bed) {
    // A migration that this binary does not know, but can live with.
    bed.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'later', TRUE, 'x', 0)",
    )
    .await
    .unwrap();
    open(&bed.config).await.unwrap().close().await;
}

async fn pings(bed: &Bed) {
    assert_eq!(bed.store.ping(bed.soon()).await, Ok(()));
}

async fn closed(bed: &Bed) {
    bed.user().await;
    bed.store.close().await;
    assert_eq!(
        bed.store.ping(bed.soon()).await,
        Err(StoreError::Unavailable)
    );
    let command = bed.favorite(UserId(bed.uuid()), "x", t(0));
    let refused = bed.store.favorite_put(bed.soon(), command).await;
    assert_eq!(refused, Err(StoreError::Unavailable));
}

#[tokio::test]
async fn passwords_are_hidden() {
    let config = config(Database::Postgres(
        "postgres://u:secret@127.0.0.1:1x/db".into(),
    ));
    assert!(!format!("{config:?}").contains("secret"));
    let refused = open(&config).await.unwrap_err();
    assert!(
        !format!("{refused} {refused:?}").contains("secret"),
        "{refused}"
    );
}
