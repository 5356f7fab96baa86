//! Where an etcd cluster is, as users write it. Parses the text; resolves and connects nothing.

use std::fmt;
use std::str::FromStr;

/// Where an etcd cluster is, and how to talk to it: `etcd://HOST:2379,HOST/NAME?…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUrl {
    text: String,
    name: String,
}

/// Why a text is not the address of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEtcdUrl {
    text: String,
    problem: String,
}

impl fmt::Display for BadEtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the address of an etcd cluster: {:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for BadEtcdUrl {}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for EtcdUrl {
    type Err = BadEtcdUrl;

    fn from_str(text: &str) -> Result<Self, BadEtcdUrl> {
        let name = text.rsplit('/').next().unwrap_or_default();
        Ok(Self { text: text.to_owned(), name: name.to_owned() })
    }
}

impl EtcdUrl {
    /// The part after the `/`: the name under which the keys of one group of servers are kept.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
