//! Writes what the servers at all places are, for people and as JSON, and says whether exactly one is
//! active. Pure.

use serde::Serialize;

use super::place_state::PlaceState;
use crate::cli::text::{harmless, printable};
use crate::cli::text_table::TextTable;

const HEADS: [&str; 5] = ["PLACE", "ROLE", "CLUSTER", "RUN", "DETAIL"];

/// All groups that were asked.
#[derive(Debug)]
pub(super) struct Reports(pub(super) Vec<GroupReport>);

/// One group: the servers of one cluster, if it is as it should be.
#[derive(Debug)]
pub(super) struct GroupReport {
    /// Its address.
    pub(super) server: String,
    /// Each place as it is written, and the server there.
    pub(super) places: Vec<(String, PlaceState)>,
}

/// The JSON, as the help documents it.
#[derive(Serialize)]
struct ShownGroups {
    servers: Vec<ShownGroup>,
}

#[derive(Serialize)]
struct ShownGroup {
    server: String,
    places: Vec<ShownPlace>,
}

#[derive(Serialize)]
struct ShownPlace {
    place: String,
    #[serde(flatten)]
    state: PlaceState,
}

impl Reports {
    /// Whether any server has answered.
    pub(super) fn has_answers(&self) -> bool {
        self.0.iter().any(GroupReport::has_answers)
    }

