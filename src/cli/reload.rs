//! What a reload of the configuration changes, and what only a restart can change. Pure.

use std::collections::BTreeMap;

use lockd::server::Options;

use log::Level;

/// The values of the options in effect, as JSON, by the names of the options. Other options have
/// their defaults.
pub(super) struct ActiveOptions(BTreeMap<String, String>);

impl ActiveOptions {
    /// At a start, every option that is given takes effect.
    pub(super) fn new(given: BTreeMap<String, String>) -> Self {
        Self(given)
    }

    pub(super) fn values(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Replaces the options by those that are given now. Returns what has changed, as lines for the
    /// log. A change that needs a restart is a warning, and is returned by every reload until then.
    pub(super) fn reload(&mut self, mut given: BTreeMap<String, String>) -> Vec<(Level, String)> {
        let mut names: Vec<String> = self.0.keys().chain(given.keys()).cloned().collect();
        names.sort();
        names.dedup();
        let mut changes = Vec::new();
        for name in names {
            let (old, new) = (self.0.get(&name), given.get(&name));
            if old == new {
                continue;
            }
            let shown = |value: Option<&String>| value.map_or_else(|| "the default".to_owned(), Clone::clone);
            let needs_restart = Options::needs_restart(&name);
            let (old_text, new_text) = (shown(old), shown(new));
            changes.push(if needs_restart {
                let given = format!("the configuration now has {new_text}");
                (Level::Warn, format!("{name}: stays {old_text} until a restart; {given}"))
            } else {
                (Level::Info, format!("{name}: from {old_text} to {new_text}"))
            });
            if needs_restart {
                match old.cloned() {
                    Some(old) => given.insert(name, old),
                    None => given.remove(&name),
                };
            }
        }
        self.0 = given;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_that_needs_a_restart_is_reported_by_every_reload() {
        let mut active = ActiveOptions::new(options(&[("user", "\"a\""), ("locks-max", "1")]));
        let changed = [("locks-max", "2"), ("name-max", "9"), ("http", "[\"h:1\"]")];
        let http = "http: stays the default until a restart; the configuration now has [\"h:1\"]";
        let user = "user: stays \"a\" until a restart; the configuration now has the default";
        let expected = [
            (Level::Warn, http),
            (Level::Info, "locks-max: from 1 to 2"),
            (Level::Info, "name-max: from the default to 9"),
            (Level::Warn, user),
        ];
        let expected = expected.map(|(level, text)| (level, text.to_owned()));
        assert_eq!(active.reload(options(&changed)), expected);
        assert_eq!(active.reload(options(&changed)).len(), 2, "only the changes that need a restart");
        assert_eq!(active.reload(options(&[("user", "\"a\""), ("locks-max", "2"), ("name-max", "9")])), []);
    }
}
