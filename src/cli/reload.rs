//! What a reload of the configuration changes, and what only a restart does. Pure.

use std::collections::BTreeMap;

use lockd::server::Options;

/// An option that has now another value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What the log says of it.
    pub(super) text: String,
    /// Whether it takes a restart.
    pub(super) takes_restart: bool,
}

/// The options in effect, as JSON by their names; what is not there has its default.
pub(super) struct InEffect(BTreeMap<String, String>);

impl InEffect {
    /// At the start, that is all that is given.
    pub(super) fn new(given: BTreeMap<String, String>) -> Self {
        Self(given)
    }

    /// Now these are given; tells what is different. What takes a restart is told each time until there is one.
    pub(super) fn reload(&mut self, mut given: BTreeMap<String, String>) -> Vec<Change> {
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
            let takes_restart = Options::needs_restart(&name);
            let (old_text, new_text) = (shown(old), shown(new));
            let text = if takes_restart {
                format!("{name}: stays {old_text} until a restart; the configuration now has {new_text}")
            } else {
                format!("{name}: from {old_text} to {new_text}")
            };
            changes.push(Change { text, takes_restart });
            if takes_restart {
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
    fn what_takes_a_restart_is_told_until_there_is_one() {
        let mut in_effect = InEffect::new(options(&[("user", "\"a\""), ("locks-max", "1")]));
        let text = |in_effect: &mut InEffect, given: &[(&str, &str)]| {
            let changes = in_effect.reload(options(given));
            changes.into_iter().map(|change| (change.text, change.takes_restart)).collect::<Vec<_>>()
        };
        let changed = [("locks-max", "2"), ("name-max", "9"), ("http", "[\"h:1\"]")];
        assert_eq!(
            text(&mut in_effect, &changed),
            [
                (
                    "http: stays the default until a restart; the configuration now has [\"h:1\"]".to_owned(),
                    true
                ),
                ("locks-max: from 1 to 2".to_owned(), false),
                ("name-max: from the default to 9".to_owned(), false),
                ("user: stays \"a\" until a restart; the configuration now has the default".to_owned(), true),
            ]
        );
        assert_eq!(text(&mut in_effect, &changed).len(), 2, "only what takes a restart");
        assert_eq!(text(&mut in_effect, &[("user", "\"a\""), ("locks-max", "2"), ("name-max", "9")]), []);
    }
}
