//! Makes a table of people's fit their terminal: a line that wraps is worse to read than one that is cut.

use std::io::{IsTerminal, stdout};

use super::table;

/// Which column is cut, in this order, and to how much at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) column: usize,
    pub(super) least: usize,
}

/// How many columns of characters there are where we print, if it is a terminal that says so.
pub(super) fn width() -> Option<usize> {
    let stdout = stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The table, with cells cut as far as it takes to be no wider than `width`, and as it is allowed.
pub(super) fn columns<const N: usize>(
    mut lines: Vec<[String; N]>,
    width: Option<usize>,
    cuts: &[Cut],
) -> String {
    let too_wide = |lines: &[[String; N]], gap: usize| {
        let whole: usize = (0..N).map(|column| widest(lines, column)).sum();
        (whole + gap * (N - 1)).saturating_sub(width.unwrap_or(usize::MAX))
    };
    if too_wide(&lines, table::GAP) == 0 {
        return table::columns(&lines, 0);
    }
    let gap = table::GAP - 1;
    for Cut { column, least } in cuts {
        let over = too_wide(&lines, gap);
        if over == 0 {
            break;
        }
        let room = widest(&lines, *column).saturating_sub(over).max(*least);
        for line in &mut lines {
            line[*column] = cut(&line[*column], room);
        }
    }
    let gap = if too_wide(&lines, gap) == 0 { gap } else { 1 };
    table::columns_apart(&lines, 0, gap)
}

fn widest<const N: usize>(lines: &[[String; N]], column: usize) -> usize {
    lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
}

/// What is in quotes stays so.
fn cut(cell: &str, room: usize) -> String {
    if cell.chars().count() <= room {
        return cell.to_owned();
    }
    let quoted = cell.len() > 1 && cell.starts_with('"') && cell.ends_with('"');
    let end = if quoted { "…\"" } else { "…" };
    let kept = room.saturating_sub(end.chars().count());
    let bare = cell.trim_end_matches('"').trim_end_matches('…');
    bare.chars().take(kept).chain(end.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<usize>) -> String {
        let lines =
            [["ID", "IMAGE", "COMMAND"], ["0123456789ab", "host/long/name", "\"sleep 1000\""]];
        let cuts = [Cut { column: 2, least: 7 }, Cut { column: 1, least: 6 }];
        columns(lines.map(|line| line.map(str::to_owned)).into(), width, &cuts)
    }

    #[test]
    fn cells_are_cut_in_their_order_and_no_further_than_allowed() {
        let whole = "ID             IMAGE            COMMAND\n0123456789ab   host/long/name   \"sleep 1000\"\n";
        assert_eq!(table(None), whole);
        assert_eq!(table(Some(44)), whole);
        let line = |width| table(Some(width)).lines().nth(1).unwrap().to_owned();
        assert_eq!(line(43), "0123456789ab  host/long/name  \"sleep 1000\"");
        assert_eq!(line(40), "0123456789ab  host/long/name  \"sleep 1…\"");
        assert_eq!(line(32), "0123456789ab  host/lon…  \"slee…\"");
        assert_eq!(line(29), "0123456789ab  host/…  \"slee…\"");
        assert_eq!(line(10), "0123456789ab host/… \"slee…\"");
    }

    #[test]
    fn what_is_cut_already_is_cut_once() {
        assert_eq!(cut("\"sleep 10…\"", 8), "\"sleep…\"");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
