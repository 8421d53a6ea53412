//! Columns of text, as Go's `tabwriter` sets them.

/// Lines of cells, each column as wide as its widest cell and `padding` more; the last is not filled up.
pub(super) fn table<const COLUMNS: usize>(rows: &[[&str; COLUMNS]], padding: usize) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + padding);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (width, cell) in widths.iter().zip(&row[..COLUMNS - 1]) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(row[COLUMNS - 1]);
        text.push('\n');
    }
    text
}
