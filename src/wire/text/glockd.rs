//! What only the `glockd` dialect prints: lists of locks and connections, the statistics, the help.
//! Only appends bytes. The caller gives long lists in pieces, so that nothing is held up while one
//! is written.

use crate::wire::push_in_line;

/// Appends a line of `d` and `sd` (a lock and its holder) or of `who` (an address and its name).
///
/// As in the original, the line ends with `\n` alone, and nothing marks the last line. A line break
/// in a name is written as a space.
pub fn encode_pair(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    push_in_line(out, key);
    out.extend_from_slice(b": ");
    push_in_line(out, value);
    out.push(b'\n');
}

/// The one line of `dump` or `dump shared`, written entry by entry.
///
/// It has the form of a map that Go prints: `map[foo:HOLDER bar:HOLDER]`. Names may contain the
/// same punctuation, so no program can parse it reliably.
#[derive(Debug)]
#[must_use = "the line lacks its end until `end` is called"]
pub struct DumpEncoder {
    /// Whether the next entry is the first, which no space precedes.
    first: bool,
}

impl DumpEncoder {
    /// Appends the start of the line.
    pub fn start(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"map[");
        Self { first: true }
    }

    /// Appends an exclusive lock and the address of its holder.
    pub fn entry(&mut self, out: &mut Vec<u8>, name: &[u8], holder: &[u8]) {
        self.key(out, name);
        out.extend_from_slice(holder);
    }

    /// Begins a shared lock. Its holders follow.
    pub fn begin_shared_entry(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        self.key(out, name);
        out.push(b'[');
    }

    /// Appends the address of a holder of the shared lock that was begun last. `number` counts the
    /// holders from 0 up.
    pub fn holder(&self, out: &mut Vec<u8>, number: usize, holder: &[u8]) {
        if number > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(holder);
    }

    /// Ends the shared lock that was begun last.
    pub fn end_shared_entry(&self, out: &mut Vec<u8>) {
        out.push(b']');
    }

    /// Appends the end of the line.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]\r\n");
    }

    fn key(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        if !std::mem::take(&mut self.first) {
            out.push(b' ');
        }
        push_in_line(out, name);
        out.push(b':');
    }
}

/// The statistics that `q` prints. Counters run since the server's start, unless the field says
/// "now".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlockdStatistics {
    /// The number of `d` commands.
    pub command_d: u64,
    /// The number of `dump` commands.
    pub command_dump: u64,
    /// The number of `g` commands.
    pub command_g: u64,
    /// The number of `i` commands.
    pub command_i: u64,
    /// The number of `iam` commands.
    pub command_iam: u64,
    /// The number of `me` commands.
    pub command_me: u64,
    /// The number of `q` commands.
    pub command_q: u64,
    /// The number of `r` commands.
    pub command_r: u64,
    /// The number of `sd` commands.
    pub command_sd: u64,
    /// The number of `sg` commands.
    pub command_sg: u64,
    /// The number of `si` commands.
    pub command_si: u64,
    /// The number of `sr` commands.
    pub command_sr: u64,
    /// The number of `who` commands.
    pub command_who: u64,
    /// Connections open now.
    pub connections: u64,
    /// Lines without a valid command.
    pub invalid_commands: u64,
    /// Names that are held exclusively now.
    pub locks: u64,
    /// Exclusive locks freed by lost connections.
    pub orphans: u64,
    /// Names that are held shared now.
    pub shared_locks: u64,
    /// Shared locks freed by lost connections.
    pub shared_orphans: u64,
}

impl GlockdStatistics {
    /// Appends a line for each count, sorted by key. `shared_orphans` is always the last, so that a
    /// client can stop reading there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let counts: [(&[u8], u64); 19] = [
            (b"command_d", self.command_d),
            (b"command_dump", self.command_dump),
            (b"command_g", self.command_g),
            (b"command_i", self.command_i),
            (b"command_iam", self.command_iam),
            (b"command_me", self.command_me),
            (b"command_q", self.command_q),
            (b"command_r", self.command_r),
            (b"command_sd", self.command_sd),
            (b"command_sg", self.command_sg),
            (b"command_si", self.command_si),
            (b"command_sr", self.command_sr),
            (b"command_who", self.command_who),
            (b"connections", self.connections),
            (b"invalid_commands", self.invalid_commands),
            (b"locks", self.locks),
            (b"orphans", self.orphans),
            (b"shared_locks", self.shared_locks),
            (b"shared_orphans", self.shared_orphans),
        ];
        for (key, count) in counts {
            encode_pair(out, key, itoa::Buffer::new().format(count).as_bytes());
        }
    }
}

