//! Users, each logged in for real on the server that is measured.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Res,
    http::{Http, post},
};

/// Logins at a time.
const AT_ONCE: usize = 64;

/// A device that is logged in.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its user's id.
    pub user: String,
    /// Its access token.
    pub token: String,
}

/// Users with their devices.
pub type People = Arc<Vec<Vec<Device>>>;

/// Logs `users` users in, the first `with_more` of them on `devices` devices each, the others on one.
pub async fn log_in(
    server: SocketAddr,
    data: &Path,
    users: usize,
    with_more: usize,
    devices: usize,
) -> Res<People> {
    let mut people = vec![Vec::new(); users];
    for device in 0..devices {
        let phones: Arc<Vec<usize>> =
            Arc::new((0..if device == 0 { users } else { with_more }).collect());
        ask_codes(server, &phones).await?;
        let asked = Instant::now();
        let codes = Arc::new(codes(data)?);
        for (user, logged_in) in enter(server, &phones, &codes, device).await? {
            people[user].push(logged_in);
        }
        // A phone gets a code a second.
        tokio::time::sleep(Duration::from_millis(1100).saturating_sub(asked.elapsed())).await;
    }
    Ok(Arc::new(people))
}

fn phone(user: usize) -> String {
    format!("+86139{user:08}")
}

async fn ask_codes(server: SocketAddr, users: &Arc<Vec<usize>>) -> Res<()> {
    let mut tasks = Vec::new();
    for n in 0..AT_ONCE {
        let users = Arc::clone(users);
        tasks.push(tokio::spawn(async move {
            let mut http = Http::connect(server, n).await?;
            for user in users.iter().skip(n).step_by(AT_ONCE) {
                let body = json!({"phone": phone(*user)}).to_string();
                let answer = http.call(&post("/v1/auth/sms-codes", &body)).await?;
                expect(answer.status, 202, answer.body)?;
            }
            Res::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn codes(data: &Path) -> Res<HashMap<String, String>> {
    let text = std::fs::read_to_string(data.join("dev-sms.log"))?;
    let mut codes = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().skip(1);
        if let (Some(phone), Some(code)) = (words.next(), words.next()) {
            codes.insert(phone.to_owned(), code.to_owned());
        }
    }
    Ok(codes)
}

async fn enter(
    server: SocketAddr,
    users: &Arc<Vec<usize>>,
    codes: &Arc<HashMap<String, String>>,
    device: usize,
) -> Res<Vec<(usize, Device)>> {
    let mut tasks = Vec::new();
    for n in 0..AT_ONCE {
        let (users, codes) = (Arc::clone(users), Arc::clone(codes));
        tasks.push(tokio::spawn(async move {
            let mut http = Http::connect(server, n).await?;
            let mut entered = Vec::new();
            for user in users.iter().skip(n).step_by(AT_ONCE) {
                let phone = phone(*user);
                let code = codes.get(&phone).ok_or("a code is not there")?;
                let device_id = format!("device-{device}");
                let body = json!({
                    "phone": phone,
                    "code": code,
                    "device": {"device_id": device_id, "platform": "ios", "name": device_id},
                });
                let request = post("/v1/auth/sessions", &body.to_string());
                let answer = http.call(&request).await?;
                expect(answer.status, 201, answer.body)?;
                let body: Value = serde_json::from_slice(answer.body)?;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let it = Device {
                    user: text(&body["user"]["id"]),
                    token: text(&body["access_token"]),
                };
                entered.push((*user, it));
            }
            Res::Ok(entered)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// Asks for something that is answered with JSON.
pub async fn ask(http: &mut Http, request: &[u8], status: u16) -> Res<Value> {
    let answer = http.call(request).await?;
    expect(answer.status, status, answer.body)?;
    Ok(serde_json::from_slice(answer.body)?)
}

/// Fails with what the server said.
pub fn expect(status: u16, expected: u16, body: &[u8]) -> Res<()> {
    if status == expected {
        return Ok(());
    }
    let said = String::from_utf8_lossy(body);
    Err(format!("{status} instead of {expected}: {said}").into())
}
