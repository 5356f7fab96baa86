//! The driver of the Rust client. The runner starts itself once more to be this driver; nothing of
//! the runner is used here.

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::{InspectError, SessionState};

const GREETING: &str = "conformance 1
can message unix tls secret several wait limit-wait shared limit convert set token orphaned
can check inspect background cancel notice bounded names zero-byte deadlock resume
cannot fork a forked child must not use its parent's session: the Rust API cannot see forks, the C API does
ready";

/// Reads commands and writes outcomes, until the commands end.
pub(crate) fn run() {
    say(GREETING);
    let mut session = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let outcome = match (words.as_slice(), &session) {
            (["connect", name, time, urls @ ..], None) => match connect(name, millis(time), urls) {
                Ok(connected) => {
                    session = Some(Arc::new(connected));
                    "ok".to_owned()
                }
                Err(error) => format!("failed {}", one_line(&error)),
            },
            (_, None) => "error there is no session".to_owned(),
            (["in-background", ..], Some(session)) => {
                let (session, command) = (session.clone(), line.clone());
                std::thread::spawn(move || {
                    let words: Vec<_> = command.split(' ').skip(1).collect();
                    say(&format!("background {}", outcome(&session, &words)));
                });
                "ok".to_owned()
            }
            (words, Some(session)) => outcome(session, words),
        };
        say(&outcome);
    }
}

/// One line at a time, from any thread.
fn say(line: &str) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let _one_at_a_time = OUTPUT.lock();
    let mut output = std::io::stdout();
    // The runner may be gone.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn connect(name: &str, timeout: Duration, urls: &[&str]) -> Result<Session, String> {
    // What the library takes from files, the contract has in the environment.
    let mut more = Vec::new();
    let secret = match std::env::var("CONFORMANCE_SECRET") {
        Ok(secret) => {
            let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
            std::fs::write(file.path(), secret).map_err(|error| error.to_string())?;
            more.push(format!("auth-token-file={}", file.path().display()));
            Some(file)
        }
        Err(_) => None,
    };
    let url = |url: &&str| {
        let mut more = more.clone();
        let authority = std::env::var("CONFORMANCE_CA").ok().filter(|_| url.starts_with("tls://"));
        more.extend(authority.map(|file| format!("ca={file}")));
        if more.is_empty() || url.starts_with("unix:") {
            (*url).to_owned()
        } else {
            let asks = url.contains('?');
            format!("{url}{}{}", if asks { "&" } else { "?" }, more.join("&"))
        }
    };
    let urls: Vec<_> = urls.iter().map(url).collect();
    let name = String::from_utf8_lossy(&decoded(name)).into_owned();
    let connected = Session::connect(&urls.join(","), Some(&name), timeout);
    drop(secret);
    connected.map_err(|error| error.to_string())
}

/// Carries out a command that needs a session.
fn outcome(session: &Session, words: &[&str]) -> String {
    match words {
        ["acquire", name, mode, limit] => {
            acquired(session.acquire(&decoded(name), read_mode(mode), wait(limit)))
        }
        ["acquire-set", mode, limit, names @ ..] => {
            let names: Vec<_> = names.iter().map(|name| decoded(name)).collect();
            let wants: Vec<_> = names.iter().map(|name| (name.as_slice(), read_mode(mode))).collect();
            acquired(session.acquire_all(&wants, wait(limit)))
        }
        ["convert", name, mode, limit] => {
            acquired(session.convert(&decoded(name), read_mode(mode), wait(limit)))
        }
        ["release", name] => match session.release(&decoded(name)) {
            Ok(_) => "ok".to_owned(),
            Err(ReleaseError::NotHeld) => "not-held".to_owned(),
            Err(ReleaseError::Doubt(why)) => format!("doubt {}", one_line(&why)),
            Err(ReleaseError::Lost(why)) => format!("lost {}", one_line(&why)),
        },
        ["check", name] => match session.held(&decoded(name)) {
            Ok(held) => if held.is_some() { "held" } else { "not-held" }.to_owned(),
            Err(error) => not_inspected(error),
        },
        ["inspect", name] => match session.inspect(&decoded(name)) {
            Ok(seen) => match seen.mode {
                None => "free".to_owned(),
                Some(Mode::Exclusive) => format!("exclusive {}", seen.waiters),
                Some(_) => format!("shared {}", seen.waiters),
            },
            Err(error) => not_inspected(error),
        },
        ["notice", time] => notice(session, millis(time)),
        ["state"] => known(session.state()),
        ["certain", time] => known(session.wait_certain(Some(millis(time)))),
        ["cancel"] => {
            session.cancel();
            "ok".to_owned()
        }
        ["close"] => {
            session.close();
            "ok".to_owned()
        }
        _ => format!("error unknown command {words:?}"),
    }
}

