//! How a client writes the parameters of the lock commands. Knows their keys; the request types say
//! what the values mean.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::broker::{LockName, Mode};
use crate::wire::message::requests::{
    ConvertRequest, InspectRequest, ListRequest, LockNames, LockRequest, UnlockRequest,
};
use crate::wire::message::values::{AFTER, LOCK_NAME, PREFIX, mode, seconds, serialize_exact};

/// A lock name with its mode, if there is one: an entry of `lockNames`, or the parameters of a
/// command for one lock.
pub(super) struct NameAndMode<'a>(pub(super) &'a LockName, pub(super) Option<Mode>);

impl NameAndMode<'_> {
    pub(super) fn serialize_into<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        serialize_exact(map, LOCK_NAME, self.0)?;
        match self.1 {
            // Without a mode: a server that does not know limits takes it for exclusive.
            Some(Mode::Limited(limit)) => map.serialize_entry("limit", &limit.get()),
            Some(mode) => map.serialize_entry("mode", mode::to_text(mode)),
            None => Ok(()),
        }
    }
}

impl Serialize for NameAndMode<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_into(&mut map)?;
        map.end()
    }
}

/// A duration as [`seconds`] writes it.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Seconds(#[serde(with = "seconds")] Duration);

fn serialize_limit<M: SerializeMap>(map: &mut M, limit: Option<Duration>) -> Result<(), M::Error> {
    limit.map_or(Ok(()), |limit| map.serialize_entry("timeLimit", &Seconds(limit)))
}

impl Serialize for LockRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.names {
            LockNames::One((name, mode)) => NameAndMode(name, Some(*mode)).serialize_into(&mut map)?,
            LockNames::Set(names) => {
                let entries: Vec<_> =
                    names.iter().map(|(name, mode)| NameAndMode(name, Some(*mode))).collect();
                map.serialize_entry("lockNames", &entries)?;
            }
        }
        serialize_limit(&mut map, self.limit)?;
        map.end()
    }
}

impl Serialize for UnlockRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.names {
            LockNames::One(name) => serialize_exact(&mut map, LOCK_NAME, name)?,
            LockNames::Set(names) => {
                let entries: Vec<_> = names.iter().map(|name| NameAndMode(name, None)).collect();
                map.serialize_entry("lockNames", &entries)?;
            }
        }
        map.end()
    }
}

impl Serialize for ConvertRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        NameAndMode(&self.name, Some(self.mode)).serialize_into(&mut map)?;
        serialize_limit(&mut map, self.limit)?;
        map.end()
    }
}

impl Serialize for InspectRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NameAndMode(&self.name, None).serialize(serializer)
    }
}

impl Serialize for ListRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_exact(&mut map, PREFIX, &self.prefix)?;
        map.serialize_entry("limit", &self.limit)?;
        if let Some(after) = &self.after {
            serialize_exact(&mut map, AFTER, after)?;
        }
        if self.waiting {
            map.serialize_entry("waiting", &true)?;
        }
        map.end()
    }
}
