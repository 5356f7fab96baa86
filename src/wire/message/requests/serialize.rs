//! How a client writes the parameters of the lock commands. Knows their keys; what the values mean is
//! said where the types are.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::broker::{LockName, Mode};
use crate::wire::message::requests::{
    ConvertRequest, InspectRequest, ListRequest, LockRequest, UnlockRequest,
};
use crate::wire::message::values::{AFTER, LOCK_NAME, PREFIX, mode, seconds, serialize_exact};

/// An entry of `lockNames`.
struct Entry<'a>(&'a LockName, Option<Mode>);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_exact(&mut map, LOCK_NAME, self.0)?;
        if let Some(mode) = self.1 {
            map.serialize_entry("mode", mode::to_text(mode))?;
        }
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

/// What is no set but does not have one name is written as a set too, so that nothing is lost.
impl Serialize for LockRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.names.as_slice() {
            [(name, mode)] if !self.set => {
                serialize_exact(&mut map, LOCK_NAME, name)?;
                map.serialize_entry("mode", mode::to_text(*mode))?;
            }
            names => {
                let entries: Vec<_> = names.iter().map(|(name, mode)| Entry(name, Some(*mode))).collect();
                map.serialize_entry("lockNames", &entries)?;
            }
        }
        serialize_limit(&mut map, self.limit)?;
        map.end()
    }
}

/// As for [`LockRequest`].
impl Serialize for UnlockRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.names.as_slice() {
            [name] if !self.set => serialize_exact(&mut map, LOCK_NAME, name)?,
            names => {
                let entries: Vec<_> = names.iter().map(|name| Entry(name, None)).collect();
                map.serialize_entry("lockNames", &entries)?;
            }
        }
        map.end()
    }
}

impl Serialize for ConvertRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_exact(&mut map, LOCK_NAME, &self.name)?;
        map.serialize_entry("mode", mode::to_text(self.mode))?;
        serialize_limit(&mut map, self.limit)?;
        map.end()
    }
}

impl Serialize for InspectRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        serialize_exact(&mut map, LOCK_NAME, &self.name)?;
        map.end()
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
        map.end()
    }
}
