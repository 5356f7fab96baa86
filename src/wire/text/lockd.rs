//! What only the `lockd` dialect prints: the statistics and the list of locks, in the form of PHP's
//! `print_r`. Knows names and counts; the caller collects them.

use crate::wire::{push_decimal, push_in_line};

/// The statistics that `q` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockdStatistics {
    /// The server's process id.
    pub pid: u32,
    /// Connections open now.
    pub conns: u64,
    /// Names that are held now.
    pub locks: u64,
    /// Locks freed by lost connections since the start.
    pub orphans: u64,
    /// Commands since the start, including invalid ones.
    pub commands: u64,
    /// Of these `g`.
    pub command_g: u64,
    /// Of these `r`.
    pub command_r: u64,
    /// Of these `i`.
    pub command_i: u64,
    /// Of these `sg`.
    pub command_sg: u64,
    /// Of these `sr`.
    pub command_sr: u64,
    /// Of these `si`.
    pub command_si: u64,
    /// Of these `q`.
    pub command_q: u64,
}

impl LockdStatistics {
    /// Appends the statistics as PHP's `print_r` prints an array, in the order of the original.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let counts: [(&[u8], u64); 12] = [
            (b"pid", self.pid.into()),
            (b"conns", self.conns),
            (b"locks", self.locks),
            (b"orphans", self.orphans),
            (b"commands", self.commands),
            (b"command_g", self.command_g),
            (b"command_r", self.command_r),
            (b"command_i", self.command_i),
            (b"command_sg", self.command_sg),
            (b"command_sr", self.command_sr),
            (b"command_si", self.command_si),
            (b"command_q", self.command_q),
        ];
        open_array(out, 0);
        for (key, count) in counts {
            push_key(out, 0, key);
            push_decimal(out, count);
            out.push(b'\n');
        }
        close_array(out, 0);
    }
}

/// The second array of `q full`, written in pieces as PHP's `print_r` prints nested arrays: first
/// all locks, then the holders of shared locks.
pub struct DetailsEncoder(());

impl DetailsEncoder {
    /// Begins the array, and in it the array of locks.
    #[must_use]
    pub fn start(out: &mut Vec<u8>) -> Self {
        open_array(out, 0);
        push_key(out, 0, b"locks");
        open_array(out, 1);
        Self(())
    }

    /// Appends a lock and its holder.
    pub fn lock(&self, out: &mut Vec<u8>, name: &[u8], holder: &[u8]) {
        push_key(out, 1, name);
        out.extend_from_slice(holder);
        out.push(b'\n');
    }

    /// Appends a shared lock and the number of its holders.
    pub fn shared_lock(&self, out: &mut Vec<u8>, name: &[u8], holders: usize) {
        self.lock(out, &[b"s:", name].concat(), holders.to_string().as_bytes());
    }

    /// Ends the array of locks and begins the array of shares.
    pub fn begin_shares(&self, out: &mut Vec<u8>) {
        close_array(out, 1);
        out.push(b'\n');
        push_key(out, 0, b"shares");
        open_array(out, 1);
    }

    /// Begins the array of a holder of shared locks.
    pub fn begin_holder(&self, out: &mut Vec<u8>, holder: &[u8]) {
        push_key(out, 1, holder);
        open_array(out, 2);
    }

    /// Appends a shared lock of that holder. `number` counts them from 0 up.
    pub fn share(&self, out: &mut Vec<u8>, number: usize, name: &[u8]) {
        push_key(out, 2, number.to_string().as_bytes());
        push_in_line(out, name);
        out.push(b'\n');
    }

    /// Ends the array of that holder.
    pub fn end_holder(&self, out: &mut Vec<u8>) {
        close_array(out, 2);
        out.push(b'\n');
    }

    /// Ends the whole array.
    pub fn end(self, out: &mut Vec<u8>) {
        close_array(out, 1);
        out.push(b'\n');
        close_array(out, 0);
    }
}

/// Begins an array that is nested in `depth` others, as PHP's `print_r` does: each level is
/// indented by eight columns. An empty line follows a nested array, because both the array and its
/// entry end with a newline.
fn open_array(out: &mut Vec<u8>, depth: usize) {
    out.extend_from_slice(b"Array\n");
    push_indented(out, 8 * depth, b"(\n");
}

fn push_key(out: &mut Vec<u8>, depth: usize, key: &[u8]) {
    push_indented(out, 8 * depth + 4, b"[");
    push_in_line(out, key);
    out.extend_from_slice(b"] => ");
}

fn close_array(out: &mut Vec<u8>, depth: usize) {
    push_indented(out, 8 * depth, b")\n");
}

fn push_indented(out: &mut Vec<u8>, columns: usize, text: &[u8]) {
    out.resize(out.len() + columns, b' ');
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn statistics_are_what_print_r_prints() {
        let statistics = LockdStatistics {
            pid: 123,
            conns: 1,
            locks: 2,
            orphans: 3,
            commands: 4,
            command_g: 5,
            command_r: 6,
            command_i: 7,
            command_sg: 8,
            command_sr: 9,
            command_si: 10,
            command_q: u64::MAX,
        };
        let expected = "\
Array
(
    [pid] => 123
    [conns] => 1
    [locks] => 2
    [orphans] => 3
    [commands] => 4
    [command_g] => 5
    [command_r] => 6
    [command_i] => 7
    [command_sg] => 8
    [command_sr] => 9
    [command_si] => 10
    [command_q] => 18446744073709551615
)
";
        assert_eq!(encoded(|out| statistics.encode(out)), expected);
    }

    /// Printed by PHP 8 for `print_r(["locks" => ["foo" => "a:1", "s:bar" => "2"], "shares" =>
    /// ["a:1" => ["bar", "baz"], "b:2" => []]])`.
    #[test]
    fn details_are_what_print_r_prints() {
        let details = |out: &mut Vec<u8>| {
            let encoder = DetailsEncoder::start(out);
            encoder.lock(out, b"foo", b"a:1");
            encoder.shared_lock(out, b"bar", 2);
            encoder.begin_shares(out);
            encoder.begin_holder(out, b"a:1");
            encoder.share(out, 0, b"bar");
            encoder.share(out, 1, b"baz");
            encoder.end_holder(out);
            encoder.begin_holder(out, b"b:2");
            encoder.end_holder(out);
            encoder.end(out);
        };
        let expected = "\
Array
(
    [locks] => Array
        (
            [foo] => a:1
            [s:bar] => 2
        )

    [shares] => Array
        (
            [a:1] => Array
                (
                    [0] => bar
                    [1] => baz
                )

            [b:2] => Array
                (
                )

        )

)
";
        assert_eq!(encoded(details), expected);
    }
}
