//! `docs/performance.md` and its plots. Measurements are written between marks; the text around
//! them is written by hand.

use std::fs;
use std::path::PathBuf;

/// The document.
pub(crate) struct Document {
    directory: PathBuf,
}

impl Document {
    pub(crate) fn open() -> Self {
        Self { directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs") }
    }

    /// Replaces the text between the section's marks.
    pub(crate) fn replace(&self, section: &str, text: &str) {
        let path = self.directory.join("performance.md");
        let document = fs::read_to_string(&path).unwrap();
        let (begin, end) = (format!("<!-- begin {section} -->"), format!("<!-- end {section} -->"));
        let (before, rest) = document.split_once(&begin).expect("the section's first mark");
        let (_, after) = rest.split_once(&end).expect("the section's second mark");
        fs::write(&path, format!("{before}{begin}\n{}\n{end}{after}", text.trim_end())).unwrap();
    }

    /// The path for the plot of this name.
    pub(crate) fn plot(&self, name: &str) -> PathBuf {
        let directory = self.directory.join("performance");
        fs::create_dir_all(&directory).unwrap();
        directory.join(format!("{name}.svg"))
    }
}
