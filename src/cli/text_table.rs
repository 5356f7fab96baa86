//! Tables of text. Pure: cells in, lines out.

/// Rows of cells. Each column is as wide as its widest cell so far.
#[derive(Debug, Default)]
pub(super) struct TextTable {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl TextTable {
    pub(super) fn with_heads(heads: &[&str]) -> Self {
        let mut table = Self::default();
        table.add(heads.iter().map(|&head| head.to_owned()).collect());
        table
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.widths.resize(self.widths.len().max(row.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    /// Takes the lines of the rows added since the last time, without spaces at their ends.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        let line = |row: Vec<String>| {
            let cells = row.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::mem::take(&mut self.rows).into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_fit_their_widest_cell_and_never_become_narrower() {
        let mut table = TextTable::with_heads(&["A", "LONG", "B"]);
        table.add(row(["größe", "x", "y"]));
        table.add(row(["", "", ""]));
        assert_eq!(table.take_lines(), ["A      LONG  B", "größe  x     y", ""]);
        table.add(row(["a", "b", "c"]));
        assert_eq!(table.take_lines(), ["a      b     c"]);
    }
}
