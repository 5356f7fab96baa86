//! The port in an address as people write it. Servers and clients read it by this one rule.

/// Reads a port: decimal digits only. Leading zeros are refused, because some programs read such a
/// number as octal. Port 0 is for listeners; the system then chooses a free port.
#[must_use]
pub fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_decimal_digits_up_to_65535() {
        for (text, port) in [("0", 0), ("1", 1), ("20934", 20934), ("65535", 65535)] {
            assert_eq!(parse_port(text), Some(port));
        }
        for text in ["", "+80", "-1", "080", "00", " 80", "80 ", "0x50", "65536", "8e1", "٨٠"] {
            assert_eq!(parse_port(text), None, "{text:?}");
        }
    }
}
