//! The parameters of the lock commands: the server reads them from raw JSON, a client writes them.
//! Knows which parameters are well-formed. Whether a name is too long or a lock is held is decided
//! by the broker.
//!
//! An empty array is accepted as an empty object, because PHP writes an empty array of parameters
//! that way. So is `null`, which means that there are no parameters.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::broker::{HolderLimit, LockName, Mode};
use crate::wire::message::object::{number, string, values_of};
use crate::wire::message::values::{AFTER, LOCK_NAME, NameKeys, PREFIX, from_hex, is_false, mode, seconds};

mod resume;
mod serialize;

pub use resume::{Claim, ResumeRequest, parse_resume};

/// The locks that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockNames<T> {
    /// One, as `lockName`. Needs no memory of its own, since nearly every request is like this.
    One(T),
    /// A set, as `lockNames`, even if it has only one name. When read, it has each name once and is
    /// not empty. Only the length of the message limits their number.
    Set(Vec<T>),
}

impl<T> LockNames<T> {
    /// The locks, whichever way they came.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Set(set) => set,
        }
    }

    /// The locks, whichever way they came.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Set(set) => set,
        }
    }
}

/// `lock`: acquire one lock, or several at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The locks and the modes asked for.
    pub names: LockNames<(LockName, Mode)>,
    /// The longest time to wait; `None` is without limit. A number of seconds that does not fit is
    /// [`Duration::MAX`], which no clock can be moved ahead by.
    pub limit: Option<Duration>,
}

/// `unlock`: release one lock, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnlockRequest {
    /// The locks.
    pub names: LockNames<LockName>,
}

/// `unlock` in its old form, with the name in the message itself instead of `parameters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldUnlockRequest {
    /// The locks to release.
    pub unlock: UnlockRequest,
    /// Whether the one name was written as a number. The reply repeats it as a number then.
    pub is_number: bool,
}

/// `convert`: change the mode of a held lock without releasing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertRequest {
    /// The lock.
    pub name: LockName,
    /// The new mode. It has no default, unlike the mode of `lock`.
    pub mode: Mode,
    /// The longest time to wait, as in [`LockRequest`].
    pub limit: Option<Duration>,
}

/// `inspect`: how a name is held and how many sessions wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectRequest {
    /// The name.
    pub name: LockName,
}

/// `cancel`: end the wait of an earlier request.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CancelRequest<'a> {
    /// The id of that request, byte for byte.
    pub id: &'a RawValue,
}

/// `list`: a page of the locks in use, in the order of their names' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    /// Only names that start with this; empty for all names.
    pub prefix: LockName,
    /// The most locks on the page: 1 to 1000, by default 100.
    pub limit: usize,
    /// Only names after this one, which is the last name of the previous page.
    pub after: Option<LockName>,
    /// Only locks that have waiters. A server that does not know this lists all of them.
    pub waiting: bool,
}

/// `identify`: register a name for the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentifyRequest {
    /// The name. `None` (absent, `null` or empty) removes the registered name, as `iam` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `kick`: end connections; a command for operators. Has either an address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KickRequest {
    /// The address of the connection to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The registered name of the connections to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `hello`: the client introduces itself.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct HelloRequest {
    /// The name of the client's program or library, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The version of that program or library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The server's secret, if it asks for one.
    #[serde(rename = "authToken", skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// The time that the client may need to end its work once it knows that its session is over, at
    /// most [`WIND_DOWN_MAX`]. The server keeps the client's locks for that time, or until the
    /// client ends the connection, which says that its work has ended. Zero if the client needs no
    /// time.
    #[serde(rename = "windDown", with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub wind_down: Duration,
    /// Whether the client wants to be able to continue its session on another connection. A server
    /// that offers it answers with a [`ResumeGrant`](super::ResumeGrant).
    #[serde(skip_serializing_if = "is_false")]
    pub resumable: bool,
}

/// The longest [wind-down time](HelloRequest::wind_down) a client may ask for.
pub const WIND_DOWN_MAX: Duration = Duration::from_secs(3600);

impl fmt::Debug for HelloRequest {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = f.debug_struct("HelloRequest");
        written.field("client", &self.client).field("version", &self.version);
        written
            .field("wind_down", &self.wind_down)
            .field("resumable", &self.resumable)
            .finish_non_exhaustive()
    }
}

/// Why the parameters do not suit the command. Displayed, it is the `reason` of the `invalid`
/// result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    key: &'static str,
    problem: &'static str,
}

impl Malformed {
    const fn new(key: &'static str, problem: &'static str) -> Self {
        Self { key, problem }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.problem)
    }
}

impl std::error::Error for Malformed {}