fn acquired(result: Result<Grant, AcquireError>) -> String {
    match result {
        Ok(grant) => {
            format!("granted token={}{}", grant.token, if grant.orphaned { " orphaned" } else { "" })
        }
        Err(AcquireError::TimedOut) => "timeout".to_owned(),
        Err(AcquireError::AlreadyHeld(_) | AcquireError::AlreadyWaiting) => "already".to_owned(),
        Err(AcquireError::NotHeld) => "not-held".to_owned(),
        Err(AcquireError::Deadlock(_)) => "deadlock".to_owned(),
        Err(AcquireError::Cancelled) => "cancelled".to_owned(),
        Err(AcquireError::Invalid(why)) => format!("invalid {}", one_line(&why)),
        Err(AcquireError::Refused(why) | AcquireError::NotYet(why)) => format!("refused {}", one_line(&why)),
        Err(AcquireError::Doubt(why)) => format!("doubt {}", one_line(&why)),
        // The server is stopping: it ends the session.
        Err(AcquireError::Lost(why) | AcquireError::Stopping(why)) => format!("lost {}", one_line(&why)),
        Err(error) => format!("error {}", one_line(&error.to_string())),
    }
}

fn known(state: SessionState) -> String {
    match state {
        SessionState::Alive => "alive".to_owned(),
        SessionState::InDoubt { reason, .. } => format!("doubt {}", one_line(&reason)),
        SessionState::Lost { reason } => format!("lost {}", one_line(&reason)),
    }
}

fn not_inspected(error: InspectError) -> String {
    match error {
        InspectError::Doubt(why) => format!("doubt {}", one_line(&why)),
        InspectError::Lost(why) => format!("lost {}", one_line(&why)),
        InspectError::Invalid(why) => format!("invalid {}", one_line(&why)),
        InspectError::Refused(why) => format!("refused {}", one_line(&why)),
        InspectError::TimedOut => "timeout".to_owned(),
        InspectError::Cancelled => "cancelled".to_owned(),
    }
}

/// Waits for the news that the session is lost, without a request.
fn notice(session: &Session, limit: Duration) -> String {
    let end = Instant::now() + limit;
    while !matches!(session.state(), SessionState::Lost { .. }) {
        if Instant::now() > end {
            return "alive".to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    "lost the session is not alive".to_owned()
}

fn millis(word: &str) -> Duration {
    Duration::from_millis(word.parse().unwrap_or_default())
}

fn wait(word: &str) -> Option<Duration> {
    (word != "forever").then(|| millis(word))
}

fn read_mode(word: &str) -> Mode {
    match word {
        "shared" => Mode::Shared,
        _ => {
            let holders = word.strip_prefix("at-most:").and_then(|holders| holders.parse().ok());
            holders.and_then(Mode::at_most).unwrap_or(Mode::Exclusive)
        }
    }
}

/// The bytes that a word of a command stands for.
fn decoded(word: &str) -> Vec<u8> {
    if word == "\"\"" {
        return Vec::new();
    }
    let mut parts = word.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap_or_default());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// Messages may have several lines; an outcome has one.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}
