//! Who holds a lock, what that holder waits for, who holds that, and so on to the end: for
//! `lockd inspect --chain`, and for the message of `lockd run` when its wait has timed out.
//!
//! - `gather`: asks the servers, within a time limit. `follow`: makes the chain of what they have
//!   listed. `chain_text`: the chain as a table, and as one line.
//!
//! Listings are no snapshots, and a server knows only its own sessions. So a chain shows what was
//! so a moment ago, and says what it cannot know.

mod chain_text;
mod follow;
mod gather;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use lockd::broker::LockName;
use lockd::client::ServerUrl;

pub(super) use follow::Chain;
pub(super) use gather::Listings;

/// How long `lockd run` may ask for the chain.
const RUN_LIMIT: Duration = Duration::from_secs(1);

/// What the holders of these locks wait for, in one line: for `lockd run`, which has already said
/// who holds them. `None` if they wait for nothing, or if nothing could be learned within a second.
pub(super) fn waits_of_holders(urls: &str, names: &[OsString]) -> Option<String> {
    let servers = ServerUrl::parse_list(urls).ok()?;
    let names: Vec<LockName> = names.iter().map(|name| LockName::new(name.as_bytes())).collect();
    let listings = Listings::gather(&servers, &names, RUN_LIMIT);
    names.iter().find_map(|name| Chain::of(name, &listings).line())
}
