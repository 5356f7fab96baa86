//! Messages made of parts, two bytes for each key. So inputs reach combinations of keys and values
//! without having to find the syntax of JSON first. Only some of the messages make sense.

const COMMANDS: [&str; 12] = [
    "lock", "lock", "unlock", "convert", "cancel", "inspect", "list", "identify", "hello", "ping", "stats",
    "dance",
];

const IDS: [&str; 8] = ["1", "\"x\"", "0", "-1.5e3", "null", "true", "\"\\\"\"", "[1]"];

const KEYS: [&str; 40] = [
    "lockName",
    "lockNameHex",
    "lockNames",
    "mode",
    "timeLimit",
    "lockName",
    "lockNames",
    "mode",
    "timeLimit",
    "prefix",
    "prefixHex",
    "after",
    "afterHex",
    "limit",
    "id",
    "name",
    "client",
    "version",
    "status",
    "token",
    "orphaned",
    "already",
    "holders",
    "waiters",
    "reason",
    "circle",
    "locks",
    "more",
    "server",
    "features",
    "keepalive",
    "command",
    "parameters",
    "result",
    "error",
    "x",
    "lockNam\\u0065",
    "address",
    "heldFor",
    "mode ",
];

const VALUES: [&str; 48] = [
    "\"a\"",
    "\"b\"",
    "\"\"",
    "\"exclusive\"",
    "\"shared\"",
    "\"Shared\"",
    "0",
    "1",
    "-1",
    "0.25",
    "1e300",
    "1e-9",
    "1e999",
    "-0",
    "0.30000000000000004",
    "12345678901234567890",
    "9007199254740991",
    "true",
    "false",
    "null",
    "[]",
    "[ ]",
    "{}",
    "[\"a\"]",
    "[\"a\",\"b\"]",
    "[\"a\",\"a\"]",
    "[\"a\",{\"lockName\":\"a\"}]",
    "[{\"lockName\":\"c\",\"mode\":\"shared\"}]",
    "[{\"lockNameHex\":\"00\"},\"x\"]",
    "[{\"lockNameHex\":\"zz\"}]",
    "[{\"lockName\":\"a\",\"mode\":null}]",
    "[{\"mode\":\"shared\"}]",
    "[1]",
    "[null]",
    "[{}]",
    "\"ff00\"",
    "\"fg\"",
    "\"f\"",
    "\"+1\"",
    "\"C3a4\"",
    "\"\\u0061\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\"",
    "\"ok\"",
    "\"timeout\"",
    "[{\"lockName\":\"a\",\"mode\":\"shared\",\"holders\":[{\"address\":\"x\",\"token\":1,\"heldFor\":0.1}],\"waiters\":[]}]",
    "{\"idle\":5,\"interval\":0.5,\"probes\":3,\"userTimeout\":1,\"deadPeerTimeout\":25}",
];

/// A message: a byte for the command, one for the id, then two for each key and its value. Most
/// keys go into the parameters, which are also the result; some go into the message itself.
#[must_use]
pub fn body(bytes: &[u8]) -> Vec<u8> {
    let (head, pairs) = bytes.split_at(bytes.len().min(2));
    let choose = |from: &'static [&'static str], byte: Option<&u8>| {
        from[usize::from(byte.copied().unwrap_or(0)) % from.len()]
    };
    let (mut outer, mut inner) = (String::new(), String::new());
    for pair in pairs.chunks(2) {
        let to = if pair[0] >= 200 { &mut outer } else { &mut inner };
        to.push_str(if to.is_empty() { "" } else { "," });
        to.push_str(&format!("\"{}\":{}", choose(&KEYS, pair.first()), choose(&VALUES, pair.get(1))));
    }
    let command = choose(&COMMANDS, head.first());
    let id = choose(&IDS, head.get(1));
    let comma = if outer.is_empty() { "" } else { "," };
    format!("{{\"command\":\"{command}\",\"parameters\":{{{inner}}},\"id\":{id},\"result\":{{{inner}}}{comma}{outer}}}")
        .into_bytes()
}
