//! Servers that lie in the text protocols: only a number other than 0 is a yes, on a connection
//! that is still open.

use super::Trial;
use crate::calls::EXCLUSIVE;
use crate::driver::NOW;
use crate::fake_text_server::{FakeTextServer, TextLie};
use crate::stage::Stage;
use crate::verdict::Verdict;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("liar-text", "A line that does not begin with a number is no grant.", &[], words)
        .unless(&["message"]),
    Trial::new("liar-text-end", "A grant that comes together with the end of the stream is none.", &[], ends)
        .unless(&["message"]),
];

fn is_no_grant(stage: &Stage, bytes: &'static [u8], ends: bool) -> Verdict {
    let lie = TextLie { bytes, ends };
    let during = format!("{lie:?}");
    let server = FakeTextServer::start(&stage.host, lie, &stage.transcript);
    let driver = stage.connected_to(&format!("{}://{}", stage.protocol(), server.address()))?;
    // What is said rightly is believed; otherwise, that the lie is not believed would show nothing.
    driver.hold("truth", EXCLUSIVE)?;
    let answer = driver.acquire("lie", EXCLUSIVE, NOW).and_then(crate::outcome::Answer::must_not_be_a_yes);
    answer.map(drop).map_err(|failure| failure.during(&during))
}

fn words(stage: &Stage) -> Verdict {
    let lies: [&[u8]; 9] = [
        b"0 Lock Get Failure: lie\r\n",
        b"Lock Get Success: lie\r\n",
        b"granted\r\n",
        b"ok\r\n",
        b"\r\n",
        b"true\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"{\"id\":1,\"result\":{\"status\":\"ok\"}}\r\n",
        b"\xff\xfe\x00\x31\r\n",
    ];
    for bytes in lies {
        is_no_grant(stage, bytes, false)?;
    }
    Ok(())
}

fn ends(stage: &Stage) -> Verdict {
    let lies: [&[u8]; 5] = [
        b"1 Lock Get Success: lie\r\n",
        b"1 Lock Get Success: lie",
        b"1",
        b"",
        b"1 Lock Get Success: lie\r\n0\r\n",
    ];
    for bytes in lies {
        is_no_grant(stage, bytes, true)?;
    }
    Ok(())
}
