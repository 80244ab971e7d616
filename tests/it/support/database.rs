//! The engines under test, and a database of its own for each group of servers.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::unique;

/// What the server stores in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// The Redis of this test run.
pub fn redis() -> String {
    std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
        .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test")
}

/// A `PostgreSQL` database that lives as long as this value.
pub struct Database {
    /// Where databases are made and dropped.
    admin_url: String,
    name: String,
    pub url: String,
}

impl Database {
    pub async fn create() -> Self {
        let admin_url = std::env::var("LISTEN_STREAM_TEST_POSTGRES_URL").unwrap_or_else(|_| {
            panic!(
                "LISTEN_STREAM_TEST_POSTGRES_URL is not set: \
                 run through scripts/servers.sh or make test"
            )
        });
        let name = format!("it_{}", unique());
        // template0: nobody may be connected to a template while it is copied, and nobody can be
        // connected to this one.
        execute(
            &admin_url,
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        )
        .await
        .expect("the test's database can be made");
        let url = with_database(&admin_url, &name);
        Self {
            admin_url,
            name,
            url,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let url = self.admin_url.clone();
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread with a runtime of its own: this may run inside a runtime that is ending.
        let done = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(execute(&url, sql)))
        })
        .join();
        if !matches!(done, Ok(Ok(Ok(())))) {
            eprintln!("database {} was left behind: {done:?}", self.name);
        }
    }
}

async fn execute(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// The same server's URL for another database.
fn with_database(url: &str, name: &str) -> String {
    let mut url = reqwest::Url::parse(url).expect("LISTEN_STREAM_TEST_POSTGRES_URL is a URL");
    url.set_path(&format!("/{name}"));
    url.into()
}

#[test]
fn another_database_keeps_the_rest_of_the_url() {
    assert_eq!(
        with_database(
            "postgres://u:p@127.0.0.1:5432/postgres?sslmode=disable",
            "x"
        ),
        "postgres://u:p@127.0.0.1:5432/x?sslmode=disable"
    );
    assert_eq!(with_database("postgres://u@h:1", "x"), "postgres://u@h:1/x");
}
