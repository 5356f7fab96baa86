//! `lockd list`: the locks, their holders, and how many requests wait for each.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use lockd::broker::Mode;
use lockd::wire::message::ListedLock;

use crate::cli::server_option::ServerOption;
use crate::cli::show::{ShowError, connect, finish, pages};
use crate::cli::text::{address_of, age, harmless, name_of, printable};
use crate::cli::text_table::TextTable;

pub(super) const HEADS: [&str; 6] = ["NAME", "MODE", "HOLDER", "OWNER", "HELD", "WAITING"];

/// Which locks to show.
#[derive(Args, Clone, Debug)]
pub(super) struct Selection {
    /// Only names that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: OsString,

    /// Only locks that have waiters
    #[arg(long)]
    waiting: bool,
}

impl Selection {
    pub(super) fn prefix(&self) -> &[u8] {
        self.prefix.as_bytes()
    }

    pub(super) fn has(&self, lock: &ListedLock) -> bool {
        !self.waiting || !lock.waiters.is_empty()
    }
}

/// What to list.
#[derive(Args, Debug)]
#[command(after_help = "\
One line for each holder. A name that has waiters but no holder has - in place of the holder: the first in its queue \
waits for another name, too. Characters of a name that cannot be shown are written as escapes.

With --json one object: {\"locks\":[...],\"more\":...}, the locks as the protocol's list has them; more is true if \
--limit has left some out.")]
pub(crate) struct ListOptions {
    #[command(flatten)]
    selection: Selection,

    /// List at most this many locks
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Write JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: ServerOption,
}

pub(crate) fn list(options: &ListOptions) -> ExitCode {
    finish(show(options))
}

fn show(options: &ListOptions) -> Result<(), ShowError> {
    let (session, unreachable) = connect(&options.at)?;
    let mut left = options.limit.unwrap_or(usize::MAX);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut writer = if options.json { Writer::json() } else { Writer::table() };
    let mut left_out = false;
    writer.begin(&mut out)?;
    pages(&session, options.selection.prefix(), |mut locks| {
        locks.retain(|lock| options.selection.has(lock));
        left_out = locks.len() > left;
        locks.truncate(left);
        left -= locks.len();
        writer.write(&mut out, &locks)?;
        // Each page is shown at once: there may be millions of locks.
        out.flush()?;
        // Once the limit is reached, this goes on to see whether another lock is left out.
        Ok(!left_out)
    })?;
    writer.end(&mut out, left_out)?;
    out.flush()?;
    unreachable.into_result()
}

/// Writes locks page by page.
enum Writer {
    Json { separator: &'static str },
    Table(TextTable),
}

impl Writer {
    fn json() -> Self {
        Self::Json { separator: "\n" }
    }

    fn table() -> Self {
        Self::Table(TextTable::with_heads(&HEADS))
    }

    fn begin(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Json { .. } => write!(out, "{{\"locks\":["),
            Self::Table(_) => Ok(()),
        }
    }

    fn write(&mut self, out: &mut impl Write, locks: &[ListedLock]) -> io::Result<()> {
        match self {
            Self::Json { separator } => {
                for lock in locks {
                    write!(out, "{separator}{}", harmless(&serde_json::to_string(lock)?))?;
                    *separator = ",\n";
                }
            }
            Self::Table(table) => {
                locks.iter().flat_map(rows).for_each(|row| table.add(row));
                for line in table.take_lines() {
                    writeln!(out, "{line}")?;
                }
            }
        }
        Ok(())
    }

    fn end(mut self, out: &mut impl Write, more: bool) -> io::Result<()> {
        // Writes the heads of a table that has no rows.
        self.write(out, &[])?;
        match self {
            Self::Json { .. } => writeln!(out, "],\"more\":{more}}}"),
            Self::Table(_) => Ok(()),
        }
    }
}

