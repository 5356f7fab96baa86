//! Protocols of lines: lockd's, glockd's, memcached's, and that of a server which says what it is told.

use super::{Dialect, Exchange, Reply, Request, Want};

/// PHP lockd's.
pub(in super::super) struct Lockd;
/// glockd's.
pub(in super::super) struct Glockd;
/// memcached's, whose `add` succeeds for one of many.
pub(in super::super) struct Memcached;
/// The yardstick's: requests as long as glockd's, and each is its own answer.
pub(in super::super) struct Echo;

impl Dialect for Lockd {
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let name = want.name_without_waiting()?;
        Ok(Exchange {
            acquire: Request::new(format!("g {name}\n"), "1 Got Lock\r\n")
                .or_refused("0 Cannot Get Lock\r\n"),
            release: Request::new(format!("r {name}\n"), "1 Released Lock\r\n"),
        })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        line(input)
    }
}

impl Dialect for Glockd {
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let name = want.name();
        let acquire = if want.wait { format!("gw - {name}\n") } else { format!("g {name}\n") };
        Ok(Exchange {
            acquire: Request::new(acquire, format!("1 Lock Get Success: {name}\r\n"))
                .or_refused(format!("0 Lock Get Failure: {name}\r\n")),
            release: Request::new(format!("r {name}\n"), format!("1 Lock Release Success: {name}\r\n")),
        })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        line(input)
    }
}

impl Dialect for Memcached {
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let name = want.name_without_waiting()?;
        let acquire = format!("add {name} 0 30 1\r\n1\r\n");
        Ok(Exchange {
            acquire: Request::new(acquire, "STORED\r\n").or_refused("NOT_STORED\r\n"),
            release: Request::new(format!("delete {name}\r\n"), "DELETED\r\n"),
        })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        line(input)
    }
}

impl Dialect for Echo {
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let name = want.name_without_waiting()?;
        let same = |text: String| Request::new(text.clone(), text);
        Ok(Exchange { acquire: same(format!("g {name}\n")), release: same(format!("r {name}\n")) })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        line(input)
    }
}

fn line(input: &[u8]) -> Option<Reply<'_>> {
    let len = memchr::memchr(b'\n', input)? + 1;
    Some(Reply { len, verdict: &input[..len] })
}
