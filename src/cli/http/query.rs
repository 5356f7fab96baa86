//! Parses the query of a request. Pure. Values are bytes, as names of locks are.

/// The parameters of `query`, in their order.
///
/// # Errors
/// If it is not encoded correctly; the message says why.
pub(super) fn parameters(query: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decode(name)?).map_err(|_| "a parameter is not UTF-8")?;
            Ok((name, decode(value)?))
        })
        .collect()
}

/// Decodes percent-encoded text to bytes; a plus is a space.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                value.ok_or_else(|| "a % is not followed by two hexadecimal digits".to_owned())?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_any_bytes() {
        let read = parameters("&prefix=a%2Fb+c%00%fF&&waiting&x=1=2&%61=").unwrap();
        let expected: [(&str, &[u8]); 4] =
            [("prefix", b"a/b c\0\xff"), ("waiting", b""), ("x", b"1=2"), ("a", b"")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
        assert_eq!(parameters(""), Ok(vec![]));
    }

    #[test]
    fn incomplete_escapes_are_refused() {
        for query in ["a=%", "a=%1", "a=%1g", "a=%%31", "a=%+1", "%ff=1"] {
            assert!(parameters(query).is_err(), "{query}");
        }
    }
}
