//! From a line to an act.

use rollcall::core::signal::{MessageEdit, PermissionKind};
use rollcall::model::{DeviceId, Presence, ServerName, UserId};

/// What a line makes happen.
pub enum Act {
    /// `servers a b c(plain)`: the first line of a story.
    Servers(Vec<(ServerName, Make)>),
    /// `config watchdog.short = 10s`: of all servers, before `servers`.
    Config(String, String),
    /// `advance 30s`
    Advance(u64),
    /// `link a b silent`: requests between them get no answer; `up`: they do again; `slow 3s`: after so long; `drops 2`: the next
    /// answers are lost on their way, though the requests arrive.
    Link(ServerName, ServerName, Line),
    /// `restart a`: it loses what is not committed. `down a`, `up a`.
    Restart(ServerName),
    Down(ServerName),
    Up(ServerName),
    /// `damage a @x:b`: the status of a peer's user in a's store is damaged, unseen.
    Damage(ServerName, UserId),
    /// `@x:a …`
    User(UserId, UserAct),
    /// `c sends push @x:c online`, by a server that is none of ours.
    Sends(ServerName, ServerName, Foreign),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// rollcall
    Rollcall,
    /// A server of today: takes everything, says only what the story makes it say.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Up,
    Silent,
    Slow(u64),
    /// So many answers get lost.
    Drops(u32),
}

pub enum UserAct {
    Status(DeviceId, Presence, MessageEdit),
    Idle(DeviceId, Option<u64>),
    Kind(DeviceId, Option<String>),
    Active(DeviceId, Option<Presence>),
    Start(DeviceId, u64),
    Stop(DeviceId),
    List(Vec<UserId>, bool),
    Answer(UserId, bool),
    /// `@x:a reads @y:b`: the status, as a client gets it.
    Reads(UserId),
    /// `@x:a reads list`; `@x:a on PHONE reads list`: over HTTP, which starts a session.
    ReadsList(Option<DeviceId>),
    /// `@x:a reads requests`
    ReadsRequests,
}

pub enum Foreign {
    Push(UserId, Presence),
    Poll(UserId),
    Unpoll(UserId),
    Permission(PermissionKind, UserId, UserId),
    /// S3: the status of now, and no more. Of a server that speaks rollcall.
    Query(UserId),
    /// W5: a reminder that says nothing of who was told what. Of a server that speaks rollcall.
    Reminder,
    /// Anything else than presence.
    Heard,
}

/// As `edge/devices.rs` has it.
pub const LEASE_MS: u64 = 120_000;

pub fn act(line: &str) -> Result<Act, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["servers", names @ ..] => names.iter().map(|name| made(name)).collect::<Result<_, _>>().map(Act::Servers),
        ["config", key, "=", value] => Ok(Act::Config((*key).into(), (*value).into())),
        ["advance", time] => Ok(Act::Advance(ms(time)?)),
        ["link", one, other, how @ ..] => Ok(Act::Link(server(one)?, server(other)?, state(how)?)),
        ["restart", name] => Ok(Act::Restart(server(name)?)),
        ["down", name] => Ok(Act::Down(server(name)?)),
        ["up", name] => Ok(Act::Up(server(name)?)),
        ["damage", name, who] => Ok(Act::Damage(server(name)?, user(who)?)),
        [name, "sends", to, what @ ..] => Ok(Act::Sends(server(name)?, server(to)?, foreign(what)?)),
        [who, what @ ..] if who.starts_with('@') => Ok(Act::User(user(who)?, user_act(line, what)?)),
        _ => Err("nobody knows this line".into()),
    }
}

