//! Names of any bytes: each is its own lock, and it is the same lock for every client.

use super::Trial;
use crate::calls::EXCLUSIVE;
use crate::driver::NOW;
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::Verdict;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("names", "A name of any bytes is the same lock for all clients.", &["names"], same),
    Trial::new("names-alike", "Names that differ in anything are different locks.", &["names"], alike),
    Trial::new(
        "names-length",
        "The longest name can be locked, and a longer one is refused.",
        &["names"],
        length,
    ),
];

/// Those with zero bytes only if the client can take them.
fn odd(stage: &Stage) -> Vec<Vec<u8>> {
    let texts = [
        "", "%", "%41", "%%", " ", "  ", "a b", " a", "a ", "\t", "\n", "\r\n", "\0", "a\0b", "\"", "\\",
        "\\u0061", "'", "{}", "[]", "null", "true", "42", "0", "-1", "1e3", "4.20", "00", "ä", "a\u{308}",
        "日本", "😀", "\u{feff}", "\u{2028}", "/", "a/../b", "tcp://x", "a,b", "*", "$HOME", "-n", "--",
    ];
    let mut names: Vec<_> = texts.into_iter().map(|text| text.as_bytes().to_vec()).collect();
    names.push((1..=255).collect());
    names.extend([
        vec![0xff, 0x00],
        vec![0xc3],
        vec![0x80],
        vec![0xed, 0xa0, 0x80],
        vec![0; 32],
        vec![b'x'; 1024],
    ]);
    names.retain(|name| stage.can("zero-byte") || !name.contains(&0));
    names
}

fn same(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    for name in odd(stage) {
        driver.hold(&name, EXCLUSIVE)?;
        witness.cannot_acquire(&name, EXCLUSIVE)?;
        if stage.can("check") {
            driver.check(&name)?.must_be(Word::Held)?;
        }
        driver.release(&name)?.must_be(Word::Ok)?;
        witness.acquire(&name, EXCLUSIVE)?;
        driver.acquire(&name, EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
        witness.release(&name)?;
    }
    driver.end()
}

fn alike(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    let mut names = odd(stage);
    let more =
        ["a", "A", "a  b", "a\tb", "a\u{a0}b", "b", "Ä", "041", "4.2", "42.0", "1e03", "\0\0", "True", "nul"];
    names.extend(more.map(|name| name.as_bytes().to_vec()));
    names.retain(|name| stage.can("zero-byte") || !name.contains(&0));
    for name in &names {
        driver.hold(name, EXCLUSIVE)?;
    }
    for name in &names {
        witness.cannot_acquire(name, EXCLUSIVE)?;
        driver.release(name)?.must_be(Word::Ok)?;
        witness.acquire(name, EXCLUSIVE)?;
    }
    driver.end()
}

fn length(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    let (longest, too_long) = ([b'n'; 1024], [b'n'; 1025]);
    driver.hold(longest, EXCLUSIVE)?;
    driver.acquire(too_long, EXCLUSIVE, NOW)?.must_be_one_of(&[Word::Invalid, Word::Refused])?;
    witness.until(longest, 1, 0)?;
    // The session goes on.
    driver.hold("n", EXCLUSIVE)?;
    driver.release(longest)?.must_be(Word::Ok)?;
    driver.end()
}