    /// What is wrong, for people; empty if each group has exactly one active server.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |group: &GroupReport| Some(format!("{}: {}", group.server, group.problem()?));
        self.0.iter().filter_map(problem).collect()
    }

    pub(super) fn to_text(&self) -> String {
        let is_one = self.0.len() == 1;
        let one = |group: &GroupReport| {
            let head = if is_one { String::new() } else { printable(group.server.as_bytes()) + ":\n" };
            head + &group.to_text()
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn to_json(&self) -> String {
        let shown = |group: &GroupReport| ShownGroup {
            server: group.server.clone(),
            places: group.places.iter().cloned().map(|(place, state)| ShownPlace { place, state }).collect(),
        };
        let all = ShownGroups { servers: self.0.iter().map(shown).collect() };
        // It cannot fail: strings and numbers under keys that are strings.
        let all = serde_json::to_string(&all).unwrap_or_default();
        format!("{}\n", harmless(&all))
    }
}

impl GroupReport {
    /// The places whose servers say that they are active.
    pub(super) fn active(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|(_, state)| state.is_active()).map(|(place, _)| place.as_str())
    }

    fn has_answers(&self) -> bool {
        self.places.iter().any(|(_, state)| !state.is_unreachable())
    }

    /// What is wrong with it, the worst first; `None` if exactly one server is active.
    fn problem(&self) -> Option<String> {
        let active: Vec<&str> = self.active().collect();
        let alone = self.places.iter().filter(|(_, state)| *state == PlaceState::Alone);
        let alone: Vec<&str> = alone.map(|(place, _)| place.as_str()).collect();
        match (active.as_slice(), alone.as_slice()) {
            ([_, _, ..], _) => Some(format!(
                "DANGER: {} SERVERS OF ONE GROUP ARE ACTIVE, and give locks independently of each other: {}. Unless \
                 one has just handed over to the other, they are not of the same cluster: stop all but one",
                active.len(),
                active.join(", ")
            )),
            (_, [_, ..]) if self.places.len() > 1 => Some(format!(
                "DANGER: not a member of a cluster, and gives locks independently of the other servers of the \
                 group: {}",
                alone.join(", ")
            )),
            (_, [_, ..]) => Some("this server is not a member of a cluster".to_owned()),
            ([], _) if !self.has_answers() => Some("no place answers".to_owned()),
            ([], _) => Some("no server of the group says that it is active".to_owned()),
            ([_], []) => None,
        }
    }

    fn to_text(&self) -> String {
        let mut table = TextTable::with_heads(&HEADS);
        for (place, state) in &self.places {
            let dash = || "-".to_owned();
            let [role, cluster, run, detail] = match state {
                PlaceState::Active { cluster, epoch } => {
                    ["active".to_owned(), printable(cluster.as_bytes()), epoch.to_string(), String::new()]
                }
                PlaceState::Standby { active } => {
                    let detail = match active {
                        Some(active) => format!("the active server is {active}"),
                        None => "it knows of no active server".to_owned(),
                    };
                    ["standby".to_owned(), dash(), dash(), detail]
                }
                PlaceState::Alone => {
                    ["alone".to_owned(), dash(), dash(), "it is not a member of a cluster".to_owned()]
                }
                PlaceState::Unreachable { reason } => {
                    ["unreachable".to_owned(), dash(), dash(), reason.clone()]
                }
                PlaceState::Unknown { reason } => ["unknown".to_owned(), dash(), dash(), reason.clone()],
            };
            // What servers say must not control the terminal.
            let detail = if detail.is_empty() { detail } else { printable(detail.as_bytes()) };
            table.add(vec![printable(place.as_bytes()), role, cluster, run, detail]);
        }
        table.take_lines().into_iter().map(|line| line + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn active(epoch: u64) -> PlaceState {
        PlaceState::Active { cluster: "main".to_owned(), epoch }
    }

    fn standby() -> PlaceState {
        PlaceState::Standby { active: Some("a:1".to_owned()) }
    }

    fn unreachable() -> PlaceState {
        PlaceState::Unreachable { reason: "Connection\nrefused".to_owned() }
    }

    fn group(states: &[PlaceState]) -> GroupReport {
        let places = ["a:1", "b:2", "c", "d"].map(str::to_owned).into_iter().zip(states.iter().cloned());
        GroupReport { server: "tcp://x".to_owned(), places: places.collect() }
    }

    #[test]
    fn exactly_one_server_is_active_or_the_problem_is_named() {
        assert_eq!(group(&[standby(), active(7), unreachable()]).problem(), None);
        let unknown = || PlaceState::Unknown { reason: "x".to_owned() };
        for (states, part) in [
            (
                &[active(7), standby(), active(7)][..],
                "DANGER: 2 SERVERS OF ONE GROUP ARE ACTIVE, and give locks \
                                                      independently of each other: a:1, c.",
            ),
            (&[active(7), PlaceState::Alone], "DANGER: not a member of a cluster"),
            (&[PlaceState::Alone, standby()], "independently of the other servers of the group: a:1"),
            (&[PlaceState::Alone], "this server is not a member of a cluster"),
            (&[standby(), unreachable()], "no server of the group says that it is active"),
            (&[unknown(), unreachable()], "no server of the group says that it is active"),
            (&[unreachable(), unreachable()], "no place answers"),
        ] {
            let problem = group(states).problem().unwrap();
            assert!(problem.contains(part), "{states:?}: {problem}");
        }
        let all = Reports(vec![group(&[active(1)]), group(&[unreachable()])]);
        assert!(all.has_answers());
        assert_eq!(all.problems(), ["tcp://x: no place answers"]);
        assert!(!Reports(vec![group(&[unreachable()])]).has_answers());
    }

    #[test]
    fn the_table_has_a_line_for_each_place() {
        let states = [active(7), standby(), unreachable(), PlaceState::Standby { active: None }];
        let text = Reports(vec![group(&states)]).to_text();
        assert_eq!(
            text,
            "PLACE  ROLE         CLUSTER  RUN  DETAIL\n\
             a:1    active       main     7\n\
             b:2    standby      -        -    the active server is a:1\n\
             c      unreachable  -        -    Connection\\nrefused\n\
             d      standby      -        -    it knows of no active server\n"
        );
        let two = Reports(vec![group(&[active(7)]), group(&[PlaceState::Alone])]).to_text();
        assert!(two.starts_with("tcp://x:\nPLACE") && two.contains("\n\ntcp://x:\n"), "{two}");
    }

    #[test]
    fn the_json_has_the_shape_that_the_help_documents() {
        let states = [active(7), standby(), unreachable(), PlaceState::Standby { active: None }];
        let json = Reports(vec![group(&states), group(&[PlaceState::Alone])]).to_json();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap(),
            json!({"servers": [
                {"server": "tcp://x", "places": [
                    {"place": "a:1", "role": "active", "cluster": "main", "epoch": 7},
                    {"place": "b:2", "role": "standby", "active": "a:1"},
                    {"place": "c", "role": "unreachable", "reason": "Connection\nrefused"},
                    {"place": "d", "role": "standby"},
                ]},
                {"server": "tcp://x", "places": [{"place": "a:1", "role": "alone"}]},
            ]})
        );
    }
}
