//! The table with rulers: a blank after each cell and ruler, an empty cell stays empty.

use super::Table;

/// The text of a table.
pub(super) fn table(table: &Table) -> String {
    let header = table.shown();
    let rows: Vec<Vec<&str>> =
        table.rows.iter().map(|row| row.iter().map(|c| c.text.as_str()).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|at| {
            std::iter::once(&header)
                .chain(&rows)
                .filter_map(|row| row.get(at))
                .map(|c| c.len())
                .max()
                .unwrap_or(0)
                + 2
        })
        .collect();
    let ruler: String = widths.iter().map(|w| format!("{} ", "-".repeat(*w))).collect();
    let mut text = format!(" {ruler}\n");
    line(&mut text, &header, &widths);
    text.push_str(&format!(" {ruler}\n"));
    for row in &rows {
        line(&mut text, row, &widths);
    }
    text.push_str(&format!(" {ruler}\n"));
    text
}

fn line(text: &mut String, cells: &[&str], widths: &[usize]) {
    text.push(' ');
    for (at, width) in widths.iter().enumerate() {
        let cell = cells.get(at).copied().unwrap_or("");
        text.push(' ');
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width - cell.len()));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::Cell;
    use super::*;

    #[test]
    fn the_documented_sample_byte_for_byte() {
        let mut sample = Table::new(&["#", "Field", "Type", "Null", "Default"]);
        sample.push(["1", "c1", "Varchar", "YES", ""].into_iter().map(Cell::text).collect());
        let want = concat!(
            " --- ------- --------- ------ --------- \n",
            "  #   Field   Type      Null   Default  \n",
            " --- ------- --------- ------ --------- \n",
            "  1   c1      Varchar   YES             \n",
            " --- ------- --------- ------ --------- \n",
        );
        assert_eq!(table(&sample), want);
        // The sample of the reference also has a longer type in a row that it does not show.
        sample.push(["2", "c2", "Timestamp", "YES", ""].into_iter().map(Cell::text).collect());
        let text = table(&sample);
        assert!(text.starts_with(" --- ------- ----------- ------ --------- \n  #   Field   Type        Null   Default  \n"));
        assert!(text.contains("\n  1   c1      Varchar     YES             \n"));
    }
}
