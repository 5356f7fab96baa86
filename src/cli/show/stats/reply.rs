//! What a server replies to `stats`. Pure.

use serde_json::{Map, Value};

/// The statistics as a server has sent them. It may be of another version, and so have more numbers
/// than this program knows, or fewer.
#[derive(Clone, Debug)]
pub(super) struct StatsReply(pub(super) Map<String, Value>);

impl StatsReply {
    /// Reads the result of `stats`.
    ///
    /// # Errors
    /// If it is not an object, or its status is not ok: then the server's reason, if it has one.
    pub(super) fn read(result: &str) -> Result<Self, String> {
        let senseless = |why: String| format!("the server's answer makes no sense: {why}");
        let mut all: Map<String, Value> =
            serde_json::from_str(result).map_err(|error| senseless(error.to_string()))?;
        if all.remove("status") != Some("ok".into()) {
            let reason = all.get("reason").and_then(Value::as_str).map(str::to_owned);
            return Err(reason.unwrap_or_else(|| senseless("its status is not ok".to_owned())));
        }
        Ok(Self(all))
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    pub(super) fn version(&self) -> &str {
        self.0.get("version").and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_the_status_ok_is_accepted() {
        for text in ["", "[]", r#"{"status":"refused"}"#, r#"{"locks":1}"#] {
            assert!(StatsReply::read(text).is_err(), "{text}");
        }
        let reply = StatsReply::read(r#"{"status":"ok","locks":7,"version":"1"}"#).unwrap();
        assert_eq!((reply.number("locks"), reply.number("version"), reply.version()), (Some(7), None, "1"));
    }
}
