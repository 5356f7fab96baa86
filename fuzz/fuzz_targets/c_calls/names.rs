//! Valid and invalid names.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use crate::input::Input;

/// Names by number. If two numbers have equal names, the lower number is used.
pub(crate) struct Names {
    names: Vec<CString>,
    too_long: CString,
}

/// The name argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenName {
    /// A valid name, by its number.
    Name(u8),
    Null,
    TooLong,
}

impl Names {
    pub(crate) fn new(input: &mut Input<'_>) -> Self {
        let own = [input.string(30), input.string(30)];
        let long = vec![b'n'; 1024];
        let fixed: [&[u8]; 6] = [b"a", b"b", b"", b"\xff\x01", &long, b"two\nlines \"\\\x7f"];
        let names = fixed.into_iter().chain(own.iter().map(Vec::as_slice));
        let names = names.map(|name| CString::new(name).expect("no zero byte")).collect();
        Self { names, too_long: CString::new(vec![b'n'; 1025]).expect("no zero byte") }
    }

    pub(crate) fn choose(&self, input: &mut Input<'_>) -> GivenName {
        let number = usize::from(input.byte() % 16);
        match number {
            0..=7 => self.number(number),
            8..=10 => self.number(0),
            11..=13 => self.number(1),
            14 => GivenName::Null,
            _ => GivenName::TooLong,
        }
    }

    fn number(&self, number: usize) -> GivenName {
        let same = self.names.iter().position(|name| *name == self.names[number]);
        GivenName::Name(same.and_then(|number| u8::try_from(number).ok()).expect("there are eight"))
    }

    /// The numbers of all different names.
    pub(crate) fn all(&self) -> Vec<u8> {
        let names = (0..self.names.len()).map(|number| self.number(number));
        let mut all: Vec<u8> = names
            .filter_map(|name| if let GivenName::Name(number) = name { Some(number) } else { None })
            .collect();
        all.dedup();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(crate) fn pointer(&self, name: GivenName) -> *const c_char {
        match name {
            GivenName::Name(number) => self.names[usize::from(number)].as_ptr(),
            GivenName::Null => ptr::null(),
            GivenName::TooLong => self.too_long.as_ptr(),
        }
    }

    pub(crate) fn text(&self, number: u8) -> &CStr {
        &self.names[usize::from(number)]
    }
}
