//! The plain table: two blanks before each cell, a line of dashes two longer than a row, every cell padded.

use super::Table;

/// The text of a table. An empty cell is `-`, a cell longer than `longest` bytes is cut; widths are in bytes.
pub(super) fn table(table: &Table, longest: usize) -> String {
    let rows: Vec<Vec<&str>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| shown(&cell.text, longest)).collect())
        .collect();
    let header = table.shown();
    let widths: Vec<usize> = (0..header.len())
        .map(|at| {
            std::iter::once(&header)
                .chain(&rows)
                .filter_map(|row| row.get(at))
                .map(|c| c.len())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    line(&mut text, &header, &widths);
    let dashes = widths.iter().map(|w| w + 2).sum::<usize>() + 2;
    text.extend(std::iter::repeat_n('-', dashes));
    text.push('\n');
    for row in &rows {
        line(&mut text, row, &widths);
    }
    text
}

fn shown(text: &str, longest: usize) -> &str {
    if text.is_empty() {
        return "-";
    }
    let end = (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn line(text: &mut String, cells: &[&str], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str("  ");
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width - cell.len()));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::Cell;
    use super::*;

    /// A table from a sample: columns are separated by two blanks or more.
    fn read(sample: &str) -> Table {
        let cells = |line: &str| -> Vec<String> {
            line.trim()
                .split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .map(Into::into)
                .collect()
        };
        let mut lines = sample.lines().filter(|l| !l.starts_with("------"));
        let columns = cells(lines.next().unwrap());
        let mut table = Table { columns, details: 0, rows: vec![] };
        for line in lines {
            table.push(
                cells(line)
                    .into_iter()
                    .map(|c| if c == "-" { Cell::none() } else { Cell::text(c) })
                    .collect(),
            );
        }
        table
    }

    /// The documented samples have lost their trailing blanks, and nothing else.
    fn same(sample: &str) {
        let text = table(&read(sample), 256);
        let stripped: String = text.lines().map(|l| format!("{}\n", l.trim_end())).collect();
        assert_eq!(stripped, sample);
        let width = sample.lines().nth(1).unwrap().len();
        for line in text.lines().filter(|l| !l.starts_with('-')) {
            assert_eq!(line.len() + 2, width, "every cell is padded, the last one too");
        }
    }

    #[test]
    fn the_documented_samples_byte_for_byte() {
        same(concat!(
            "  endpoint            real_endpoint  state     age\n",
            "----------------------------------------------------\n",
            "  172.27.128.31:8541  -              kHealthy  3h\n",
            "  172.27.128.32:8541  -              kOffline  7m\n",
            "  172.27.128.33:8541  -              kHealthy  3h\n",
        ));
        same(concat!(
            "  endpoint            state           age\n",
            "-------------------------------------------\n",
            "  172.27.128.31:8541  kTabletHealthy  3h\n",
            "  172.27.128.32:8541  kTabletOffline  7m\n",
            "  172.27.128.33:8541  kTabletHealthy  3h\n",
        ));
        same(concat!(
            "  name           tid  pid  endpoint          role    is_alive  offset  record_cnt  memused  diskused\n",
            "------------------------------------------------------------------------------------------------------\n",
            "  aaa            22   0    172.24.4.55:9971  leader  yes       0       0           0.000    8.646 K\n",
            "  auto_VCeOIIKA  25   0    172.24.4.55:9971  leader  yes       8       4           498.000  9.128 K\n",
            "  t1             21   0    172.24.4.55:9971  leader  yes       1       1           301.000  9.353 K\n",
        ));
        same(concat!(
            "  name  tid  pid  endpoint            role      ttl   is_alive  compress_type  offset  record_cnt  memused\n",
            "------------------------------------------------------------------------------------------------------------\n",
            "  flow  4    0    172.27.128.32:8541  leader    0min  no        kNoCompress    0       0           0.000\n",
            "  flow  4    0    172.27.128.33:8541  follower  0min  yes       kNoCompress    0       0           0.000\n",
        ));
        same(concat!(
            "  key            value\n",
            "------------------------\n",
            "  auto_failover  false\n",
        ));
        same(concat!(
            "  #  tid  pid  leader_offset  follower            offset\n",
            "-----------------------------------------------------------\n",
            "  0  4    1    5923724        172.27.128.31:8541  5920714\n",
            "  1  4    1    5923724        172.27.128.32:8541  5921707\n",
        ));
        same(concat!(
            "  zk_endpoints                                           zk_path             alias   state            age\n",
            "-----------------------------------------------------------------------------------------------------------\n",
            "  172.24.4.27:62181,172.24.4.40:62181,172.24.4.55:62182  /openmldb_cluster   backup  kClusterHealthy  2d\n",
            "  10.100.121.5:12181                                     /openmldb_cluster2  local   kClusterHealthy  16d\n",
        ));
    }

    #[test]
    fn without_rows_there_is_still_a_header() {
        assert_eq!(table(&Table::new(&["#", "name"]), 256), "  #  name\n-----------\n");
    }

    #[test]
    fn a_long_cell_is_cut_between_characters() {
        let mut wide = Table::new(&["a"]);
        wide.push(vec![Cell::text("xxé")]);
        assert_eq!(table(&wide, 3), "  a \n------\n  xx\n");
    }
}