impl ListRequest {
    /// The default of [`limit`](Self::limit).
    pub const LIMIT: usize = 100;
    /// The largest [`limit`](Self::limit).
    pub const LIMIT_MAX: usize = 1000;
}

/// Reads the parameters of `lock`.
///
/// # Errors
///
/// If there is neither `lockName` nor `lockNames`, or both; if a name is neither a string nor a
/// number; if `lockNames` is empty or has a name twice; if `mode` is neither `"exclusive"` nor
/// `"shared"`; if `limit` is not a whole number from 1 to [`HolderLimit::MAX`], or the mode is
/// `"shared"`; if `timeLimit` is neither a number from 0 up nor `false` nor `null`.
pub fn parse_lock(parameters: &RawValue) -> Result<LockRequest, Malformed> {
    let keys = [LOCK_NAME.text, LOCK_NAME.hex, "lockNames", "mode", "timeLimit", "limit"];
    let [text, hex, names, mode, time_limit, limit] = object(parameters.get(), keys)?;
    let mode = read_mode(mode, limit)?.unwrap_or(Mode::Exclusive);
    let names = read_names(text, hex, names, mode)?;
    Ok(LockRequest { names, limit: read_time_limit(time_limit)? })
}

/// Reads the parameters of `unlock`. The `mode` of a name is ignored, so that a client can pass the
/// same parameters to `lock` and `unlock`.
///
/// # Errors
///
/// The errors of [`parse_lock`] that concern names.
pub fn parse_unlock(parameters: &RawValue) -> Result<UnlockRequest, Malformed> {
    let [text, hex, names] = object(parameters.get(), UNLOCK_KEYS)?;
    read_unlock(text, hex, names)
}

/// Reads the old form of `unlock`, whose names are in the body itself
/// ([`RequestEnvelope::body`](super::RequestEnvelope::body)). `None` if the body contains no names.
///
/// # Errors
///
/// As [`parse_unlock`].
pub fn parse_old_unlock(body: &str) -> Result<Option<OldUnlockRequest>, Malformed> {
    let [text, hex, names] = object(body, UNLOCK_KEYS)?;
    if text.is_none() && hex.is_none() && names.is_none() {
        return Ok(None);
    }
    let is_number = hex.is_none() && text.and_then(number).is_some();
    Ok(Some(OldUnlockRequest { unlock: read_unlock(text, hex, names)?, is_number }))
}

const UNLOCK_KEYS: [&str; 3] = [LOCK_NAME.text, LOCK_NAME.hex, "lockNames"];

fn read_unlock(
    text: Option<&RawValue>,
    hex: Option<&RawValue>,
    names: Option<&RawValue>,
) -> Result<UnlockRequest, Malformed> {
    let names = match read_names(text, hex, names, Mode::Exclusive)? {
        LockNames::One((name, _)) => LockNames::One(name),
        LockNames::Set(names) => LockNames::Set(names.into_iter().map(|(name, _)| name).collect()),
    };
    Ok(UnlockRequest { names })
}

/// Reads the parameters of `convert`.
///
/// # Errors
///
/// If `lockName` is missing, or both `mode` and `limit` are, and the errors of [`parse_lock`].
pub fn parse_convert(parameters: &RawValue) -> Result<ConvertRequest, Malformed> {
    let keys = [LOCK_NAME.text, LOCK_NAME.hex, "mode", "limit", "timeLimit"];
    let [text, hex, mode, limit, time_limit] = object(parameters.get(), keys)?;
    let name = read_name(LOCK_NAME, text, hex)?.ok_or(NAME_MISSING)?;
    let mode = read_mode(mode, limit)?.ok_or(Malformed::new("mode", "is missing"))?;
    Ok(ConvertRequest { name, mode, limit: read_time_limit(time_limit)? })
}

/// Reads the parameters of `cancel`.
///
/// # Errors
///
/// If there is no `id`.
pub fn parse_cancel(parameters: &RawValue) -> Result<CancelRequest<'_>, Malformed> {
    let [id] = object(parameters.get(), ["id"])?;
    Ok(CancelRequest { id: id.ok_or(Malformed::new("id", "is missing"))? })
}

/// Reads the parameters of `inspect`.
///
/// # Errors
///
/// If `lockName` is missing, or neither a string nor a number.
pub fn parse_inspect(parameters: &RawValue) -> Result<InspectRequest, Malformed> {
    let [text, hex] = object(parameters.get(), [LOCK_NAME.text, LOCK_NAME.hex])?;
    Ok(InspectRequest { name: read_name(LOCK_NAME, text, hex)?.ok_or(NAME_MISSING)? })
}

