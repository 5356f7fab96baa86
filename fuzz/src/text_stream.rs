//! What holds for the stream of either text protocol, whatever its lines mean: that the same lines are read of it
//! however it is cut, and those that a simple reader finds.

use crate::pieces::Case;
use crate::{naive_text, reading};

const LINE_MAX: [usize; 8] = [4096, 0, 1, 2, 7, 20, 255, 100_000];

/// The lines of the stream that an input describes, without those that are too long; `None` if it describes
/// none. Has the lines of a long stream parsed, where the input asks for one.
///
/// # Panics
/// If it matters how the stream is cut, or other lines are read than a simple reader finds.
pub fn lines_however_cut(data: &[u8], parse: impl Fn(&[u8])) -> Option<Vec<Vec<u8>>> {
    let case = Case::read(data)?;
    let line_max = LINE_MAX[usize::from(case.limit) % LINE_MAX.len()];
    let expected = naive_text::lines(&case.stream, line_max);
    let mut first = None;
    for way in case.ways() {
        let read = reading::lines(&way, line_max);
        assert_eq!(read.found, expected, "other lines than a simple reader finds");
        assert_eq!(read.taken + read.left.len(), case.stream.len());
        let first = first.get_or_insert((read.taken, read.left.clone()));
        assert_eq!(*first, (read.taken, read.left), "it matters how the stream was cut");
    }
    if let Some(long) = case.long() {
        let read = reading::lines(&[&long], line_max);
        read.found.iter().flatten().for_each(|line| parse(line));
    }
    Some(expected.into_iter().flatten().collect())
}