fn user_act(line: &str, words: &[&str]) -> Result<UserAct, String> {
    match words {
        ["on", on, "idle", time] => Ok(UserAct::Idle(device(on)?, Some(ms(time)?))),
        ["on", on, "back"] => Ok(UserAct::Idle(device(on)?, None)),
        ["on", on, "active"] => Ok(UserAct::Active(device(on)?, None)),
        ["on", on, "active", "as", presence] => {
            Ok(UserAct::Active(device(on)?, Some(Presence::parse(presence).ok_or("no presence")?)))
        }
        ["on", on, "is", "gone"] => Ok(UserAct::Kind(device(on)?, None)),
        ["on", on, "is", kind] => Ok(UserAct::Kind(device(on)?, Some((*kind).into()))),
        ["on", on, "starts"] => Ok(UserAct::Start(device(on)?, LEASE_MS)),
        ["on", on, "starts", "for", time] => Ok(UserAct::Start(device(on)?, ms(time)?)),
        ["on", on, "reads", "list"] => Ok(UserAct::ReadsList(Some(device(on)?))),
        ["on", on, "stops"] => Ok(UserAct::Stop(device(on)?)),
        ["on", on, presence, ..] => {
            let presence = Presence::parse(presence).ok_or("no presence")?;
            Ok(UserAct::Status(device(on)?, presence, message(line)))
        }
        ["lists", whom @ ..] => Ok(UserAct::List(users(whom)?, true)),
        ["drops", whom @ ..] => Ok(UserAct::List(users(whom)?, false)),
        ["allows", whom] => Ok(UserAct::Answer(user(whom)?, true)),
        ["denies", whom] => Ok(UserAct::Answer(user(whom)?, false)),
        ["reads", "list"] => Ok(UserAct::ReadsList(None)),
        ["reads", "requests"] => Ok(UserAct::ReadsRequests),
        ["reads", whom] => Ok(UserAct::Reads(user(whom)?)),
        _ => Err("nobody can do this".into()),
    }
}

fn foreign(words: &[&str]) -> Result<Foreign, String> {
    match words {
        ["push", who, presence] => Ok(Foreign::Push(user(who)?, Presence::parse(presence).ok_or("no presence")?)),
        ["poll", whom] => Ok(Foreign::Poll(user(whom)?)),
        ["unpoll", whom] => Ok(Foreign::Unpoll(user(whom)?)),
        ["query", whom] => Ok(Foreign::Query(user(whom)?)),
        ["reminder"] => Ok(Foreign::Reminder),
        ["invite", observer, "for", observed] => permission(PermissionKind::Invite, observed, observer),
        ["accept", observer, "by", observed] => permission(PermissionKind::Accept, observed, observer),
        ["deny", observer, "by", observed] => permission(PermissionKind::Deny, observed, observer),
        ["anything"] => Ok(Foreign::Heard),
        _ => Err("nobody sends this".into()),
    }
}

fn permission(kind: PermissionKind, observed: &str, observer: &str) -> Result<Foreign, String> {
    Ok(Foreign::Permission(kind, user(observed)?, user(observer)?))
}

fn state(words: &[&str]) -> Result<Line, String> {
    match words {
        ["up"] => Ok(Line::Up),
        ["silent"] => Ok(Line::Silent),
        ["slow", time] => Ok(Line::Slow(ms(time)?)),
        ["drops", count] => Ok(Line::Drops(count.parse().map_err(|_| "no number")?)),
        _ => Err("no state of a link".into()),
    }
}

fn made(text: &str) -> Result<(ServerName, Make), String> {
    match text.strip_suffix("(foreign)") {
        Some(name) => Ok((server(name)?, Make::Foreign)),
        None => Ok((server(text)?, Make::Rollcall)),
    }
}

/// `a` is short for `a.example`.
pub fn server(text: &str) -> Result<ServerName, String> {
    ServerName::parse(&format!("{text}.example")).map_err(|error| error.to_string())
}

pub fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(&format!("{text}.example")).map_err(|error| error.to_string())
}

fn users(words: &[&str]) -> Result<Vec<UserId>, String> {
    words.iter().map(|word| user(word)).collect()
}

fn device(text: &str) -> Result<DeviceId, String> {
    DeviceId::parse(text).map_err(|error| error.to_string())
}

/// What stands in quotes; `""` clears.
fn message(line: &str) -> MessageEdit {
    match line.split('"').nth(1) {
        None => MessageEdit::Keep,
        Some("") => MessageEdit::Clear,
        Some(text) => MessageEdit::Set(text.into()),
    }
}

fn ms(text: &str) -> Result<u64, String> {
    let duration = rollcall::config::duration(text)?;
    u64::try_from(duration.as_millis()).map_err(|error| error.to_string())
}