/// Reads the parameters of `list`.
///
/// # Errors
///
/// If `prefix` or `after` is neither a string nor a number, if `limit` is not a whole number, or if
/// `waiting` is neither `true` nor `false` nor `null`.
pub fn parse_list(parameters: &RawValue) -> Result<ListRequest, Malformed> {
    let [prefix, prefix_hex, limit, after, after_hex, waiting] =
        object(parameters.get(), [PREFIX.text, PREFIX.hex, "limit", AFTER.text, AFTER.hex, "waiting"])?;
    let limit = limit.map(|limit| limit.get().parse::<i64>()).transpose();
    let limit = limit.map_err(|_| Malformed::new("limit", "is not a whole number"))?;
    // A negative number counts as the smallest limit.
    let limit = limit.map_or(ListRequest::LIMIT, |limit| usize::try_from(limit).unwrap_or(1));
    Ok(ListRequest {
        prefix: read_name(PREFIX, prefix, prefix_hex)?.unwrap_or(LockName::new(b"")),
        limit: limit.clamp(1, ListRequest::LIMIT_MAX),
        after: read_name(AFTER, after, after_hex)?,
        waiting: read_flag("waiting", waiting)?,
    })
}

/// Reads the parameters of `identify`.
///
/// # Errors
///
/// If `name` is not a string.
pub fn parse_identify(parameters: &RawValue) -> Result<IdentifyRequest, Malformed> {
    let [name] = object(parameters.get(), ["name"])?;
    Ok(IdentifyRequest { name: read_text("name", name)?.filter(|name| !name.is_empty()) })
}

/// Reads the parameters of `kick`.
///
/// # Errors
///
/// If there is neither `address` nor `name`, or both; if the one given is not a string.
pub fn parse_kick(parameters: &RawValue) -> Result<KickRequest, Malformed> {
    let [address, name] = object(parameters.get(), ["address", "name"])?;
    let request = KickRequest { address: read_text("address", address)?, name: read_text("name", name)? };
    match (&request.address, &request.name) {
        (None, None) => Err(Malformed::new("address", "is missing")),
        (Some(_), Some(_)) => Err(Malformed::new("name", "stands beside address")),
        _ => Ok(request),
    }
}

/// Reads the parameters of `hello`.
///
/// # Errors
///
/// If `client`, `version` or `authToken` is not a string, if `windDown` is not a number of seconds
/// from 0 to [`WIND_DOWN_MAX`], or if `resumable` is neither `true` nor `false` nor `null`.
pub fn parse_hello(parameters: &RawValue) -> Result<HelloRequest, Malformed> {
    let keys = ["client", "version", "authToken", "windDown", "resumable"];
    let [client, version, token, wind_down, resumable] = object(parameters.get(), keys)?;
    Ok(HelloRequest {
        client: read_text("client", client)?,
        version: read_text("version", version)?,
        auth_token: read_text("authToken", token)?,
        wind_down: wind_down.map_or(Ok(Duration::ZERO), read_wind_down)?,
        resumable: read_flag("resumable", resumable)?,
    })
}

fn read_wind_down(value: &RawValue) -> Result<Duration, Malformed> {
    let time = number(value).and_then(seconds::from_f64).filter(|time| *time <= WIND_DOWN_MAX);
    time.ok_or(Malformed::new("windDown", "is not a number from 0 to 3600"))
}

const NAME_MISSING: Malformed = Malformed::new(LOCK_NAME.text, "is missing");
const NOT_A_STRING: &str = "is not a string";

#[inline(always)]
fn object<'a, const N: usize>(
    json: &'a str,
    keys: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], Malformed> {
    let in_brackets = || json.strip_prefix('[').and_then(|json| json.strip_suffix(']'));
    let is_empty = || json == "null" || in_brackets().is_some_and(|inside| inside.trim().is_empty());
    if !json.starts_with('{') && is_empty() {
        return Ok([None; N]);
    }
    values_of(json, keys).map_err(|_| Malformed::new("parameters", "are not an object"))
}

fn read_flag(key: &'static str, value: Option<&RawValue>) -> Result<bool, Malformed> {
    match value.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Malformed::new(key, "is neither true nor false")),
    }
}

fn read_text(key: &'static str, value: Option<&RawValue>) -> Result<Option<String>, Malformed> {
    Ok(borrow_text(key, value)?.map(Cow::into_owned))
}

fn borrow_text<'a>(
    key: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    let Some(value) = value else { return Ok(None) };
    match string(value) {
        Some(Ok(text)) => Ok(Some(text)),
        _ => Err(Malformed::new(key, NOT_A_STRING)),
    }
}

