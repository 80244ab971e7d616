//! The first login: a code to the phone, the code to the server, the device registered.

use super::{
    TailArgs,
    api::{Api, ApiError, Device, Login, Problem},
    error::TailError,
    print::Console,
    state::Store,
};
use crate::domain::clock::World;

/// How often a typed code may be wrong before the login is given up.
const TRIES: u32 = 3;

/// Gets tokens for the device of `store`, and saves them.
pub(super) async fn log_in(
    args: &TailArgs,
    phone: &str,
    api: &Api,
    store: &mut Store,
    console: &mut Console,
    world: &World,
) -> Result<(), TailError> {
    // The server sees this device's name before it answers: after a crash it must be the same.
    store.save()?;
    if args.code.is_none() {
        ask_for_code(phone, api, &store.saved.server, console).await?;
    }
    let mut tries = 0;
    let grant = loop {
        tries += 1;
        let code = match &args.code {
            Some(code) => code.clone(),
            None => match console.ask("Code").await? {
                Some(line) if !line.is_empty() => line,
                _ => return Err(TailError::NoCode),
            },
        };
        let login = Login {
            phone,
            code: &code,
            device: Device {
                id: &store.saved.device_id,
                platform: "desktop",
                name: &args.name,
            },
            replace_device_id: args.replace.as_deref(),
        };
        match api.log_in(&login).await {
            Ok(grant) => break grant,
            Err(ApiError::Refused(problem)) if problem.code == "device_limit_reached" => {
                show_devices(&problem, console);
                return Err(TailError::DeviceLimit);
            }
            Err(ApiError::Refused(problem))
                if problem.code == "sms_code_invalid" && args.code.is_none() && tries < TRIES =>
            {
                console.say("That code is wrong, used or expired.");
            }
            Err(error) => return Err(error.into_tail(&store.saved.server)),
        }
    };
    store.saved.tokens = Some(grant.into_tokens(world));
    store.saved.renewal_key = None;
    store.save()
}

async fn ask_for_code(
    phone: &str,
    api: &Api,
    server: &str,
    console: &mut Console,
) -> Result<(), TailError> {
    match api.send_code(phone).await {
        Ok(()) => console.say("A code was sent to the phone."),
        Err(ApiError::Refused(problem)) if problem.code == "sms_cooldown" => {
            console.say("A code was sent to the phone a moment ago.");
        }
        Err(error) => return Err(error.into_tail(server)),
    }
    console.say("A development server writes it to dev-sms.log in its data folder.");
    Ok(())
}

fn show_devices(problem: &Problem, console: &mut Console) {
    console.say("The user has as many devices as allowed:");
    for device in &problem.devices {
        let active = device.last_active_at.as_deref().unwrap_or("never");
        console.say(&format!(
            "  {}  {}  {}  last active {active}",
            device.device_id, device.platform, device.name
        ));
    }
    console.say("--replace DEVICE_ID signs one of them out and takes its place.");
}
