//! Columns for people.

use std::fmt::Write as _;

/// Blanks between two columns.
pub(crate) const GAP: usize = 3;

/// Columns three blanks apart and as wide as their widest cell, at least `least`; the last one ends
/// where it ends.
pub(crate) fn columns<const N: usize>(lines: &[[String; N]], least: usize) -> String {
    columns_apart(lines, least, GAP)
}

/// The same with another number of blanks between.
pub(crate) fn columns_apart<const N: usize>(
    lines: &[[String; N]],
    least: usize,
    gap: usize,
) -> String {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count() + gap);
        cells.max().unwrap_or(0).max(least)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            if column + 1 < N {
                let width = widths[column];
                // Writing to a string does not fail.
                let _ = write!(text, "{cell:width$}");
            } else {
                text.push_str(cell);
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["A", "BCD"], ["longer", "e"]].map(|line| line.map(str::to_owned));
        assert_eq!(columns(&lines, 0), "A        BCD\nlonger   e\n");
        assert_eq!(columns(&lines, 12), "A           BCD\nlonger      e\n");
    }
}