/// Reads a name from either of its two keys. A number stands for the name that is its text, byte
/// for byte.
fn read_name(
    keys: NameKeys,
    text: Option<&RawValue>,
    hex: Option<&RawValue>,
) -> Result<Option<LockName>, Malformed> {
    if let Some(hex) = borrow_text(keys.hex, hex)? {
        let bytes = from_hex(&hex).ok_or(Malformed::new(keys.hex, "is not hexadecimal"))?;
        return Ok(Some(LockName::new(&bytes)));
    }
    let Some(value) = text else { return Ok(None) };
    match string(value) {
        Some(Ok(text)) => Ok(Some(LockName::new(text.as_bytes()))),
        None if number(value).is_some() => Ok(Some(LockName::new(value.get().as_bytes()))),
        _ => Err(Malformed::new(keys.text, "is neither a string nor a number")),
    }
}

/// Reads `lockName` or `lockNames`.
fn read_names(
    text: Option<&RawValue>,
    hex: Option<&RawValue>,
    names: Option<&RawValue>,
    mode: Mode,
) -> Result<LockNames<(LockName, Mode)>, Malformed> {
    match (read_name(LOCK_NAME, text, hex)?, names) {
        (Some(name), None) => Ok(LockNames::One((name, mode))),
        (None, Some(names)) => Ok(LockNames::Set(read_set(names, mode)?)),
        (None, None) => Err(NAME_MISSING),
        (Some(_), Some(_)) => Err(Malformed::new("lockNames", "stands beside lockName")),
    }
}

fn read_set(names: &RawValue, mode: Mode) -> Result<Vec<(LockName, Mode)>, Malformed> {
    let problem = |problem| Malformed::new("lockNames", problem);
    let entries: Vec<&RawValue> =
        serde_json::from_str(names.get()).map_err(|_| problem("is not an array"))?;
    let names: Vec<_> = entries.into_iter().map(|entry| read_entry(entry, mode)).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err(problem("is empty"));
    }
    let distinct: HashSet<_> = names.iter().map(|(name, _)| name).collect();
    if distinct.len() < names.len() { Err(problem("has a name twice")) } else { Ok(names) }
}

/// Reads an entry of `lockNames`: a name, or an object with a name and its mode. An entry with a
/// `mode` or a `limit` of its own has nothing of the default.
fn read_entry(entry: &RawValue, default: Mode) -> Result<(LockName, Mode), Malformed> {
    if string(entry).is_some() || number(entry).is_some() {
        let name = read_name(LOCK_NAME, Some(entry), None)?.ok_or(NAME_MISSING)?;
        return Ok((name, default));
    }
    let [text, hex, mode, limit] =
        values_of(entry.get(), [LOCK_NAME.text, LOCK_NAME.hex, "mode", "limit"])
            .map_err(|_| Malformed::new("lockNames", "has an entry that is neither a name nor an object"))?;
    let name = read_name(LOCK_NAME, text, hex)?.ok_or(NAME_MISSING)?;
    Ok((name, read_mode(mode, limit)?.unwrap_or(default)))
}

/// Reads `mode` and `limit`; `None` if there is neither. A limit goes with exclusive only, so that a
/// server that does not know limits never has more holders than the limit allows.
fn read_mode(mode: Option<&RawValue>, limit: Option<&RawValue>) -> Result<Option<Mode>, Malformed> {
    let text = borrow_text("mode", mode)?;
    let mode = text.map(|text| mode::from_text(&text).ok_or(UNKNOWN_MODE)).transpose()?;
    let Some(limit) = limit else { return Ok(mode) };
    if mode.is_some_and(|mode| mode != Mode::Exclusive) {
        return Err(Malformed::new("limit", "stands beside the mode shared"));
    }
    let limit = limit.get().parse().ok().and_then(Mode::at_most);
    limit.map(Some).ok_or(Malformed::new("limit", LIMIT_OUT_OF_RANGE))
}

const UNKNOWN_MODE: Malformed = Malformed::new("mode", "is neither exclusive nor shared");
const LIMIT_OUT_OF_RANGE: &str = "is not a whole number from 1 to 16777215";
const _: () = assert!(HolderLimit::MAX == 16_777_215);

fn read_time_limit(value: Option<&RawValue>) -> Result<Option<Duration>, Malformed> {
    let Some(value) = value.filter(|value| value.get() != "false") else { return Ok(None) };
    // Nearly every limit is a small whole number, which needs no floating point.
    if let Ok(seconds) = value.get().parse::<u32>() {
        return Ok(Some(Duration::from_secs(seconds.into())));
    }
    let limit = number(value).and_then(seconds::from_f64);
    limit.map(Some).ok_or(Malformed::new("timeLimit", "is neither a number from 0 up nor false"))
}

#[cfg(test)]
mod tests;