/// A row for each holder, and one for all holders that did not fit on the server's page. A lock
/// without holders has one row.
pub(super) fn rows(lock: &ListedLock) -> Vec<Vec<String>> {
    let mode = match lock.mode {
        Some(Mode::Limited(limit)) => format!("{}/{}", lock.holder_count(), limit.get()),
        Some(mode) => mode.to_string(),
        None => "-".to_owned(),
    };
    let row = |address: String, owner: String, held: String| {
        let waiters = lock.waiters.len() + lock.more_waiters;
        vec![name_of(lock), mode.clone(), address, owner, held, waiters.to_string()]
    };
    if lock.holders.is_empty() {
        let dash = || "-".to_owned();
        return vec![row(dash(), dash(), dash())];
    }
    let of_holder = lock
        .holders
        .iter()
        .map(|holder| row(address_of(holder), owner(holder.name.as_deref()), age(holder.held_for)));
    let unlisted = (lock.more_holders > 0)
        .then(|| row(format!("and {} more", lock.more_holders), "-".to_owned(), "-".to_owned()));
    of_holder.chain(unlisted).collect()
}

/// The name that a session has registered; `-` without one.
pub(super) fn owner(name: Option<&str>) -> String {
    name.map_or_else(|| "-".to_owned(), |name| printable(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use lockd::broker::LockName;
    use lockd::wire::message::{ListedHolder, ListedWaiter, LockPage};

    use super::*;

    fn lock(name: &[u8], owners: &[Option<&str>]) -> ListedLock {
        let holder = |owner: &Option<&str>| ListedHolder {
            address: "[::1]:7".to_owned(),
            name: owner.map(str::to_owned),
            limit: None,
            token: 9,
            held_for: 2.0,
            session: None,
            in_doubt: None,
        };
        ListedLock {
            mode: (!owners.is_empty()).then_some(Mode::Shared),
            holders: owners.iter().map(holder).collect(),
            ..ListedLock::new(&LockName::new(name))
        }
    }

    fn written(mut writer: Writer, pages: &[&[ListedLock]]) -> String {
        let mut out = Vec::new();
        writer.begin(&mut out).unwrap();
        pages.iter().for_each(|page| writer.write(&mut out, page).unwrap());
        writer.end(&mut out, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_has_a_line_for_each_holder() {
        let waiter = ListedWaiter {
            address: "x".to_owned(),
            name: None,
            mode: Mode::Shared,
            waiting_for: 1.0,
            session: None,
        };
        let waited = ListedLock { waiters: vec![waiter], ..lock(b"b\n", &[]) };
        let text = written(Writer::table(), &[&[lock(b"a", &[Some("bob\t"), None])], &[waited]]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], HEADS);
        assert_eq!(lines[1], ["a", "shared", "[::1]:7", r"bob\t", "2.0s", "0"]);
        assert_eq!(lines[2], ["a", "shared", "[::1]:7", "-", "2.0s", "0"]);
        assert_eq!(lines[3], [r"b\n", "-", "-", "-", "-", "1"]);
    }

    #[test]
    fn a_limited_lock_is_shown_with_its_holders_and_its_limit() {
        let limited = ListedLock { mode: Mode::at_most(4), more_holders: 1, ..lock(b"a", &[None, None]) };
        assert_eq!(rows(&limited)[0][..2], ["a", "3/4"]);
    }

    #[test]
    fn holders_and_waiters_that_did_not_fit_on_the_page_are_counted() {
        let crowded = ListedLock { more_holders: 30, more_waiters: 400, ..lock(b"a", &[Some("bob")]) };
        let rows = rows(&crowded);
        assert_eq!(rows[0], ["a", "shared", "[::1]:7", "bob", "2.0s", "400"]);
        assert_eq!(rows[1], ["a", "shared", "and 30 more", "-", "-", "400"]);
    }

    #[test]
    fn json_is_one_object_of_all_pages() {
        let locks = [lock(b"a\x1b", &[None]), lock(b"\xff", &[])];
        for pages in [&[&locks[..]][..], &[&locks[..1], &locks[1..]], &[]] {
            let text = written(Writer::json(), pages);
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let page = LockPage { locks: pages.concat(), more: true };
            assert_eq!(read, serde_json::from_str::<serde_json::Value>(&page.to_json()).unwrap());
        }
    }
}
