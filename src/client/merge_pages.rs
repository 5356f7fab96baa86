//! One page of locks from the pages of several servers. Pure; asks no server.

use crate::broker::LockName;
use crate::wire::message::LockPage;

/// The first `limit` locks of all pages, in the order of their names. `pages` has one page of each
/// server, in the order of the servers, and `owner` returns the index of the server that a name
/// belongs to: if several servers list a name, the owner's entry is shown. `None` if a name in a
/// page is malformed.
///
/// A server whose page ends early may have more names after its last one. So the merged page shows
/// no name beyond the last name of any such page; otherwise names would be skipped.
pub(super) fn merge_pages(
    pages: Vec<LockPage>,
    limit: usize,
    owner: impl Fn(&LockName) -> usize,
) -> Option<LockPage> {
    let (mut locks, mut more, mut end) = (Vec::new(), false, None);
    for (server, page) in pages.into_iter().enumerate() {
        let mut last = None;
        for lock in page.locks {
            let name = lock.name()?;
            last = Some(name.clone());
            locks.push((owner(&name) != server, name, lock));
        }
        if let Some(last) = last.filter(|_| page.more) {
            more = true;
            end = Some(end.map_or_else(|| last.clone(), |end: LockName| end.min(last.clone())));
        }
    }
    // Of equal names the owner's comes first, and is the one that stays.
    locks.sort_by(|(stray, name, _), (other_stray, other, _)| (name, stray).cmp(&(other, other_stray)));
    locks.dedup_by(|(_, name, _), (_, before, _)| name == before);
    let shown =
        locks.iter().take(limit).take_while(|(_, name, _)| end.as_ref().is_none_or(|end| name <= end));
    let shown = shown.count();
    more |= shown < locks.len();
    Some(LockPage { locks: locks.into_iter().take(shown).map(|(_, _, lock)| lock).collect(), more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Mode;
    use crate::wire::message::ListedLock;

    /// A page with these names; `more` says that the server has further names.
    fn page(names: &[&str], more: bool) -> LockPage {
        LockPage { locks: names.iter().map(|&name| ListedLock::new(&name.into())).collect(), more }
    }

    /// The names in the merged page of two servers. Every name belongs to the second server.
    fn merged(limit: usize, pages: [LockPage; 2]) -> (Vec<String>, bool) {
        let page = merge_pages(pages.into(), limit, |_| 1).unwrap();
        (page.locks.into_iter().map(|lock| lock.lock_name).collect(), page.more)
    }

    #[test]
    fn merged_pages_end_where_a_server_may_have_more_names() {
        let is = |names: &[&str], more| (names.iter().map(|&name| name.to_owned()).collect(), more);
        let all = merged(9, [page(&["a", "c"], false), page(&["b", "d"], false)]);
        assert_eq!(all, is(&["a", "b", "c", "d"], false));
        let cut = merged(3, [page(&["a", "c"], false), page(&["b", "d"], false)]);
        assert_eq!(cut, is(&["a", "b", "c"], true));
        let early = merged(9, [page(&["a", "c"], true), page(&["b", "d"], false)]);
        assert_eq!(early, is(&["a", "b", "c"], true), "the first server may also have a name like ca");
        let early = merged(9, [page(&["c"], true), page(&["a", "b"], true)]);
        assert_eq!(early, is(&["a", "b"], true));
        assert_eq!(merged(9, [page(&["a"], true), page(&[], false)]), is(&["a"], true));
        assert_eq!(merged(9, [page(&[], false), page(&[], false)]), is(&[], false));
        assert_eq!(merged(2, [page(&["a", "b"], false), page(&["a", "b"], false)]), is(&["a", "b"], false));
    }

    #[test]
    fn a_name_on_two_servers_is_shown_as_its_owner_has_it() {
        for mode in [Some(Mode::Exclusive), None] {
            let (stray, mut own) = (page(&["a"], false), page(&["a"], false));
            own.locks[0].mode = mode;
            own.locks[0].orphaned = true;
            let page = merge_pages(vec![stray, own.clone()], 9, |_| 1);
            assert_eq!(page, Some(own));
        }
    }

    #[test]
    fn a_page_with_a_malformed_name_is_not_merged() {
        let mut malformed = page(&["a"], false);
        malformed.locks[0].lock_name_hex = Some("xy".to_owned());
        assert_eq!(merge_pages(vec![malformed, page(&[], false)], 9, |_| 0), None);
    }

    #[test]
    fn merged_pages_have_every_name_once_at_every_page_length() {
        let servers: [Vec<String>; 3] =
            [2, 3, 7].map(|step| (0..60).filter(|n| n % step == 0).map(|n| format!("{n:02}")).collect());
        let mut expected = servers.concat();
        expected.sort();
        expected.dedup();
        for limit in 1..=expected.len() {
            let (mut shown, mut more) = (Vec::<String>::new(), true);
            while more {
                let page_of = |names: &Vec<String>| {
                    let later = |name: &&String| shown.last().is_none_or(|last| *name > last);
                    let rest: Vec<&str> = names.iter().filter(later).map(String::as_str).collect();
                    page(&rest[..limit.min(rest.len())], rest.len() > limit)
                };
                let merged = merge_pages(servers.iter().map(page_of).collect(), limit, |_| 0).unwrap();
                assert!(merged.locks.len() == limit || !merged.more, "{limit}");
                shown.extend(merged.locks.into_iter().map(|lock| lock.lock_name));
                more = merged.more;
            }
            assert_eq!(shown, expected, "{limit}");
        }
    }
}