/// The reply to `help`: a line for each command, then an empty one.
pub const HELP: &str = "\
g NAME             get an exclusive lock, or be refused at once
r NAME             release an exclusive lock
i NAME             is it locked exclusively?
sg NAME            get a shared lock
sr NAME            release a shared lock
si NAME            how many hold it shared?
gw SECONDS NAME    as g, but wait for up to SECONDS (- is without limit)
sgw SECONDS NAME   as sg, but wait for up to SECONDS (- is without limit)
t NAME             the fencing token of an exclusive lock of yours, or 0
me                 your address and registered name
iam [NAME]         register a name for this connection, or reset it
who [NAME]         the connections with a registered name
d [NAME]           exclusive locks and who holds them
sd [NAME]          shared locks and who holds them
dump [shared]      all locks in one line
q                  counters
help               this list

";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::text::request::{TextDialect, TextRequest};

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_break_in_a_name_adds_no_line() {
        let mut out = Vec::new();
        encode_pair(&mut out, b"evil\nfoo: 1.2.3.4:5", b"x\r\ny");
        assert_eq!(out, b"evil foo: 1.2.3.4:5: x  y\n");
    }

    #[test]
    fn a_pair_is_a_line() {
        assert_eq!(encoded(|out| encode_pair(out, b"foo", b"unix:3")), "foo: unix:3\n");
    }

    #[test]
    fn a_dump_has_the_form_of_a_printed_map() {
        let dump = encoded(|out| {
            let mut dump = DumpEncoder::start(out);
            dump.entry(out, b"foo", b"127.0.0.1:60882");
            dump.entry(out, b"", b"unix:1");
            dump.end(out);
        });
        assert_eq!(dump, "map[foo:127.0.0.1:60882 :unix:1]\r\n");
        let shared = encoded(|out| {
            let mut dump = DumpEncoder::start(out);
            for (name, holders) in [("foo", &["A", "B"][..]), ("bar", &["A"]), ("baz", &[])] {
                dump.begin_shared_entry(out, name.as_bytes());
                for (number, holder) in holders.iter().enumerate() {
                    dump.holder(out, number, holder.as_bytes());
                }
                dump.end_shared_entry(out);
            }
            dump.end(out);
        });
        assert_eq!(shared, "map[foo:[A B] bar:[A] baz:[]]\r\n");
        assert_eq!(encoded(|out| DumpEncoder::start(out).end(out)), "map[]\r\n");
    }

    #[test]
    fn statistics_are_lines_sorted_by_key() {
        let statistics = GlockdStatistics {
            command_d: 1,
            command_dump: 2,
            command_g: 3,
            command_i: 4,
            command_iam: 5,
            command_me: 6,
            command_q: 7,
            command_r: 8,
            command_sd: 9,
            command_sg: 10,
            command_si: 11,
            command_sr: 12,
            command_who: 13,
            connections: 14,
            invalid_commands: 15,
            locks: 16,
            orphans: 17,
            shared_locks: 18,
            shared_orphans: 19,
        };
        let keys = "command_d command_dump command_g command_i command_iam command_me command_q command_r \
                    command_sd command_sg command_si command_sr command_who connections invalid_commands \
                    locks orphans shared_locks shared_orphans";
        let numbered = keys.split(' ').zip(1..);
        let expected: String = numbered.map(|(key, number)| format!("{key}: {number}\n")).collect();
        assert_eq!(encoded(|out| statistics.encode(out)), expected);
    }

    #[test]
    fn help_lists_every_command_and_ends_with_an_empty_line() {
        let (commands, end) = HELP.split_at(HELP.len() - 2);
        assert_eq!(end, "\n\n");
        assert_eq!(commands.lines().count(), 17);
        for line in commands.lines() {
            let command = line.split(' ').next().unwrap();
            assert_ne!(TextDialect::Glockd.parse(command.as_bytes()), TextRequest::Invalid, "{command}");
        }
    }
}
