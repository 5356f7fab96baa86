//! How connections through a proxy break by chance, so that both kernels do what they would do on a
//! real network. Chooses by the seed; knows no server and no client.

use super::proxy::{Act, Proxy, Side, Which};
use crate::history::{Nanos, SECOND};
use crate::random::Random;

/// The longest time until the kernel of a client that is cut off gives up its connection, and that of
/// the server. (The client has D from the last sign of life; a busy machine may be late.)
const CLIENT_GIVES_UP_MAX: Nanos = 6 * SECOND;
const SERVER_GIVES_UP_MAX: Nanos = 3 * SECOND;
/// The longest outage: longer than a client's limit.
const OUTAGE_MAX: Nanos = 14 * SECOND;

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Both sides see a reset at once.
    Reset,
    ResetClientSide,
    ResetServerSide,
    /// Nothing arrives any more, in one direction or both.
    Cut,
}

/// Breaks a connection. The kernel that does not see it at once gives the connection up later, on
/// both sides; only a cut may also end before that.
pub(crate) fn break_one(proxy: &Proxy, how: Break, random: &mut Random) {
    let number = random.next();
    let client = random.between(0, CLIENT_GIVES_UP_MAX);
    let server = random.between(0, SERVER_GIVES_UP_MAX);
    let (first, client, server) = match how {
        Break::Reset => (Act::Reset(Side::Server), 0, 0),
        Break::ResetClientSide => (Act::Reset(Side::Client), 0, server),
        Break::ResetServerSide => (Act::Reset(Side::Server), client, 0),
        Break::Cut => (Act::Keep(random.one_of(&[Side::Client, Side::Server])), client, server),
    };
    proxy.act(Which::One(number), first);
    let same = Which::Same(number);
    if how == Break::Cut {
        if random.percent(40) {
            proxy.act(same, Act::Keep(Side::Client));
            proxy.act(same, Act::Keep(Side::Server));
        }
        if random.percent(30) {
            let after = random.between(0, 2 * SECOND);
            return proxy.act_after(same, Act::LetGo, after);
        }
    }
    proxy.act_after(same, Act::Reset(Side::Client), client);
    proxy.act_after(same, Act::Reset(Side::Server), server);
}

/// All connections end, and none can be made for a while.
pub(crate) fn interrupt(proxy: &Proxy, random: &mut Random) {
    proxy.accept(false);
    let client = random.between(0, CLIENT_GIVES_UP_MAX);
    // New connections are made when none of the old ones is left to be reset.
    let end = random.between(client, OUTAGE_MAX);
    proxy.act(Which::All, Act::Reset(Side::Server));
    proxy.act_after(Which::All, Act::Reset(Side::Client), client);
    proxy.accept_after(true, end);
}
